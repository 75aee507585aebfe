"""Image files of any size and colour as the 28x28 images that MNIST consists of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image, UnidentifiedImageError

from experiments.harness.errors import DataError

SIDE = 28
INK = 0.25  # of the strongest ink: weaker is paper


def read(path: Path, *, fashion: bool = False) -> tuple[ndarray, str]:
    """A file as `[28, 28, 1]` uint8, light on black, and in words what was done to it.

    An image of 28x28 is taken as it is, unless it must be inverted. Others are treated as MNIST's
    authors did: the ink fitted into 20x20, and its centre of mass put in the centre of 28x28; with
    `fashion`, as Fashion-MNIST's did: the piece fitted into all of 28x28. Raises `DataError`.
    """
    grey = _load(path)
    if grey.ndim != 2 or min(grey.shape) < 2:
        raise DataError(f"{path} has the shape {list(grey.shape)}; one picture expected.")
    done = []
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if np.median(border) > 0.5:
        grey, border = 1 - grey, 1 - border
        done.append("inverted, since its border is light")
    if grey.shape != (SIDE, SIDE):
        ink = np.clip(grey - np.median(border), 0, None)
        if ink.max() < 0.05:
            raise DataError(f"{path} is blank: nothing in it stands out from its border.")
        grey = _fit(ink / ink.max(), SIDE if fashion else 20)
        if not fashion:
            grey = _centre(grey)
        shape = "28x28" if fashion else "20x20, centred by mass"
        done.append(f"cropped, fitted into {shape}")
    pixels = np.round(255 * np.clip(grey, 0, 1)).astype(np.uint8)
    return pixels[:, :, None], "; ".join(done) or "as it is"


def _load(path: Path) -> ndarray:
    """Grey values in [0, 1]."""
    if not path.is_file():
        raise DataError(f"{path} is not there.")
    try:
        if path.suffix == ".npy":
            return _grey(np.load(path, allow_pickle=False))
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # 16 bits
                return np.asarray(image, float) / 65535
            seen = image.convert("RGBA")  # what is transparent is white paper
            opaque = Image.alpha_composite(Image.new("RGBA", image.size, "white"), seen)
            return np.asarray(opaque.convert("L"), float) / 255
    except UnidentifiedImageError:
        raise DataError(
            f"{path} is no image that can be read; PNG, JPEG or npy expected."
        ) from None
    except (OSError, ValueError, EOFError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}.") from None


def _grey(array: ndarray) -> ndarray:
    if array.dtype.kind not in "uif" or not np.isfinite(array).all():
        raise ValueError(f"an array of {array.dtype} with finite numbers only expected")
    if array.ndim == 3 and array.shape[2] in (1, 3):
        array = array.mean(2)
    top = array.max(initial=0)
    if array.min(initial=0) < 0 or top > 255:
        raise ValueError("values from 0 to 1, or from 0 to 255, expected")
    return array / (255 if top > 1 else 1)


def _fit(ink: ndarray, side: int) -> ndarray:
    """What is drawn, with its longer edge scaled to `side`, in the middle of 28x28."""
    drawn = ink > INK
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    crop = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = side / max(crop.shape)
    height, width = (max(1, round(scale * edge)) for edge in crop.shape)
    small = Image.fromarray(crop.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    page = np.zeros((SIDE, SIDE))
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    page[top : top + height, left : left + width] = np.asarray(small)
    return page


def _centre(page: ndarray) -> ndarray:
    """Moved by whole pixels, the centre of mass to pixel 14 as in MNIST, and no ink lost."""
    for axis in (0, 1):
        mass = page.sum(1 - axis)
        shift = round(SIDE / 2 - float(mass @ np.arange(SIDE) / mass.sum()))
        used = np.flatnonzero(mass)
        shift = min(max(shift, -int(used[0])), SIDE - 1 - int(used[-1]))
        page = np.roll(page, shift, axis)
    return page
