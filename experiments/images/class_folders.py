"""Pictures in a folder a class: DIR/cat/1.png, or DIR/train/cat/1.png and DIR/test/cat/2.png."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8
from numpy import ndarray

from experiments.harness.errors import DataError
from experiments.images import image_file
from experiments.images.dataset import Classes
from experiments.images.parts import stratified

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
ORDER_SEED = 1912  # a change is a change of the data sets
TEST_PART = 5  # a fifth tests, where no folder says which do

Split = tuple[UInt8[ndarray, "n height width channels"], Int32[ndarray, " n"]]


def found(folder: Path) -> bool:
    """Whether `folder` holds folders of pictures."""
    return any(_pictures(path) for path in [*folder.glob("*/"), *folder.glob("train/*/")])


def read(folder: Path) -> tuple[dict[str, Split], Classes]:
    """Train and test, each in an order of which every stretch has each class's share; the classes.

    Without folders `train` and `test` every class's fifth part is for testing, always the same.
    Pictures are turned as their EXIF says, what is transparent is white, and all are grey, or RGB
    if one has colours. Raises `DataError`.
    """
    given = (folder / "train").is_dir() and (folder / "test").is_dir()
    roots = [folder / "train", folder / "test"] if given else [folder]
    classes = tuple(sorted(path.name for path in roots[0].glob("*/") if _pictures(path)))
    if not 2 <= len(classes) <= 256:
        raise DataError(f"{roots[0]} has {len(classes)} folder(s) of pictures; 2 to 256 expected.")
    listed = [
        [(path, label) for label, name in enumerate(classes) for path in _pictures(root / name)]
        for root in roots
    ]
    if not listed[-1]:
        raise DataError(f"{roots[-1]} has no pictures of {', '.join(classes)}.")
    pictures = [[image_file.picture(path) for path, _ in files] for files in listed]
    paths = [path for files in listed for path, _ in files]
    everything = [picture for part in pictures for picture in part]
    for path, picture in zip(paths, everything, strict=True):
        if picture.size != everything[0].size:
            sizes = ["x".join(map(str, one.size)) for one in (picture, everything[0])]
            raise DataError(
                f"{path} has {sizes[0]} pixels and {paths[0]} {sizes[1]}; make all pictures of one "
                "size first."
            )
    mode = "L" if all(picture.mode in ("1", "L") for picture in everything) else "RGB"
    parts = []
    for files, found in zip(listed, pictures, strict=True):
        images = np.stack([np.asarray(picture.convert(mode)) for picture in found])
        images = images if images.ndim == 4 else images[..., None]
        labels = np.array([label for _, label in files], np.int32)
        order = stratified(labels, ORDER_SEED)
        parts.append((images[order], labels[order]))
    if not given:
        ((images, labels),) = parts
        count = len(labels) // TEST_PART
        if not count:
            raise DataError(f"{folder} has {len(labels)} pictures; at least {TEST_PART} expected.")
        parts = [(images[count:], labels[count:]), (images[:count], labels[:count])]
    return dict(zip(("train", "test"), parts, strict=True)), classes


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.*") if path.suffix.lower() in SUFFIXES)
