"""The report's figures."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crosscheck.breakdown import Breakdown
from crosscheck.check import Check, margin
from crosscheck.gradients import Square
from crosscheck.suite import Findings
from crosscheck.sweeps import Sweep
from crosscheck.training import Divergence
from crosscheck.trajectories import Pair

JAX, TORCH = "#1f6fb4", "#d9541e"
COLOURS = {
    "jax": JAX,
    "torch": TORCH,
    "jax direct": JAX,
    "jax checkpoint": "#6db3e8",
    "jax adjoint": "#123f66",
    "torch direct": TORCH,
    "torch adjoint": "#7d2a08",
    "torch handwritten": "#f0a48a",
}
# Lines that lie on top of each other stay visible: those of JAX are wide, those of torch dashed.
STYLES: dict[str, dict[str, Any]] = {
    "jax": {"lw": 3.5, "alpha": 0.6},
    "torch": {"lw": 1.4, "ls": "--"},
}
SMALLEST = 1e-17
PASS, FAIL = "#1a7f37", "#cc2222"
HEAT_MAPS = ("euler", "rk4", "implicit_adams", "dopri5")


@dataclass(frozen=True)
class Plate:
    """A figure of the report as a PNG."""

    name: str
    title: str
    caption: str
    png: bytes


def pictures(findings: Findings) -> list[Plate]:
    """Every figure there is material for."""
    found = []

    def add(name: str, title: str, caption: str, figure: Figure) -> None:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        found.append(Plate(name, title, caption, buffer.getvalue()))

    if findings.checks:
        add(
            "agreement",
            "Pass or fail, pair by pair",
            "Each dot is a check of the two sides at its left: what was measured over its bound. "
            "Beyond the line it fails, and is red. Exact equality is drawn at the left edge.",
            agreement(findings.checks),
        )
    doubles = [pair for pair in findings.pairs if pair.dtype == "float64" and len(pair.ts) > 2]
    shown = [pair for pair in doubles if pair.solver in ("rk4", "dopri5")]
    if shown:
        add(
            "trajectories",
            "Trajectories, and their difference",
            "Above: three components of the state, JAX as lines, torch as dots. Below: the "
            "largest difference at each time, relative to the largest state; none is drawn as "
            "1e-17.",
            trajectories(shown),
        )
    squares = [s for s in findings.squares if s.dtype == "float64" and s.solver in HEAT_MAPS]
    if squares:
        add(
            "gradients",
            "Gradients, method against method",
            "log10 of the relative difference in y0 and all parameters. Dark blocks: the same "
            "discretisation, equal to rounding. What is light between them is the difference "
            "of discretise-then-optimise (direct, checkpoint) and optimise-then-discretise "
            "(adjoint), which shrinks with the step or the tolerance. Other solvers are in "
            "report.json.",
            heat_maps(squares),
        )
    for what in ("gradient", "state"):
        chosen = [sweep for sweep in findings.sweeps if sweep.what == what]
        if chosen:
            add(
                f"{what}-tolerance",
                f"Error of the {what} against tolerance",
                "Relative errors against a reference, over rtol = atol; the dotted line is the "
                "tolerance itself, and a method whose error is in proportion to it has slope 1.",
                tolerances(chosen),
            )
    if findings.breakdown is not None:
        add(
            "breakdown",
            "Where the adjoint breaks down",
            "u' = -k (u - cos t), z' = u^2 in [0, T = 1], dopri5 at rtol 1e-6: relative error of "
            "dL/dk. The adjoint reconstructs u backwards in time, where errors grow by exp(k T): "
            "from k T = 14 on nothing of the gradient is right. A cross at the top is a solve that "
            "gave up.",
            breaking(findings.breakdown),
        )
    if findings.divergences:
        add(
            "training",
            "200 training steps with the same batches",
            "RK-Net, rk4 in 4 steps, in both frameworks from the same weights. Left: the "
            "losses. Right: relative distance of all weights; float64 shows how much of the "
            "distance in float32 is rounding, which training amplifies: a ReLU that rounding "
            "switches changes the gradient by 1e-3.",
            divergence(findings.divergences),
        )
    return found


def agreement(checks: list[Check]) -> Figure:
    """A row for each pair of sides, a dot for each check: value over bound."""
    grouped: dict[tuple[str, str, str], list[float]] = {}
    for check in sorted(checks, key=lambda check: check.group):
        margins = grouped.setdefault((check.group, check.left, check.right), [])
        margins.append(min(max(margin(check), 1e-8), 1e4))
    figure = Figure(figsize=(9, 0.6 + 0.21 * len(grouped)), layout="constrained")
    axis = figure.subplots()
    for row, margins in enumerate(grouped.values()):
        axis.axhline(row, color="0.93", lw=0.8, zorder=0)
        colours = [FAIL if value > 1 else PASS for value in margins]
        axis.scatter(margins, [row] * len(margins), c=colours, s=14, alpha=0.6)
    axis.axvline(1, color="0.2", lw=1)
    axis.set_xscale("log")
    axis.set_xlim(0.6e-8, 2e4)
    axis.set_ylim(len(grouped) - 0.5, -0.5)
    labels = [f"{group}:  {left} – {right}" for group, left, right in grouped]
    axis.set_yticks(range(len(grouped)), labels, fontsize=7)
    axis.set_xlabel(
        "measured / bound (for a slope or order that must be reached: bound / measured)"
    )
    return figure


def trajectories(pairs: list[Pair]) -> Figure:
    """A column for each pair: states above, differences below."""
    columns = min(4, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(3.4 * columns, 4.4 * rows), layout="constrained")
    axes = figure.subplots(2 * rows, columns, squeeze=False, sharex=True)
    for axis in axes.flat[len(pairs) * 2 :]:
        axis.set_visible(False)
    for i, pair in enumerate(pairs):
        above, below = axes[2 * (i // columns) : 2 * (i // columns) + 2, i % columns]
        left, right = (run.ys.reshape(len(pair.ts), -1) for run in (pair.jax, pair.torch))
        for component in np.linspace(0, left.shape[1] - 1, min(3, left.shape[1])).astype(int):
            above.plot(pair.ts, left[:, component], color=JAX)
            above.plot(pair.ts, right[:, component], "o", color=TORCH, ms=3)
        above.set_title(f"{pair.problem.name}, {pair.solver}", fontsize=10)
        error = np.abs(left - right).max(1) / np.abs(left).max()
        below.semilogy(pair.ts, np.maximum(error, SMALLEST), ".-", color="0.3")
        below.set_ylim(SMALLEST, 1e-8)
        below.set_xlabel("t")
    for row in range(rows):
        axes[2 * row, 0].set_ylabel("state")
        axes[2 * row + 1, 0].set_ylabel("difference")
    return figure


def heat_maps(squares: list[Square]) -> Figure:
    """The matrix of every square."""
    figure, axes = _panels(len(squares), lambda columns, rows: (3.6 * columns, 3.5 * rows))
    image = None
    for axis, square in zip(axes.flat, squares, strict=False):
        names, table = square.matrix()
        logs = np.log10(np.maximum(table, 1e-16))
        image = axis.imshow(logs, vmin=-16, vmax=0, cmap="viridis")
        for (i, j), value in np.ndenumerate(logs):
            if i != j:
                colour = "white" if value < -6 else "black"
                axis.text(j, i, f"{round(value)}", ha="center", va="center", size=7, color=colour)
        axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.set_title(square.label.removesuffix(", float64"), fontsize=9)
    if image is not None:
        figure.colorbar(image, ax=axes, shrink=0.6, label="log10 of the relative difference")
    return figure


def tolerances(sweeps: list[Sweep]) -> Figure:
    """A panel for each sweep."""
    size = lambda columns, rows: (3.5 * columns + 1, 3.2 * rows + 0.4)
    figure, axes = _panels(len(sweeps), size)
    for axis, sweep in zip(axes.flat, sweeps, strict=False):
        labels = {name: f"{name}, slope {sweep.slope(name):.2f}" for name in sweep.errors}
        _errors(axis, np.array(sweep.tolerances), sweep.errors, labels)
        axis.loglog(sweep.tolerances, sweep.tolerances, ":", color="0.5")
        axis.set_title(f"{sweep.problem.name}, {sweep.solver}", fontsize=9)
        axis.set_xlabel("rtol")
        axis.invert_xaxis()
        axis.legend(fontsize=6)
    for axis in axes[:, 0]:
        axis.set_ylabel("relative error")
    return figure


def breaking(found: Breakdown) -> Figure:
    """Gradient error over the rate of dissipation."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    rates = np.array(found.rates)
    _errors(axis, rates, found.errors, {name: name for name in found.errors})
    axis.semilogy(rates, found.predicted, ":", color="0.4", label="rtol exp(k T)")
    top = max(float(np.nanmax(e[np.isfinite(e)], initial=1)) for e in found.errors.values())
    for name, errors in found.errors.items():
        lost = rates[np.isinf(errors)]
        axis.plot(lost, np.full(len(lost), 10 * top), "x", color=COLOURS[name])
    axis.axhline(1, color="0.8", lw=1)
    axis.set_xscale("linear")
    axis.set_xlabel("k T")
    axis.set_ylabel("relative error of dL/dk")
    axis.legend(fontsize=8)
    return figure


def divergence(runs: list[Divergence]) -> Figure:
    """Losses, and distance of the weights, step by step."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for run, colour in zip(runs, ("#d9541e", "#1f6fb4"), strict=False):
        steps = np.arange(1, len(run.distance) + 1)
        if run.precision == "float32":
            for name, losses in run.losses.items():
                left.plot(steps, losses, color=COLOURS[name], label=name, **STYLES[name])
        right.semilogy(steps, np.maximum(run.distance, SMALLEST), color=colour, label=run.precision)
    left.set_xlabel("step")
    left.set_ylabel("training loss, float32")
    left.legend(fontsize=8)
    right.set_xlabel("step")
    right.set_ylabel("relative distance of the weights")
    right.legend(fontsize=8)
    return figure


def _panels(
    count: int, size: Callable[[int, int], tuple[float, float]]
) -> tuple[Figure, np.ndarray]:
    """A figure of `size(columns, rows)` with at least `count` axes, those beyond it hidden."""
    columns = min(4, count)
    rows = -(-count // columns)
    figure = Figure(figsize=size(columns, rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, axes


def _errors(
    axis: Axes, over: np.ndarray, errors: Mapping[str, np.ndarray], labels: Mapping[str, str]
) -> None:
    for name, values in errors.items():
        style = STYLES[name.split()[0]]
        finite = np.where(np.isfinite(values), np.maximum(values, SMALLEST), np.nan)
        axis.loglog(over, finite, color=COLOURS[name], label=labels[name], marker=".", **style)
