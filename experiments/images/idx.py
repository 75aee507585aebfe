"""Reader of the IDX format, in which MNIST and Fashion-MNIST are published.

An IDX file is two zero bytes, a type code, the number of dimensions, each dimension as a
big-endian uint32, and then the values in C order. The image files here hold uint8 (code 8).
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8
from numpy import ndarray

from experiments.harness.errors import DataError

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
UINT8 = 8


def read_split(
    images: Path, labels: Path
) -> tuple[UInt8[ndarray, "n height width 1"], Int32[ndarray, " n"]]:
    """Read one image file and its label file, gzipped or not.

    Returns images uint8 [n, height, width, 1] and labels int32 [n], in the order of the files.
    Raises `DataError` for a file that is missing or cut short, or for labels that do not fit the
    images.
    """
    pixels = read_idx(images, dimensions=3)
    classes = read_idx(labels, dimensions=1)
    if len(pixels) != len(classes):
        raise DataError(
            f"{images} holds {len(pixels):,} images and {labels} holds {len(classes):,} labels; "
            "the two must belong together."
        )
    if len(pixels) == 0:
        raise DataError(f"{images} holds no images.")
    return pixels[..., None], classes.astype(np.int32)


def read_idx(path: Path, dimensions: int) -> ndarray:
    """Read a uint8 IDX file of the given number of dimensions; gzip is recognised by content."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; IDX files were expected there.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise DataError(
                f"{path} is a damaged or truncated gzip file; fetch it again."
            ) from None
    header = 4 + 4 * dimensions
    magic = bytes([0, 0, UINT8, dimensions])
    if data[:4] != magic:
        raise DataError(
            f"{path} is not an IDX file of {dimensions} dimension(s): it starts with "
            f"{data[:4].hex() or 'nothing'}, {magic.hex()} was expected."
        )
    if len(data) < header:
        raise DataError(f"{path} is truncated: it ends within its header; fetch it again.")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", dimensions, offset=4))
    expected = header + int(np.prod(shape, dtype=object))
    if len(data) != expected:
        state = "truncated" if len(data) < expected else "too long"
        raise DataError(
            f"{path} is {state}: {len(data):,} bytes, its header asks for {expected:,}; "
            "fetch it again."
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def locate(folder: Path, name: str) -> Path:
    """Path of the IDX file `name` in `folder`, plain or with `.gz`; `DataError` if neither."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(
        f"{folder} has neither {name} nor {name}.gz; --data-dir must hold IDX files, or a folder "
        "of pictures for each class."
    )
