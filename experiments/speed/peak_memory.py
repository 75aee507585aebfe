"""Peak memory of a training step against the number of solver steps, every gradient method.

ODE-Net with Euler's method, whose steps can be chosen exactly. `direct` in JAX keeps room for
`max_steps` states, and here `max_steps` is the number of steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.harness import malloc
from experiments.harness.figures import save
from experiments.harness.markdown import table
from experiments.speed import contests
from experiments.speed import measure as measuring

SIDES = ("jax direct", "jax checkpoint", "jax adjoint", "torch direct", "torch adjoint")
STEPS = (10, 32, 100, 316, 1000)
BATCH = 64  # at 128, torch's direct gradient through 1,000 steps takes more than 10 GB
STATE_MB = 6 * 6 * 64 * BATCH * 4 / 2**20


def measure() -> list[dict[str, Any]]:
    """Rows of side, steps and peak memory in MB, each from a process of its own."""
    return [
        {
            "side": side,
            "steps": steps,
            "peak_mb": measuring.in_process(peak, side, steps, **malloc.GIVEN_BACK),
        }
        for side in SIDES
        for steps in STEPS
    ]


def peak(side: str, steps: int) -> float | None:
    """Megabytes that a training step of so many solver steps takes at its peak."""
    framework, gradient = side.split()
    flags = ["--model", "odenet", "--solver", "euler", "--step-size", repr(1 / steps)]
    flags += ["--adjoint", gradient, "--max-steps", str(steps)]
    learner = contests.make_learner(framework, flags)
    batch = contests.digits(BATCH)

    def call() -> None:
        made = contests.finished(learner, learner.train_step(batch, 0.0))
        assert made["steps"] == steps, made

    call()
    return measuring.peak_memory(call)


def markdown(record: Mapping[str, Any]) -> str:
    """The table for a page."""
    rows = record["memory"]
    headers = ["peak MB at", *(f"{n:,} steps" for n in STEPS), "grows by"]
    body = []
    for side in SIDES:
        peaks = [row["peak_mb"] for row in rows if row["side"] == side]
        cells = ["-" if peak is None else f"{peak:.0f}" for peak in peaks]
        body.append([side, *cells, f"{peaks[-1] / peaks[0]:.2f}x" if peaks[0] else "-"])
    return table(headers, body) + (
        f"\nA training step of ODE-Net by Euler's method, batch {BATCH}, a state being "
        f"{STATE_MB:.2f} MB; beyond what is held between steps, each in a process of its own.\n"
    )


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Peak memory against steps, both logarithmic."""
    figure = Figure(figsize=(6.5, 4.2), dpi=130, layout="constrained")
    axes = figure.subplots()
    for side in SIDES:
        known = [(r["steps"], r["peak_mb"]) for r in rows if r["side"] == side and r["peak_mb"]]
        style = "-o" if side.startswith("jax") else "--s"
        axes.plot(*zip(*known, strict=True), style, label=side, markersize=4)
    states = [steps * STATE_MB for steps in STEPS]
    axes.plot(STEPS, states, ":", color="grey", label="one state a step")
    axes.set(xscale="log", yscale="log", xlabel="solver steps", ylabel="peak memory (MB)")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    save(path, figure)
