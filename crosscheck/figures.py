"""The report's figures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crosscheck.breakdown import Breakdown
from crosscheck.gradients import Square
from crosscheck.gradients import Sweep as GradientSweep
from crosscheck.suite import Findings
from crosscheck.training import Divergence
from crosscheck.trajectories import Pair, Sweep

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


def all_figures(findings: Findings) -> list[tuple[str, str, str]]:
    """Title, caption and PNG (base64) of every figure there is material for."""
    found = []
    doubles = [pair for pair in findings.pairs if pair.dtype == "float64" and len(pair.ts) > 2]
    shown = [pair for pair in doubles if pair.solver in ("rk4", "dopri5")]
    if shown:
        found.append(
            (
                "Trajectories, and their difference",
                "Above: three components of the state, JAX as lines, torch as dots. Below: the "
                "largest difference at each time, relative to the largest state.",
                _png(trajectories(shown)),
            )
        )
    squares = [square for square in findings.squares if square.dtype == "float64"]
    if squares:
        found.append(
            (
                "Gradients, method against method",
                "log10 of the relative difference in y0 and all parameters. Dark blocks: the same "
                "discretisation, equal to rounding. What is light between them is the difference "
                "of discretise-then-optimise and optimise-then-discretise.",
                _png(heat_maps(squares)),
            )
        )
    if findings.gradient_sweeps or findings.sweeps:
        found.append(
            (
                "Error against tolerance",
                "Relative errors against a reference, over rtol = atol; the dotted line is the "
                "tolerance itself.",
                _png(tolerances(findings.gradient_sweeps, findings.sweeps)),
            )
        )
    if findings.breakdown is not None:
        found.append(
            (
                "Where the adjoint breaks down",
                "u' = -k (u - cos t), z' = u^2, dopri5 at rtol 1e-6: relative error of dL/dk. The "
                "adjoint reconstructs u backwards in time, where errors grow by exp(k T).",
                _png(breaking(findings.breakdown)),
            )
        )
    if findings.divergences:
        found.append(
            (
                "200 training steps with the same batches",
                "RK-Net, rk4 in 4 steps, in both frameworks from the same weights. Left: the "
                "losses. Right: relative distance of all weights; float64 shows how much of the "
                "distance in float32 is rounding (which training amplifies: a ReLU that rounding "
                "switches changes the gradient by 1e-3).",
                _png(divergence(findings.divergences)),
            )
        )
    return found


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
    columns = min(4, len(squares))
    rows = -(-len(squares) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(squares) :]:
        axis.set_visible(False)
    image = None
    for axis, square in zip(axes.flat, squares, strict=False):
        names, table = square.matrix()
        logs = np.log10(np.maximum(table, 1e-16))
        image = axis.imshow(logs, vmin=-16, vmax=0, cmap="viridis")
        for (i, j), value in np.ndenumerate(logs):
            if i != j:
                colour = "white" if value < -6 else "black"
                axis.text(j, i, f"{value:.0f}", ha="center", va="center", size=7, color=colour)
        axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.set_title(square.label.removesuffix(", float64"), fontsize=9)
    if image is not None:
        figure.colorbar(image, ax=axes, shrink=0.6, label="log10 of the relative difference")
    return figure


def tolerances(gradient: list[GradientSweep], states: list[Sweep]) -> Figure:
    """A panel for each sweep: gradients first."""
    panels: list[tuple[str, tuple[float, ...], Mapping[str, np.ndarray]]] = [
        (f"gradient: {s.problem.name}, {s.solver}", s.tolerances, s.errors) for s in gradient
    ]
    panels += [(f"state: {s.problem.name}, {s.solver}", s.tolerances, s.errors) for s in states]
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.4 * columns + 1, 3.0 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (title, rtols, errors) in zip(axes.flat, panels, strict=False):
        _errors(axis, np.array(rtols), errors)
        axis.loglog(rtols, rtols, ":", color="0.5")
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("rtol")
        axis.invert_xaxis()
    axes[0, 0].set_ylabel("relative error")
    axes[0, 0].legend(fontsize=7)
    if gradient and states and len(gradient) < len(panels):
        axes.flat[len(gradient)].legend(fontsize=7)
    return figure


def breaking(found: Breakdown) -> Figure:
    """Gradient error over the rate of dissipation."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    _errors(axis, np.array(found.rates), found.errors)
    axis.semilogy(found.rates, found.predicted, ":", color="0.4", label="rtol exp(k T)")
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


def _errors(axis: Axes, over: np.ndarray, errors: Mapping[str, np.ndarray]) -> None:
    for name, values in errors.items():
        style = STYLES[name.split()[0]]
        finite = np.where(np.isfinite(values), np.maximum(values, SMALLEST), np.nan)
        axis.loglog(over, finite, color=COLOURS[name], label=name, marker=".", **style)


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()
