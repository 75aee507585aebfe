"""Figures as small files: few colours, animations without the frames' common parts."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator
from PIL import Image

from experiments.harness.files import write_atomic

BLUE, ORANGE, GREEN, PURPLE = "#1f5f99", "#d9772b", "#3b8a4c", "#7b5ea7"
LIGHT_BLUE, LIGHT_ORANGE, LIGHT_GREEN = "#5aa9e6", "#f3b78b", "#8cc5a0"
YELLOW, RED, GREY = "#c9a227", "#b23a48", "#999999"
COLOURS = 128


def save(path: Path, figure: Figure) -> None:
    """Write a figure as PNG; the same figure gives the same file."""
    _write(path, _image(figure), format="png", optimize=True)


def animation(
    path: Path, figure: Figure, draw: Callable[[int], None], frames: int, *, milliseconds: int = 200
) -> None:
    """Write the figure as `draw(0)`, `draw(1)`, ... leave it as a GIF that rests on its last."""
    images = []
    for frame in range(frames):
        draw(frame)
        images.append(_image(figure))
    _write(
        path, images[0], format="gif", save_all=True, append_images=images[1:], loop=0,
        duration=[milliseconds] * (frames - 1) + [1500],
    )  # fmt: skip


def bare(axis: Axes) -> None:
    """Leave the frame's two sides without numbers out, and draw a faint grid."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.6)


def plain_log(axis: Axis, digits: tuple[int, ...] = (1, 2, 5)) -> None:
    """Few and plain numbers on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=digits))
    axis.set_major_formatter(lambda x, _: f"{x / 1000:g}k" if x >= 1000 else f"{x:g}")
    axis.set_minor_locator(NullLocator())


def intervals(axis: Axes, rows: Sequence[tuple[str, float, float, float, str]]) -> None:
    """A row for each label, low end, middle, high end and colour, the first lowest."""
    for at, (_, low, middle, high, colour) in enumerate(rows):
        axis.plot([low, high], [at, at], color=colour, lw=2)
        axis.plot([middle], [at], "o", color=colour)
    axis.set_yticks(range(len(rows)), [label for label, *_ in rows])


def dotted(colours: Mapping[str, str]) -> list[Line2D]:
    """A legend's keys for dots on lines: the colour of each label."""
    return [Line2D([], [], color=c, marker="o", label=label) for label, c in colours.items()]


def _image(figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    return image.quantize(COLOURS, dither=Image.Dither.NONE)


def _write(path: Path, image: Image.Image, **options: Any) -> None:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    write_atomic(path, buffer.getvalue())
