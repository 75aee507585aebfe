"""Run the whole study, resumably: `python experiments/study.py --help`.

Each run is a process of `mnist.py` with a run folder inside the study's folder. A run that fails is
named and the next one goes on; the same command again takes up what is missing.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from tyro.conf import arg

from experiments.harness import flags, workers
from experiments.harness.command import guard, say
from experiments.harness.errors import ConfigError, RunError, RunFailedError
from experiments.harness.files import lock_folder, write_atomic
from experiments.harness.provenance import environment
from experiments.harness.workers import Outcome, Task
from experiments.section3 import grid
from experiments.section3.cells import Cell, Preset

EXAMPLES = """examples:
  python experiments/study.py --preset smoke       a few runs, nothing is learnt; two minutes
  python experiments/study.py                      on two cores within 90 minutes
  python experiments/study.py --preset paper --dataset fashion_mnist --data-dir FOLDER   on a GPU
  python experiments/report.py runs/study-laptop   tables and pictures from it
"""
HERE = Path(__file__).parent
TRAIN = (sys.executable, str(HERE / "mnist.py"))
EXAMINE = (sys.executable, str(HERE / "examine.py"))


@dataclass(frozen=True)
class Study:
    """Which runs."""

    preset: Literal["laptop", "paper", "smoke", "coarse-adjoint", "coarse-adjoint-full"] = "laptop"
    """laptop: 5,000 MNIST images, a few epochs; paper: 160 epochs of the full set; coarse-adjoint:
    what the adjoint of a coarse step does to training (-full: on a full set)."""
    only: Annotated[str | None, arg(metavar="NAMES", help_behavior_hint="(default: all)")] = None
    """Only these variants, with commas between (an unknown one is answered with the list)."""
    minutes: Annotated[
        float | None, arg(metavar="M", help_behavior_hint="(default: laptop 85, paper no limit)")
    ] = None
    """Begin no run after so many minutes; those under way are finished."""
    jobs: Annotated[
        int | None, arg(metavar="N", help_behavior_hint="(default: one a core; paper 1)")
    ] = None
    """Runs at once, each on its share of the cores."""


@dataclass(frozen=True)
class Data:
    """Which images."""

    dataset: Literal["mnist", "fashion_mnist"] = "mnist"
    """Handwritten digits, or pieces of clothing."""
    data_dir: Annotated[
        Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: none)")
    ] = None
    """Folder of IDX files; without it laptop and smoke use the embedded images."""


@dataclass(frozen=True)
class Run:
    """Where results go."""

    out: Annotated[
        Path | None,
        arg(metavar="FOLDER", help_behavior_hint="(default: runs/study-PRESET)"),
    ] = None
    """Folder of the study; one that was begun is gone on with."""


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
    job = lambda given, console: run(given, console, train, examine)
    how = "the same command goes on from what is saved"
    return guard("study.py", job, arguments, interrupted=how)


def run(
    arguments: list[str], console: Console, train: Sequence[str], examine: Sequence[str]
) -> None:
    """Everything `main` does, with errors as exceptions."""
    config = flags.parse("study.py", EXAMPLES, arguments, Config())
    preset = grid.PRESETS[config.study.preset]
    cells = choose(preset, config.study.only)
    flags.at_least("--jobs", config.study.jobs)
    if config.study.minutes is not None:
        flags.positive("--minutes", config.study.minutes)
    minutes = preset.minutes if config.study.minutes is None else config.study.minutes
    jobs = config.study.jobs or preset.jobs or workers.default_jobs()
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
        shared = [*preset.flags.split(), *data_flags(config)]
        record = begin(folder, config, shared, jobs)
        began = time.monotonic()
        say(console, "study", f"{len(cells)} runs, {jobs} at once, in {folder}")
        failed, left, ended = execute(folder, cells, shared, jobs, minutes, train, examine, console)
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
    names = [name.strip() for name in only.split(",")] if only else []
    for name in names:
        if name not in grid.VARIANTS:
            known = ", ".join(grid.VARIANTS)
            raise ConfigError(f"--only has the unknown variant {name!r}; choose from {known}.")
    cells = grid.cells(preset, names)
    if not cells:
        raise ConfigError(f"--only {only} leaves no run in this preset.")
    return cells


def data_flags(config: Config) -> list[str]:
    """Flags of `mnist.py` that say which images."""
    given = config.data
    if given.data_dir:
        return ["--dataset", given.dataset, "--data-dir", str(given.data_dir.absolute())]
    if config.study.preset == "paper" or given.dataset != "mnist":
        return ["--dataset", given.dataset]
    return ["--source", "embedded"]


def begin(folder: Path, config: Config, shared: list[str], jobs: int) -> dict[str, Any]:
    """Write study.json: what the study is, and on which machine and code each call of it ran."""
    path = folder / "study.json"
    record: dict[str, Any] = {"preset": config.study.preset, "flags": shared, "sessions": []}
    if path.exists():
        try:
            earlier = json.loads(path.read_text())
            same = earlier["preset"] == record["preset"] and earlier["flags"] == shared
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise RunError(f"{path} cannot be read: {error}.") from None
        if not same:
            raise RunError(
                f"{folder} holds a study with other flags ({earlier['preset']}: "
                f"{' '.join(earlier['flags'])}); choose another folder with --out."
            )
        record = earlier
    cores = len(workers.available_cores())
    record["sessions"].append({"jobs": jobs, "cores": cores, **environment({})})
    write_record(folder, record)
    return record


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write study.json; `RunError` if that cannot be."""
    try:
        write_atomic(folder / "study.json", json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise RunError(f"{folder / 'study.json'} cannot be written ({error.strerror}).") from None


def execute(
    folder: Path,
    cells: Sequence[Cell],
    shared: Sequence[str],
    jobs: int,
    minutes: float,
    train: Sequence[str],
    examine: Sequence[str],
    console: Console,
) -> tuple[set[str], int, int]:
    """Run what is missing: the names of the failed, how many were not begun, how many ended."""
    tasks, failed, skipped = [], set(), 0
    for cell in cells:
        if reason := recorded_failure(folder / cell.name):
            failed.add(cell.name)
            say(console, "failed", f"{cell.name} (earlier): {reason}")
        elif commands := missing(folder, cell, shared, train, examine):
            tasks.append(Task(cell.name, commands, folder / "logs" / f"{cell.name}.log"))
        else:
            skipped += 1
    if skipped:
        say(console, "done", f"{skipped} runs are there already")
    progress = Progress(tasks, jobs, console)
    # A monotonic clock: that of the wall may be set back while the study runs.
    end = time.monotonic() + 60 * minutes

    def ended(outcome: Outcome) -> None:
        failure = outcome.failure
        if failure is None and not is_done(folder / outcome.name):
            failure = "it ended without results"
        if failure:
            failed.add(outcome.name)
        progress.ended(outcome, failure)

    left = workers.run(tasks, jobs, ended, may_begin=lambda: time.monotonic() < end)
    return failed, len(left), len(tasks) - len(left)


def missing(
    folder: Path, cell: Cell, shared: Sequence[str], train: Sequence[str], examine: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
    """The commands that `cell` still needs; nothing is run again that is done."""
    path = folder / cell.name
    commands = []
    if not is_done(path):
        if (path / "config.json").exists():
            commands.append((*train, "--resume", str(path)))
        else:
            # Killed before it had a configuration: nothing in it can be gone on with.
            shutil.rmtree(path, ignore_errors=True)
            own = cell.variant.flags.split()
            if cell.variant.after:
                earlier = Cell(grid.VARIANTS[cell.variant.after], cell.seed, False)
                own += ["--start-from", str(folder / earlier.name)]
            where = ["--seed", str(cell.seed), "--out", str(path)]
            commands.append((*train, *shared, *own, *where))
    if cell.examined and not (path / "examined.json").exists():
        commands.append((*examine, str(path)))
    return tuple(commands)


def summary_of(run: Path) -> dict[str, Any] | None:
    """A run's summary.json, or None if there is none that can be read."""
    try:
        found = json.loads((run / "summary.json").read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def is_done(run: Path) -> bool:
    """Whether a run has trained to its end."""
    return "test_error" in (summary_of(run) or {})


def recorded_failure(run: Path) -> str | None:
    """Why a run failed of itself (a loss not finite, a failed solve): it would do so again."""
    return (summary_of(run) or {}).get("failed")


class Progress:
    """A line for each run that ends, with the time left over the grid."""

    def __init__(self, tasks: Sequence[Task], jobs: int, console: Console):
        self._waiting = [task.name for task in tasks]
        self._total, self._jobs, self._console = len(tasks), jobs, console
        self._seconds: dict[str, list[float]] = {}

    def ended(self, outcome: Outcome, failure: str | None) -> None:
        """Print how a run ended; `failure` says why it failed."""
        self._waiting.remove(outcome.name)
        if failure is None:
            self._seconds.setdefault(_variant(outcome.name), []).append(outcome.seconds)
        done = self._total - len(self._waiting)
        text = f"{outcome.name}: {failure}" if failure else outcome.name
        left = self.seconds_left()
        rest = "" if left is None else f"  left {left / 60:.0f} min"
        topic = "failed" if failure else "finished"
        say(self._console, topic, f"{done}/{self._total}  {text}  {outcome.seconds:.0f} s{rest}")

    def seconds_left(self) -> float | None:
        """Mean time of the same variant, or of all where it has not ended yet, over the jobs."""
        if not self._seconds:
            return None
        means = {name: statistics.mean(seconds) for name, seconds in self._seconds.items()}
        overall = statistics.mean(means.values())
        return sum(means.get(_variant(name), overall) for name in self._waiting) / self._jobs


def _variant(name: str) -> str:
    return name.rsplit("-seed", 1)[0]


if __name__ == "__main__":
    sys.exit(main())
