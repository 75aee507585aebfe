"""Pictures of flows in two dimensions: densities beside each other, and samples on their way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from experiments.harness import figures
from experiments.harness.figures import BLUE

VISIBLE = 4.0


def grid(box: float, count: int) -> tuple[ndarray, float]:
    """Centres of `count` by `count` cells of [-box, box]^2 as `[cells, 2]`, and a cell's area."""
    side = (np.arange(count) + 0.5) * 2 * box / count - box
    points = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    return points, (2 * box / count) ** 2


def densities(path: Path, fields: Mapping[str, ndarray], box: float, count: int) -> None:
    """Draw densities given as logarithms on `grid(box, count)`, all on one colour scale."""
    figure = Figure(figsize=(3.2 * len(fields), 3.5), dpi=70, layout="constrained")
    top = float(np.exp(fields["true density"]).max())
    for axis, (name, logp) in zip(figure.subplots(1, len(fields)), fields.items(), strict=True):
        axis.imshow(
            np.exp(logp).reshape(count, count), origin="lower", extent=(-box, box) * 2, vmin=0,
            vmax=top, cmap="viridis",
        )  # fmt: skip
        axis.set(title=name, xlim=(-VISIBLE, VISIBLE), ylim=(-VISIBLE, VISIBLE))
        axis.set_axis_off()
    figures.save(path, figure)


def flow(path: Path, paths: Mapping[str, ndarray], ts: ndarray) -> None:
    """Animate samples `[times, samples, 2]` of each flow from noise to data."""
    figure = Figure(figsize=(3.4 * len(paths), 3.6), dpi=60, layout="constrained")
    axes = figure.subplots(1, len(paths))

    def draw(frame: int) -> None:
        for axis, (name, points) in zip(axes, paths.items(), strict=True):
            axis.clear()
            axis.plot(*points[frame].T, ".", ms=2, color=BLUE, alpha=0.6)
            axis.set(xlim=(-VISIBLE, VISIBLE), ylim=(-VISIBLE, VISIBLE))
            axis.set_title(f"{name}, t = {ts[frame]:.2f}", fontsize=9)
            axis.set_axis_off()

    figures.animation(path, figure, draw, len(ts))
