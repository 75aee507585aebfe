"""Pictures of learnt vector fields: the phase portrait, predictions in time, and training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from experiments.harness import figures
from experiments.harness.figures import BLUE, GREEN, GREY, ORANGE
from experiments.harness.files import save_arrays
from experiments.series.series import Series
from experiments.trajectories.shooting import Predict, Shooting
from experiments.trajectories.systems import SYSTEMS

COLOURS = {"neural ODE": BLUE, "GRU": ORANGE, "least squares": GREEN}
GRID = 17


def phase(
    path: Path,
    config: Any,
    problem: Shooting,
    series: Sequence[Series],
    tests: Sequence[Any],
    predict: dict[str, Predict],
    slope: Callable[[ndarray], ndarray],
) -> None:
    """Draw the phase portrait (true and learnt field, trajectories) and one prediction in time.

    The portrait has the first two channels; of a single one, its values against time.
    """
    figure = Figure(figsize=(11, 4.4), dpi=80, layout="constrained")
    left, right = figure.subplots(1, 2)
    test = tests[0]
    extent = _extent(series)
    if len(problem.mean) == 2:
        points, arrows = _arrows(problem, slope, extent)
        if config.data.system in SYSTEMS and not problem.log:
            true = _unit(SYSTEMS[config.data.system].field(points), problem)
            _quiver(left, points, true, GREY, "true field")
        _quiver(left, points, arrows, BLUE, "learnt field")
    points = np.concatenate([_plane(s.times, s.values) for s in series], axis=1)
    left.plot(*points, ".", color=ORANGE, ms=2, alpha=0.4, label="observations")
    for truth in test.truth[:3]:
        found = problem.predict(predict["neural ODE"], truth[:1], test.times)[0]
        left.plot(*_plane(test.times, truth), color="black", lw=1)
        left.plot(*_plane(test.times, found), color=BLUE, lw=1.4, ls="--")
    names = series[0].names if len(problem.mean) > 1 else ("time", *series[0].names)
    left.set(xlabel=names[0], ylabel=names[1])
    if len(problem.mean) > 1:
        left.set(xlim=extent[0], ylim=extent[1])
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
    figures.save(path, figure)


def save_frame(
    path: Path,
    problem: Shooting,
    series: Sequence[Series],
    slope: Callable[[ndarray], ndarray],
    method: Predict,
    test: Any,
) -> None:
    """Keep what the animation shows of an epoch."""
    arrows = np.zeros((0, 2))
    if len(problem.mean) == 2:
        arrows = _arrows(problem, slope, _extent(series))[1]
    found = problem.predict(method, test.truth[:3, 0], test.times)
    curves = {
        name: np.stack([_plane(test.times, one) for one in ys])
        for name, ys in (("truth", test.truth[:3]), ("found", found))
    }
    save_arrays(path, arrows=arrows, **curves)


def animate(path: Path, frames: Path, epochs: int, series: Sequence[Series]) -> None:
    """Write the epochs kept by `save_frame` as an animated GIF."""
    figure = Figure(figsize=(4.6, 4.2), dpi=64, layout="constrained")
    axis = figure.subplots()
    extent = _extent(series)

    def draw(frame: int) -> None:
        axis.clear()
        with np.load(frames / f"{frame + 1:04d}.npz") as kept:
            if len(kept["arrows"]):
                _quiver(axis, _points(extent), kept["arrows"], BLUE, "learnt field")
            for truth, found in zip(kept["truth"], kept["found"], strict=True):
                axis.plot(*truth, color="black", lw=1)
                axis.plot(*found, color=ORANGE, lw=1.6, ls="--")
        axis.set(title=f"epoch {frame + 1}", ylim=extent[-1])
        if len(extent) > 1:
            axis.set(xlim=extent[0])

    figures.animation(path, figure, draw, epochs)


def _plane(times: ndarray, ys: ndarray) -> ndarray:
    """What is drawn of a trajectory: its first two channels, or a single one against time."""
    return ys[:, :2].T if ys.shape[1] > 1 else np.stack([times, ys[:, 0]])


def _extent(series: Sequence[Series]) -> list[tuple[float, float]]:
    values = np.concatenate([s.values for s in series])
    low, high = np.nanmin(values, axis=0)[:2], np.nanmax(values, axis=0)[:2]
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _points(extent: list[tuple[float, float]]) -> ndarray:
    mesh = np.meshgrid(*(np.linspace(*side, GRID) for side in extent))
    return np.stack(mesh, -1).reshape(-1, 2)


def _arrows(
    problem: Shooting, slope: Callable, extent: list[tuple[float, float]]
) -> tuple[ndarray, ndarray]:
    points = _points(extent)
    # d(log y)/dt and dy/dt point the same way but for the factor y of each channel.
    factor = points if problem.log else np.ones_like(points)
    found = slope(problem.scale(points)) * problem.deviation * factor
    return points, _unit(found, problem, factor if problem.log else None)


def _unit(slopes: ndarray, problem: Shooting, factor: ndarray | None = None) -> ndarray:
    """Directions as the picture shows them: lengths are not compared."""
    scaled = slopes / (problem.deviation if factor is None else np.ptp(factor, axis=0))
    return scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-9)


def _quiver(axis: Any, points: ndarray, arrows: ndarray, colour: str, label: str) -> None:
    axis.quiver(
        *points.T, *arrows.T, color=colour, alpha=0.6, width=0.003, scale=GRID * 1.6, label=label
    )
