"""Pictures of learnt vector fields: the phase portrait, predictions in time, and training."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy import ndarray

from experiments.plots import BLUE, ORANGE
from experiments.series import Series
from experiments.shooting import Predict, Problem
from experiments.trajectories import SYSTEMS

GREY, GREEN = "#999999", "#3b8a4c"
COLOURS = {"neural ODE": BLUE, "GRU": ORANGE, "least squares": GREEN}
GRID = 17


def phase(
    path: Path,
    config: Any,
    problem: Problem,
    series: Sequence[Series],
    tests: Sequence[Any],
    predict: dict[str, Predict],
    slope: Callable[[ndarray], ndarray],
) -> None:
    """Draw the phase portrait (true and learnt field, trajectories) and one prediction in time."""
    figure = Figure(figsize=(11, 4.4), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    test = tests[0]
    extent = _extent(series)
    if len(problem.mean) == 2:
        points, arrows = _arrows(problem, slope, extent)
        if config.data.system in SYSTEMS and not problem.log:
            true = _unit(SYSTEMS[config.data.system].field(points), problem)
            _quiver(left, points, true, GREY, "true field")
        _quiver(left, points, arrows, BLUE, "learnt field")
    _observations(left, series)
    for truth in test.truth[:3]:
        found = problem.predict(predict["neural ODE"], truth[:1], test.times)[0]
        left.plot(*truth[:, :2].T, color="black", lw=1)
        left.plot(*found[:, :2].T, color=BLUE, lw=1.4, ls="--")
    left.set(xlim=extent[0], ylim=extent[1], xlabel=series[0].names[0], ylabel=series[0].names[1])
    left.set_title("Field and trajectories (true: black, learnt: dashed)", fontsize=9)
    left.legend(frameon=False, fontsize=7, loc="upper right")

    last = tests[1] if len(tests) > 1 else tests[0]
    right.plot(last.times, last.truth[0, :, 0], color="black", lw=1, label="true")
    if len(tests) == 1:
        right.plot(series[0].times, series[0].values[:, 0], "o-", color=GREY, ms=3, lw=0.6)
    for name, method in predict.items():
        found = problem.predict(method, last.truth[:1, 0], last.times)[0]
        right.plot(last.times, found[:, 0], color=COLOURS[name], lw=1.3, ls="--", label=name)
    if np.isfinite(last.since):
        right.axvline(last.since, color=GREY, lw=0.8)
    low, high = np.nanmin(last.truth[0, :, 0]), np.nanmax(last.truth[0, :, 0])
    right.set_ylim(low - 0.3 * (high - low), high + 0.3 * (high - low))
    right.set(xlabel="time", ylabel=series[0].names[0])
    right.set_title("One held-out trajectory; training data end at the line", fontsize=9)
    right.legend(frameon=False, fontsize=7)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png")
    os.replace(temporary, path)


def save_frame(path: Path, problem: Problem, slope: Callable, method: Predict, test: Any) -> None:
    """Keep what the animation shows of an epoch."""
    arrows = np.zeros((0, 2))
    if len(problem.mean) == 2:
        values = problem.unscale(problem.batch["all_values"].reshape(-1, 2))
        arrows = _arrows(problem, slope, _box(values))[1]
    found = problem.predict(method, test.truth[:3, 0], test.times)
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as file:
        np.savez(file, arrows=arrows, found=found, truth=test.truth[:3])
    os.replace(temporary, path)


def animate(
    path: Path, frames: Path, epochs: int, problem: Problem, series: Sequence[Series]
) -> None:
    """Write the epochs kept by `save_frame` as an animated GIF."""
    figure = Figure(figsize=(4.6, 4.2), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    values = problem.unscale(problem.batch["all_values"].reshape(-1, len(problem.mean)))
    extent = _box(values)
    points = _points(extent)

    def draw(epoch: int) -> list:
        axis.clear()
        with np.load(frames / f"{epoch:04d}.npz") as frame:
            if len(frame["arrows"]):
                _quiver(axis, points, frame["arrows"], BLUE, "learnt field")
            for truth, found in zip(frame["truth"], frame["found"], strict=True):
                axis.plot(*truth[:, :2].T, color="black", lw=1)
                axis.plot(*found[:, :2].T, color=ORANGE, lw=1.6, ls="--")
        axis.set(xlim=extent[0], ylim=extent[1], title=f"epoch {epoch}")
        return []

    animation = FuncAnimation(figure, draw, frames=range(1, epochs + 1))
    temporary = path.with_name(f".{path.name}")
    animation.save(temporary, writer=PillowWriter(fps=4))
    os.replace(temporary, path)


def _observations(axis: Any, series: Sequence[Series]) -> None:
    values = np.concatenate([s.values for s in series])
    axis.plot(*values[:, :2].T, ".", color=ORANGE, ms=2, alpha=0.4, label="observations")


def _extent(series: Sequence[Series]) -> list[tuple[float, float]]:
    return _box(np.concatenate([s.values for s in series]))


def _box(values: ndarray) -> list[tuple[float, float]]:
    low, high = np.nanmin(values, axis=0)[:2], np.nanmax(values, axis=0)[:2]
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _points(extent: list[tuple[float, float]]) -> ndarray:
    mesh = np.meshgrid(*(np.linspace(*side, GRID) for side in extent))
    return np.stack(mesh, -1).reshape(-1, 2)


def _arrows(
    problem: Problem, slope: Callable, extent: list[tuple[float, float]]
) -> tuple[ndarray, ndarray]:
    points = _points(extent)
    # d(log y)/dt and dy/dt point the same way but for the factor y of each channel.
    factor = points if problem.log else np.ones_like(points)
    found = slope(problem.scale(points)) * problem.deviation * factor
    return points, _unit(found, problem, factor if problem.log else None)


def _unit(slopes: ndarray, problem: Problem, factor: ndarray | None = None) -> ndarray:
    """Directions as the picture shows them: lengths are not compared."""
    scaled = slopes / (problem.deviation if factor is None else np.ptp(factor, axis=0))
    return scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-9)


def _quiver(axis: Any, points: ndarray, arrows: ndarray, colour: str, label: str) -> None:
    axis.quiver(
        *points.T, *arrows.T, color=colour, alpha=0.6, width=0.003, scale=GRID * 1.6, label=label
    )
