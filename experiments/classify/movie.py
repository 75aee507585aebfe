"""An ODE-Net at work on one image, as a GIF: its state and what it would answer, over t."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from experiments.harness.figures import BLUE, ORANGE, animation

SECONDS = 5


def principal_components(rows: ndarray, count: int) -> tuple[ndarray, ndarray]:
    """Coordinates `[rows, count]` along the directions of largest variance, and its shares."""
    centred = rows - rows.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    total = max(float((sizes**2).sum()), np.finfo(float).tiny)
    return (left * sizes)[:, :count], sizes[:count] ** 2 / total


def as_colours(states: ndarray) -> ndarray:
    """States `[times, height, width, channels]` as colours `[times, height, width, 3]`.

    The three directions in which the channels vary most, over all pixels and times, become red,
    green and blue; so colours can be compared between frames.
    """
    found, _ = principal_components(states.reshape(-1, states.shape[-1]).astype(float), 3)
    low, high = np.percentile(found, [1, 99], axis=0)
    scaled = (found - low) / np.maximum(high - low, np.finfo(float).tiny)
    return np.clip(scaled, 0, 1).reshape(*states.shape[:-1], 3)


def animate(
    path: Path,
    image: ndarray,
    times: ndarray,
    states: ndarray,
    probabilities: ndarray,
    names: Sequence[str],
) -> None:
    """Draw `states` `[times, height, width, channels]` and `probabilities` `[times, 10]`."""
    figure = Figure(figsize=(8.4, 2.9), dpi=80, layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 1.5))
    axes[0].imshow(image, cmap="gray", vmin=0, vmax=255)
    axes[0].set_title("image", fontsize=9)
    colours, chosen = as_colours(states), int(probabilities[-1].argmax())
    shown = axes[1].imshow(colours[0])
    for axis in axes[:2]:
        axis.set_axis_off()
    for k, curve in enumerate(probabilities.T):
        style = {"color": ORANGE, "lw": 2, "zorder": 3} if k == chosen else {"color": BLUE}
        axes[2].plot(times, curve, **({"lw": 1, "alpha": 0.5} | style))
    now = axes[2].axvline(times[0], color="black", lw=0.8)
    axes[2].set(xlim=(times[0], times[-1]), ylim=(0, 1.02), xlabel="t")
    axes[2].set_ylabel("probability if stopped at t", fontsize=9)
    axes[2].set_title(f"{names[chosen]} (orange), the other classes", fontsize=9)
    axes[2].spines[["top", "right"]].set_visible(False)

    def draw(frame: int) -> None:
        shown.set_data(colours[frame])
        axes[1].set_title(f"state at t = {times[frame]:.2f}, by PCA", fontsize=9)
        now.set_xdata([times[frame]] * 2)

    milliseconds = min(1000, round(1000 * SECONDS / len(times)))
    animation(path, figure, draw, len(times), milliseconds=milliseconds)
