"""JAX against PyTorch on the same work: `python experiments/benchmark.py --help`.

All sides of a contest have the same weights, images, tolerances and solver, and take turns within
one process after a warm-up. Compile time (with an empty and with a filled persistent cache) and
peak memory come from a process of its own for every side.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import jax
from rich.console import Console
from rich.table import Table
from tyro.conf import arg

from experiments.harness import flags
from experiments.harness.command import command
from experiments.harness.errors import ConfigError
from experiments.harness.files import write_atomic, writing
from experiments.harness.provenance import environment
from experiments.speed import bfloat16, epoch, peak_memory, per_sample, roofline, scaling
from experiments.speed import measure as measuring
from experiments.speed import ratios as report
from experiments.speed.contests import CONTESTS, Contest, make_call, missing
from jax_node import device

EXAMPLES = """examples:
  python experiments/benchmark.py --quick
      training steps and inference of ResNet-6 and ODE-Net, and the small MLP, about a minute
  python experiments/benchmark.py --out runs/benchmark
      everything, with compile times and memory, into the folder runs/benchmark
  python experiments/benchmark.py --only "Small MLP"
      the contests whose name has these words in it
"""


Part = Literal["roofline", "contests", "memory", "epoch", "scaling", "per_sample", "precision"]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What is measured, and how often."""

    batch_size: Annotated[int, arg(metavar="N")] = 128
    """Images per step."""
    repeats: Annotated[int, arg(metavar="N")] = 9
    """Timed samples of each side, in turns."""
    parts: Annotated[
        tuple[Part, ...],
        arg(
            metavar="PART ...",
            help="roofline of the layers, contests against PyTorch, memory against solver steps, "
            "an epoch end to end, scaling over devices, step sizes per_sample, precision.",
            help_behavior_hint="(default: all)",
        ),
    ] = get_args(Part)
    only: Annotated[str, flags.named("WORDS", "all")] = ""
    """Only contests with these words in their name."""
    quick: bool = False
    """Only the main contests, between the first sides of each, in this one process."""
    out: Annotated[Path | None, flags.named("FOLDER", "nowhere")] = None
    """Where benchmark.json, summary.md and the figures go."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """Times JAX against PyTorch on the same work, in one run."""

    measurement: Measurement = Measurement()


def run(given: list[str], console: Console) -> None:
    """Everything `main` does, with errors as exceptions."""
    options = flags.parse("benchmark.py", EXAMPLES, given, Flags()).measurement
    contests = chosen(options)
    if (os.cpu_count() or 1) > 1:
        jax.config.update("jax_num_cpu_devices", 2)
    console = Console(width=None if console.is_terminal else 200)
    record: dict[str, Any] = {
        **environment(versions()),
        "machine": machine(),
        # Of absolute paths the last part: the summary goes into a page.
        "command": shlex.join(
            ["python", "experiments/benchmark.py"]
            + [Path(word).name if word.startswith("/") else word for word in given]
        ),
        "batch_size": options.batch_size,
        "repeats": options.repeats,
        "load_before": os.getloadavg()[0],
        "unmeasured": {},
    }
    for part, name, measure in jobs(contests, options, record["unmeasured"]):
        console.print(f"measuring {name}", style="dim")
        if part == "contests":
            record.setdefault("contests", []).append(measure())
        else:
            record[part] = measure()
        record["load_after"] = os.getloadavg()[0]
        write(record, options.out)  # what is measured is kept, should the rest be interrupted
    show(record, console)
    if options.out:
        console.print(f"written: {options.out}/benchmark.json, summary.md and figures")


def chosen(options: Measurement) -> list[Contest]:
    """The contests asked for; raises `ConfigError`."""
    flags.counts(options, "batch_size", "repeats")
    found = [c for c in CONTESTS if options.only.lower() in c.name.lower()]
    if not found:
        names = ", ".join(contest.name for contest in CONTESTS)
        raise ConfigError(f"--only {options.only} names none of: {names}.")
    if options.out:
        with writing(f"--out {options.out}"):
            options.out.mkdir(parents=True, exist_ok=True)
    if options.quick:
        return [dataclasses.replace(c, sides=c.sides[:3]) for c in found if c.quick]
    return found


def jobs(
    contests: list[Contest], options: Measurement, unmeasured: dict[str, str]
) -> Iterator[tuple[Part, str, Callable[[], Any]]]:
    """Part, name and function of all there is to measure, in order."""
    for contest in contests if "contests" in options.parts else ():
        yield "contests", contest.name, functools.partial(compete, contest, options, unmeasured)
    size, repeats = options.batch_size, options.repeats
    others: dict[Part, Callable[[], Any]] = {
        "roofline": lambda: roofline.measure(size, repeats),
        "memory": peak_memory.measure,
        "epoch": lambda: epoch.measure(size),
        "scaling": lambda: scaling.measure(size, repeats),
        "per_sample": lambda: per_sample.measure(size, repeats),
        "precision": bfloat16.measure,
    }
    for part, measure in others.items():
        if part in options.parts and not options.quick:
            yield part, part.replace("_", " "), measure


def compete(contest: Contest, options: Measurement, unmeasured: dict[str, str]) -> dict[str, Any]:
    """Times, work, compile times and memory of all sides of a contest."""
    calls, first_seconds = {}, {}
    for side in contest.sides:
        if why := missing(side):
            unmeasured[side] = why
            continue
        call = make_call(contest, side, options.batch_size)
        try:
            first_seconds[side], _ = measuring.timed(call)
        except Exception as error:
            if not side.startswith("compiled"):
                raise
            reason = str(error).strip().splitlines()[0]
            unmeasured[f"{contest.name}, {side}"] = f"torch.compile failed: {reason}"
            continue
        calls[side] = call
    found = measuring.take_turns(calls, options.repeats)
    sides: list[dict[str, Any]] = [{"side": side, **values} for side, values in found.items()]
    rivals = [result for result in sides if not result["side"].startswith("jax")]
    for result in sides:
        if result not in rivals:
            result["ratios"] = [report.ratio(result, rival) for rival in rivals]
        result["cold_seconds"] = first_seconds[result["side"]] - result["seconds"]
        if contest.quick and not options.quick and not result["side"].startswith("compiled"):
            result |= alone(contest, result["side"], options.batch_size)
    return {"name": contest.name, "sides": sides}


def alone(contest: Contest, side: str, batch_size: int) -> dict[str, Any]:
    """Compile times and peak memory of a side in processes of its own."""
    arguments = (make_call, contest, side, batch_size)
    if not side.startswith("jax"):
        found = measuring.alone(*arguments)
        return {"cold_seconds": found["compile_seconds"], "peak_mb": found["peak_mb"]}
    with tempfile.TemporaryDirectory() as cache:
        cold, warm = (
            measuring.alone(*arguments, JAX_COMPILATION_CACHE_DIR=cache) for _ in range(2)
        )
    return {
        "cold_seconds": cold["compile_seconds"],
        "warm_seconds": warm["compile_seconds"],
        "peak_mb": warm["peak_mb"],
    }


def write(record: dict[str, Any], folder: Path | None) -> None:
    """Write JSON, Markdown and figure, each as a whole."""
    if folder is None:
        return
    write_atomic(folder / "benchmark.json", json.dumps(record, indent=1) + "\n")
    write_atomic(folder / "summary.md", page(record))
    if "roofline" in record:
        roofline.plot(record["roofline"], folder / "roofline.png")
    if "contests" in record:
        report.plot_ratios(record, folder / "ratios.png")
    if "memory" in record:
        peak_memory.plot(record["memory"], folder / "memory.png")


def page(record: dict[str, Any]) -> str:
    """All tables in Markdown, and what made them."""
    parts = {
        "roofline": ("Each layer against what the cores give", roofline.markdown),
        "contests": ("JAX against PyTorch", report.markdown),
        "memory": ("Memory against solver steps", peak_memory.markdown),
        "epoch": ("An epoch", epoch.markdown),
        "scaling": ("Several devices", scaling.markdown),
        "per_sample": ("A step size for every image", per_sample.markdown),
        "precision": ("bfloat16", bfloat16.markdown),
    }
    sections = [f"### {title}\n\n{make(record)}" for key, (title, make) in parts.items()
                if key in record]  # fmt: skip
    return "\n".join([*sections, report.made_by(record)]) + "\n"


def show(record: dict[str, Any], console: Console) -> None:
    """Print the tables, and what their marks mean."""
    text = page(record)
    if "contests" in record:
        table = Table(title=f"JAX against PyTorch, float32, batch {record['batch_size']}")
        for heading in report.HEADINGS:
            table.add_column(heading, justify="right" if heading else "left")
        for row, _ in (row for contest in record["contests"] for row in report.cells(contest)):
            table.add_row(*row)
        console.print(table)
        text = text.partition(report.LEGEND)[1] + text.partition(report.LEGEND)[2]
    console.print(text.rstrip(), highlight=False, markup=False)


def versions() -> dict[str, str]:
    """Of the packages that times depend on."""
    torch = {name: importlib.metadata.version(name) for name in ("torch", "torchdiffeq")}
    return device.versions() | torch


def machine() -> str:
    """The processor and its number of cores, in words."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((s.split(":")[1].strip() for s in lines if s.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores"


main = command(
    "benchmark.py", run, interrupted="what was measured is kept in --out", keep_programs=False
)

if __name__ == "__main__":
    sys.exit(main())
