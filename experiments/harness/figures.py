"""Figures as small files: few colours, animations without the frames' common parts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

COLOURS = 64


def still(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, replacing the file at `path` as a whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    _image(figure).save(temporary, format="png", optimize=True)
    os.replace(temporary, path)


def animation(path: Path, figure: Figure, draw: Callable[[int], None], frames: int) -> None:
    """Write the figure as `draw(0)`, `draw(1)`, ... leave it as a GIF that rests on its last frame.

    The file at `path` is replaced as a whole.
    """
    images = []
    for frame in range(frames):
        draw(frame)
        images.append(_image(figure))
    temporary = path.with_name(f".{path.name}.tmp")
    images[0].save(
        temporary, format="gif", save_all=True, append_images=images[1:], loop=0,
        duration=[200] * (frames - 1) + [1500],
    )  # fmt: skip
    os.replace(temporary, path)


def _image(figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    return image.quantize(COLOURS, dither=Image.Dither.NONE)
