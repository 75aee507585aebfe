"""JAX against PyTorch on the same work: `python experiments/benchmark.py --help`.

Both sides have the same weights, images, tolerances and solver, and take turns within one process,
so that the machine's moods strike both. A time is the median over `--repeats` calls, after a first
call which is the compile time. Memory is the peak resident set of a process of its own that makes
two calls, less what it held before the first (which includes compilation).
"""

import dataclasses
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tyro.conf import arg

import jax_node.train as jax_train
import torch_node.train as torch_train
from crosscheck import weights
from experiments import data, memory, results
from experiments.resolve import learner_options
from jax_node import models, solve

# name: (model, solver, step size, JAX gradient, torch gradient; None to only predict)
CASES: dict[str, tuple[str, str | None, float | None, str | None, str | None]] = {
    "ResNet-6, training step": ("resnet6", None, None, "-", "-"),
    "ResNet-1, training step": ("resnet1", None, None, "-", "-"),
    "RK-Net, training step": ("rknet", "rk4", 0.25, "direct", "direct"),
    "ODE-Net, training step, direct": ("odenet", "dopri5", None, "direct", "direct"),
    "ODE-Net, training step, checkpoint": ("odenet", "dopri5", None, "checkpoint", "direct"),
    "ODE-Net, training step, adjoint": ("odenet", "dopri5", None, "adjoint", "adjoint"),
    "ResNet-6, inference": ("resnet6", None, None, None, None),
    "ODE-Net, inference": ("odenet", "dopri5", None, None, None),
}
QUICK = ("ResNet-6, training step", "ODE-Net, training step, direct")


@dataclasses.dataclass(frozen=True)
class Flags:
    """Times JAX against PyTorch on the same work, in one run."""

    batch_size: Annotated[int, arg(metavar="N")] = 128
    """Images per step."""
    repeats: Annotated[int, arg(metavar="N")] = 9
    """Timed calls of each side, in turns."""
    quick: bool = False
    """Only a training step of ResNet-6 and of ODE-Net."""
    memory: bool = True
    """Measure peak memory too, in processes of their own."""
    out: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Where benchmark.json and benchmark.png go (default: nowhere)."""


def main() -> int:
    """Run the command line."""
    flags = tyro.cli(Flags, description=__doc__)
    if flags.batch_size < 1 or flags.repeats < 1:
        print("benchmark.py: --batch-size and --repeats must be at least 1", file=sys.stderr)
        return 2
    memory.keep_freed_memory()  # for both sides, as the experiments do
    console = Console()
    names = QUICK if flags.quick else tuple(CASES)
    rows = [
        measure(name, flags) for name in track(names, "measuring", console=console, transient=True)
    ]
    console.print(table(rows, flags))
    if flags.out:
        flags.out.mkdir(parents=True, exist_ok=True)
        record = {**results.environment({}), "batch_size": flags.batch_size, "cases": rows}
        results.write_atomic(flags.out / "benchmark.json", json.dumps(record, indent=1))
        plot(rows, flags.out / "benchmark.png")
        console.print(f"written: {flags.out}/benchmark.json and benchmark.png")
    return 0


def calls(name: str, side: str, batch_size: int) -> Callable[[], dict[str, float]]:
    """A function that does the work of a case once and returns its NFE."""
    model, solver, step_size, jax_gradient, torch_gradient = CASES[name]
    gradient = jax_gradient if side == "jax" else torch_gradient
    learner = make_learner(side, model, solver, gradient or "direct", step_size)
    dataset = data.load("mnist", "embedded")
    images, labels = dataset.train_images[:batch_size], dataset.train_labels[:batch_size]
    if gradient is None:
        return lambda: learner.evaluate(images, labels)
    # A learning rate of zero leaves the weights, and with them the NFE, as they are.
    return lambda: learner.train_step(images, labels, 0.0)


def make_learner(
    side: str, model: str, solver: str | None, gradient: str, step_size: float | None
) -> Any:
    """A learner whose weights are those that JAX draws from seed 0, on either side."""
    chosen = ["--framework", side, "--model", model, "--max-steps", "64"]
    if solver:
        chosen += ["--solver", solver, "--adjoint", gradient]
    if step_size:
        chosen += ["--step-size", str(step_size)]
    options = learner_options(chosen)
    if side == "jax":
        return jax_train.Learner(**options)
    drawn = models.build(model, solver=solve.solve, seed=0)
    twin = torch_train.Learner(**options)
    weights.into_torch(twin.model, weights.to_torch(weights.of_jax(drawn)))
    return twin


def measure(name: str, flags: Flags) -> dict[str, Any]:
    """Times, NFE and memory of both sides of a case."""
    sides = {side: calls(name, side, flags.batch_size) for side in ("jax", "torch")}
    first, nfe = {}, {}
    times: dict[str, list[float]] = {side: [] for side in sides}
    for side, call in sides.items():
        first[side], nfe[side] = timed(call)
    for _ in range(flags.repeats):
        for side, call in sides.items():
            times[side].append(timed(call)[0])
    row: dict[str, Any] = {"case": name}
    for side in sides:
        median = float(np.median(times[side]))
        row[side] = {
            "seconds": median,
            "fastest": min(times[side]),
            "slowest": max(times[side]),
            "compile_seconds": first[side] - median,
            "nfe_forward": nfe[side]["nfe_forward"],
            "nfe_backward": nfe[side].get("nfe_backward"),
            "peak_mb": spawn_peak(name, side, flags.batch_size) if flags.memory else None,
        }
    pairs = [a / b for a, b in zip(times["jax"], times["torch"], strict=True)]
    row["ratio"] = float(np.median(pairs))
    return row


def timed(call: Callable[[], dict[str, float]]) -> tuple[float, dict[str, float]]:
    """Seconds of a call, and what it returned."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def peak_memory(name: str, side: str, batch_size: int) -> float:
    """Megabytes by which two calls raise this process's peak resident set."""
    memory.keep_freed_memory()
    call = calls(name, side, batch_size)
    before = resident()
    call()
    call()
    return resident() - before


def resident() -> float:
    """Peak resident set of this process so far, in megabytes."""
    status = Path("/proc/self/status")
    if status.exists():  # not getrusage: a spawned process inherits its parent's peak there
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def spawn_peak(name: str, side: str, batch_size: int) -> float:
    """`peak_memory` in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(peak_memory, name, side, batch_size).result()


def table(rows: list[dict[str, Any]], flags: Flags) -> Table:
    """The measurements for a terminal."""
    out = Table(title=f"JAX against PyTorch, float32, batch {flags.batch_size}")
    for heading in ("", "JAX ms", "torch ms", "JAX / torch", "compile s", "NFE fwd/bwd", "peak MB"):
        out.add_column(heading, justify="right" if heading else "left")
    for row in rows:
        jax, torch = row["jax"], row["torch"]
        nfe = ", ".join(f"{side['nfe_forward']:g}/{side['nfe_backward']:g}"
                        if side["nfe_backward"] is not None else f"{side['nfe_forward']:g}"
                        for side in (jax, torch))  # fmt: skip
        peaks = ", ".join(
            "-" if s["peak_mb"] is None else f"{s['peak_mb']:.0f}" for s in (jax, torch)
        )
        out.add_row(
            row["case"], spread(jax), spread(torch), f"{row['ratio']:.2f}",
            f"{jax['compile_seconds']:.1f}", nfe, peaks,
        )  # fmt: skip
    return out


def spread(side: dict[str, float]) -> str:
    """Median and range in milliseconds."""
    median, fastest, slowest = (1e3 * side[key] for key in ("seconds", "fastest", "slowest"))
    return f"{median:.0f} ({fastest:.0f}-{slowest:.0f})"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Bars: how long JAX takes where PyTorch takes one."""
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(rows) + 1.2), layout="constrained")
    names, ratios = [row["case"] for row in rows], [row["ratio"] for row in rows]
    bars = axes.barh(names, ratios, color=["tab:blue" if r <= 1 else "tab:red" for r in ratios])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.axvline(1, color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set(
        xlabel="time of JAX / time of PyTorch (median of pairs)", xlim=(0, 1.15 * max(*ratios, 1))
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
