"""Image files of any size and colour as the 28x28 images that MNIST consists of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy import ndarray
from PIL import Image, ImageOps, UnidentifiedImageError

from experiments.harness.errors import DataError

T = TypeVar("T")
SIDE = 28
INK = 0.25  # of the strongest ink: weaker is paper
ORIENTATION = 0x0112  # EXIF: 1 is upright
# Masks, 8 bits (in whatever format), scanners' 12 and 16 bits.
TOPS = {"f": (1, 255), "i": (1, 255, 4095, 65535), "u": (1, 255, 4095, 65535)}


def read(path: Path, *, fashion: bool = False) -> tuple[ndarray, str]:
    """A file as `[28, 28, 1]` uint8, light on black, and in words what was done to it.

    An image of 28x28 is taken as it is, unless it must be inverted. Others are treated as MNIST's
    authors did: the ink fitted into 20x20, and its centre of mass put in the centre of 28x28; with
    `fashion`, as Fashion-MNIST's did: the piece fitted into all of 28x28. Raises `DataError`.
    """
    grey, done = _decoded(path, _values)
    if grey.ndim != 2 or min(grey.shape) < 2:
        raise DataError(f"{path} has the shape {list(grey.shape)}; one picture expected.")
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if np.median(border) > 0.5:
        grey, border = 1 - grey, 1 - border
        done.append("inverted, since its border is light")
    ink, fits = np.clip(grey - np.median(border), 0, None), grey.shape == (SIDE, SIDE)
    if (np.ptp(grey) if fits else ink.max()) < 0.05:
        raise DataError(f"{path} is blank: nothing in it stands out from its border.")
    if not fits:
        grey = _fit(ink / ink.max(), SIDE if fashion else 20)
        if not fashion:
            grey = _centre(grey)
        shape = "28x28" if fashion else "20x20, centred by mass"
        done.append(f"cropped, fitted into {shape}")
    pixels = np.round(255 * np.clip(grey, 0, 1)).astype(np.uint8)
    return pixels[:, :, None], "; ".join(done) or "as it is"


def resized(path: Path, shape: tuple[int, int, int]) -> tuple[ndarray, str]:
    """A file as uint8 of `shape`, grey or RGB, and in words what was done to it."""
    height, width, channels = shape
    if channels not in (1, 3):
        raise DataError(f"{path}: a run on images of {channels} channels takes test images only.")
    picture, done = _decoded(path, _on_paper)
    picture = picture.convert("L" if channels == 1 else "RGB")
    if picture.size != (width, height):
        done.append(f"resized from {picture.width}x{picture.height}")
    pixels = np.asarray(picture.resize((width, height))).reshape(shape)
    return pixels, "; ".join(done) or "as it is"


def picture(path: Path) -> Image.Image:
    """A file as a grey (modes 1, L) or RGB image, upright; what is transparent is white paper.

    Raises `DataError`, also for more than 8 bits a value: which of them is white, no one file says.
    """
    found, _ = _decoded(path, lambda image: None if image.mode[0] in "IF" else _on_paper(image))
    if found is None:
        raise DataError(f"{path} has more than 8 bits a value; convert it first.")
    return found


def _decoded(path: Path, use: Callable[[Any], T]) -> tuple[T, list[str]]:
    """`use` of a file's array, or of its image, upright; and in words what was done to it."""
    if not path.is_file():
        raise DataError(f"{path} is not there.")
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                return use(np.lib.format.read_array(file, allow_pickle=False)), []
        with Image.open(path) as image:
            frames, turned = getattr(image, "n_frames", 1), image.getexif().get(ORIENTATION, 1)
            done = [f"the first of {frames} frames"] if frames > 1 else []
            done += ["turned as its EXIF says"] if turned in range(2, 9) else []
            return use(ImageOps.exif_transpose(image)), done
    except UnidentifiedImageError:
        raise DataError(
            f"{path} is no image that can be read; PNG, JPEG or npy expected."
        ) from None
    except Exception as error:  # a damaged file makes decoders raise whatever there is
        raise DataError(f"{path} cannot be read as an image: {error}.") from None


def _values(image: Image.Image | ndarray) -> ndarray:
    """Grey values in [0, 1]; what is transparent is white paper."""
    if isinstance(image, ndarray):
        return _grey(image)
    if image.mode[0] in "IF":  # more than 8 bits: Pillow would cut them off
        numbers = np.asarray(image)
        clear = numbers == image.info.get("transparency", -1)
        return np.where(clear, 1, _grey(numbers))
    return np.asarray(_on_paper(image).convert("L"), float) / 255


def _on_paper(image: Image.Image) -> Image.Image:
    """The image with 8 bits a value, grey or RGB; what is transparent is white paper."""
    if image.mode[0] in "IF":
        return Image.fromarray(np.round(255 * _values(image)).astype(np.uint8))
    if image.mode in ("1", "L", "RGB") and "transparency" not in image.info:
        return image
    grey = image.mode in ("1", "L", "LA")
    page = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(page, image.convert("RGBA")).convert("L" if grey else "RGB")


def _grey(array: ndarray) -> ndarray:
    """Numbers as grey values: the least of `TOPS` that none exceeds is white."""
    kind = array.dtype.kind
    if kind not in TOPS or not np.isfinite(array).all():
        raise ValueError(f"an array of {array.dtype} with finite numbers only expected")
    if array.ndim == 3 and array.shape[2] in (1, 3):
        array = array.mean(2)
    tops = [top for top in TOPS[kind] if array.max(initial=0) <= top]
    if array.min(initial=0) < 0 or not tops:
        expected = " or ".join(f"0 to {top}" for top in TOPS[kind])
        raise ValueError(f"values from {expected} expected")
    return array / tops[0]


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
