"""Run the whole study, resumably: `python experiments/study.py --help`.

Each run is a process of `mnist.py` with a run folder inside the study's folder. A run that fails is
named and the next one goes on; the same command again takes up what is missing.
"""

from __future__ import annotations

import functools
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from tyro.conf import arg

from experiments.harness import flags, workers
from experiments.harness.command import command, say
from experiments.harness.errors import ConfigError, RunError, RunFailedError
from experiments.harness.files import lock_folder, read_object, write_atomic, writing
from experiments.harness.provenance import environment
from experiments.section3 import collect, grid, rates
from experiments.section3.cells import Cell, Preset
from experiments.section3.execution import Plan, execute

EXAMPLES = """examples:
  python experiments/study.py --preset smoke       a few runs, nothing is learnt; two minutes
  python experiments/study.py                      on two cores within 90 minutes
  python experiments/study.py --preset rates       the learning rates, by validation loss
  python experiments/collect.py docs/results/study-rates.json runs/study-rates
  python experiments/study.py --preset converged   with those rates; then depth, relu-norm, ...
  python experiments/study.py --preset converged --results docs/results/study-converged.json
      only what that record does not have; with --shard 1/2, half of it
  python experiments/study.py --preset paper --dataset fashion_mnist --data-dir FOLDER   on a GPU
  python experiments/report.py runs/study-laptop   tables and pictures from it
"""
RATES = Path("docs") / "results" / "study-rates.json"
HERE = Path(__file__).parent
TRAIN = (sys.executable, str(HERE / "mnist.py"))
EXAMINE = (sys.executable, str(HERE / "examine.py"))


@dataclass(frozen=True)
class Study:
    """Which runs."""

    preset: Literal[
        "rates",
        "converged",
        "depth",
        "relu-norm",
        "coarsely-trained",
        "fashion",
        "fashion-full",
        "paper",
        "laptop",
        "smoke",
        "coarse-adjoint",
        "coarse-adjoint-long",
        "coarse-adjoint-full",
        "follow-up",
    ] = "laptop"
    """rates: learning rates chosen by validation, 5 folds of the 5,000 embedded images. With these,
    20 epochs, 5 folds: converged, the models of section 3; depth, ResNets of 2, 4 and 12 blocks;
    relu-norm, without the last ReLU, with other normalisations; coarsely-trained, with coarse
    solvers. fashion: Fashion-MNIST, 20,000 images (-full: all). laptop: 3 epochs, 93 runs; paper:
    160 epochs of the full set; coarse-adjoint: what the adjoint of a coarse step does to training
    (-long: for 160 epochs; -full: on a full set); follow-up: the seven networks of the work we
    follow up on."""
    only: Annotated[str | None, flags.named("NAMES", "all")] = None
    """Only these variants of the preset, with commas between."""
    minutes: Annotated[float | None, flags.named("M", "laptop 85, paper no limit")] = None
    """Begin no run after so many minutes; those under way are finished."""
    jobs: Annotated[int | None, flags.named("N", "one a core; paper 1")] = None
    """Runs at once, each on its share of the cores."""
    shard: Annotated[str | None, flags.named("I/N", "all")] = None
    """Only the I-th of N parts of the runs, for as many machines; collect.py joins the results."""
    rates: Annotated[Path | None, flags.named("FILE", str(RATES))] = None
    """Record of the preset rates, from which learning rates are taken."""


@dataclass(frozen=True)
class Data:
    """Which images."""

    dataset: Annotated[
        Literal["mnist", "fashion_mnist"] | None,
        arg(help_behavior_hint="(default: mnist; with the presets fashion, fashion_mnist)"),
    ] = None
    """Handwritten digits, or pieces of clothing."""
    data_dir: Annotated[Path | None, flags.named("FOLDER", "none")] = None
    """Folder of IDX files; without it MNIST is the embedded images, but with paper."""


@dataclass(frozen=True)
class Run:
    """Where results go."""

    out: Annotated[Path | None, flags.named("FOLDER", "runs/study-PRESET")] = None
    """Folder of the study; one that was begun is gone on with."""
    results: Annotated[Path | None, flags.named("FILE", "none")] = None
    """A record of earlier runs (see collect.py); what is done in it is not run again."""


@dataclass(frozen=True)
class Config:
    """Train every model of the study with several seeds; report.py makes tables of the results."""

    study: Study = Study()
    data: Data = Data()
    run: Run = Run()


def main(
    arguments: Sequence[str] | None = None,
    train: Sequence[str] = TRAIN,
    examine: Sequence[str] = EXAMINE,
) -> int:
    """Run the command line; `train` and `examine` are the commands that a run is made of."""
    job = functools.partial(run, train=train, examine=examine)
    how = "the same command goes on from what is saved"
    return command("study.py", job, interrupted=how)(arguments)


def run(
    arguments: list[str], console: Console, train: Sequence[str], examine: Sequence[str]
) -> None:
    """Everything `main` does, with errors as exceptions."""
    config = flags.parse("study.py", EXAMPLES, arguments, Config())
    preset = grid.PRESETS[config.study.preset]
    cells = choose(preset, config.study.only)
    if config.study.shard is not None:
        cells = shard(cells, config.study.shard)
    flags.at_least("--jobs", config.study.jobs)
    if config.study.minutes is not None:
        flags.positive("--minutes", config.study.minutes)
    minutes = preset.minutes if config.study.minutes is None else config.study.minutes
    jobs = config.study.jobs or preset.jobs or workers.default_jobs()
    where, told = data_flags(config, preset)
    record: dict[str, Any] = {
        "preset": config.study.preset,
        "flags": [*preset.flags.split(), *told],
    }
    cells = not_in(config.run.results, record, cells, console)
    chosen = chosen_rates(config, preset, cells)
    folder = config.run.out or Path("runs") / f"study-{config.study.preset}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(folder)
    except OSError as error:
        raise RunError(
            f"the study's folder {folder} cannot be written ({error.strerror}); choose another "
            "with --out."
        ) from None
    if config.study.preset == "smoke":
        examine = [*examine, "--quick"]
    with lock:
        record = begin(folder, record, jobs)
        began = time.monotonic()
        say(console, "study", f"{len(cells)} runs, {jobs} at once, in {folder}")
        plan = Plan(
            folder,
            [*preset.flags.split(), *where],
            lambda cell: chosen.get(cell.variant.name, []),
            train,
            examine,
        )
        failed, left, ended = execute(plan, cells, jobs, minutes, console)
        record["sessions"][-1] |= {"runs": ended, "seconds": round(time.monotonic() - began, 1)}
        write_record(folder, record)
    if left:
        say(console, "left", f"{left} runs not begun after {minutes:g} minutes; run this again")
    if failed:
        raise RunFailedError(
            f"{len(failed)} of {len(cells)} runs failed: {', '.join(sorted(failed))}; reasons "
            f"above and in {folder / 'logs'}. To repeat one, delete its folder and run this again."
        )
    say(console, "next", f"python experiments/report.py {folder}")


def choose(preset: Preset, only: str | None) -> list[Cell]:
    """The runs of `preset`, or those of the variants in the comma-separated `only`."""
    cells = grid.cells(preset)
    if only is None:
        return cells
    names, known = [name.strip() for name in only.split(",")], {c.variant.name for c in cells}
    for name in names:
        if name not in known:
            has = ", ".join(sorted(known))
            raise ConfigError(f"--only has {name!r}, which this preset has not; it has {has}.")
    return [cell for cell in cells if cell.variant.name in names]


def shard(cells: Sequence[Cell], which: str) -> list[Cell]:
    """Part `I/N` of the runs: every N-th, from the I-th on."""
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", which)
    if found is None or int(found[1]) > int(found[2]):
        raise ConfigError(f"--shard is {which}; I/N expected, such as 1/3, 2/3 or 3/3.")
    if any(cell.variant.after for cell in cells):
        raise ConfigError("--shard: runs of this preset start from each other's weights.")
    return list(cells[int(found[1]) - 1 :: int(found[2])])


def not_in(
    results: Path | None, record: dict[str, Any], cells: Sequence[Cell], console: Console
) -> list[Cell]:
    """The runs that are not done in the record at `results`."""
    if results is None:
        return list(cells)
    earlier = collect.load(results)
    if earlier["flags"] != record["flags"]:
        raise ConfigError(f"--results {results} has runs with other flags than this preset's.")
    known = {collect.key_of(run) for run in earlier["runs"] if run["status"] == "done"}
    left = [c for c in cells if (c.variant.name, c.seed, c.fold) not in known]
    say(console, "done", f"{len(cells) - len(left)} runs are in {results}")
    return left


def chosen_rates(config: Config, preset: Preset, cells: Sequence[Cell]) -> dict[str, Sequence[str]]:
    """`--lr` for each variant, from the record of the preset rates, where the preset asks so."""
    if not preset.rates:
        if config.study.rates is not None:
            raise ConfigError(f"--rates: the preset {config.study.preset} takes no chosen rates.")
        return {}
    path = config.study.rates or RATES
    if not path.exists():
        raise ConfigError(
            f"{path} is not there: run study.py --preset rates and collect.py first, or give the "
            "file with --rates."
        )
    record = collect.load(path)
    variants = {cell.variant.name: cell.variant for cell in cells}
    return {n: rates.flags_for(record, v, grid.VARIANTS) for n, v in variants.items()}


def data_flags(config: Config, preset: Preset) -> tuple[list[str], list[str]]:
    """Flags of `mnist.py` that say which images; and those of them that hold on any machine."""
    dataset = config.data.dataset or preset.dataset
    told = ["--dataset", dataset]
    if config.data.data_dir:
        return [*told, "--data-dir", str(config.data.data_dir.absolute())], told
    if dataset == "mnist" and config.study.preset != "paper":
        told = ["--source", "embedded"]
    return told, told


def begin(folder: Path, record: dict[str, Any], jobs: int) -> dict[str, Any]:
    """Write study.json: what the study is, and on which machine and code each call of it ran."""
    path = folder / "study.json"
    record = {**record, "sessions": []}
    if path.exists():
        earlier = read_object(path, {"preset": str, "flags": list, "sessions": list})
        if any(earlier[key] != record[key] for key in ("preset", "flags")):
            raise RunError(
                f"{folder} holds a study with other flags ({earlier['preset']}: "
                f"{' '.join(map(str, earlier['flags']))}); choose another folder with --out."
            )
        record = earlier
    cores = len(workers.available_cores())
    record["sessions"].append({"jobs": jobs, "cores": cores, **environment({})})
    write_record(folder, record)
    return record


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write study.json; `RunError` if that cannot be."""
    with writing(folder / "study.json"):
        write_atomic(folder / "study.json", json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
