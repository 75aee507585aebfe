"""Figures from a run's metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.classify.trust import LIMIT
from experiments.harness.figures import BLUE, GREEN, ORANGE, bare, save


def plot_curves(rows: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """Draw training loss, test error and NFE against the epoch, from rows of metrics.jsonl.

    `title` may have several lines. NFE is left out where nothing was evaluated (a ResNet), the
    adjoint's reconstruction where there is no adjoint.
    """
    with_nfe = any(row["nfe_forward"] for row in rows)
    with_adjoint = any("reconstruction" in row for row in rows)
    panels = 2 + with_nfe + with_adjoint
    figure = Figure(figsize=(4.2 * panels, 3.9), dpi=120, layout="constrained")
    axes = figure.subplots(1, panels)
    epochs = [row["epoch"] for row in rows]
    _line(axes[0], epochs, [row["train_loss"] for row in rows], "train", BLUE)
    if "validation_loss" in rows[0]:
        _line(axes[0], epochs, [row["validation_loss"] for row in rows], "validation", GREEN)
    _line(axes[0], epochs, [row["test_loss"] for row in rows], "test", ORANGE)
    axes[0].set(title="Loss", ylabel="mean cross-entropy (nats)")
    axes[0].set_ylim(bottom=0)
    axes[0].legend(frameon=False)
    _line(axes[1], epochs, [row["test_error"] for row in rows], "test", ORANGE)
    axes[1].set(title="Test error", ylabel="images classified wrongly (%)")
    axes[1].set_ylim(bottom=0)
    if with_nfe:
        _line(axes[2], epochs, [row["nfe_forward"] for row in rows], "forward", BLUE)
        _line(axes[2], epochs, [row["nfe_backward"] for row in rows], "backward", ORANGE)
        axes[2].set(title="Vector field evaluations (NFE)", ylabel="evaluations per training step")
        axes[2].set_ylim(bottom=0)
        axes[2].legend(frameon=False)
    if with_adjoint:
        found = [row.get("reconstruction") for row in rows]
        _line(axes[3], epochs, found, "median of the steps", BLUE)
        axes[3].axhline(LIMIT, color=ORANGE, linestyle="--", linewidth=1, label="not to be trusted")
        axes[3].set(
            title="Adjoint: y(0) solved for backwards", ylabel="distance from y(0) / size of y(0)"
        )
        axes[3].set_yscale("log")
        axes[3].legend(frameon=False)
    figure.suptitle(title, fontsize=9)
    save(path, figure)


def _line(
    axis: Axes, epochs: list[int], values: list[float | None], label: str, color: str
) -> None:
    known = [
        (epoch, value) for epoch, value in zip(epochs, values, strict=True) if value is not None
    ]
    if known:
        axis.plot(*zip(*known, strict=True), marker="o", markersize=3.5, color=color, label=label)
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    bare(axis)
