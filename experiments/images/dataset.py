"""A data set in memory, and its batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

Source = Literal["tfds", "idx", "embedded"]
Batch = tuple[UInt8[ndarray, "batch height width channels"], Int[ndarray, " batch"]]
Classes = tuple[str, ...]
TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
CLASSES: dict[str, Classes] = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
        "Ankle boot",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    """A data set in memory, and where it came from.

    `checksum` is the SHA-256 of the complete set (before limits, folds and validation): train
    images, train labels, test images, test labels, a byte per value, in order. `test_rows` are the
    places of the test images in that order. `classes` are their names. `note` is what the user
    should be told.
    """

    train_images: UInt8[ndarray, "train height width channels"]
    train_labels: Int[ndarray, " train"]
    test_images: UInt8[ndarray, "test height width channels"]
    test_labels: Int[ndarray, " test"]
    source: Source
    checksum: str
    name: str
    test_rows: Int[ndarray, " test"]
    classes: Classes = CLASSES["mnist"]
    note: str = ""
    validation_images: UInt8[ndarray, "validation height width channels"] | None = None
    validation_labels: Int[ndarray, " validation"] | None = None
    fold: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels of an image."""
        return self.train_images.shape[1:]

    @property
    def title(self) -> str:
        """One phrase for tables and plots, e.g. `MNIST, embedded, 4,000 train + 1,000 test`."""
        sizes = [f"{len(self.train_labels):,} train", f"{len(self.test_labels):,} test"]
        if self.validation_labels is not None:
            sizes.insert(1, f"{len(self.validation_labels):,} validation")
        fold = f" ({self.fold})" if self.fold else ""
        return f"{TITLES.get(self.name, self.name)}, {self.source}, {' + '.join(sizes)}{fold}"

    def epoch_batches(
        self, seed: int, epoch: int, batch_size: int, augment: bool
    ) -> Iterator[Batch]:
        """Training batches of one epoch, in an order that (seed, epoch) alone determine.

        Every batch has `batch_size` images: what is left over at the end is dropped (another
        permutation leaves out other images next time), because a compiled step has one shape.
        `augment` pads by 4 and crops at random, as the paper's code does.
        """
        generator = np.random.default_rng([seed, epoch])
        order = generator.permutation(len(self.train_labels))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            rows = order[start : start + batch_size]
            images = self.train_images[rows]
            yield random_crop(images, generator) if augment else images, self.train_labels[rows]

    def test_batches(self, batch_size: int) -> Iterator[Batch]:
        """Test images in order; see `batches`."""
        return batches(self.test_images, self.test_labels, batch_size)


def batches(
    images: UInt8[ndarray, "n height width channels"], labels: Int[ndarray, " n"], batch_size: int
) -> Iterator[Batch]:
    """Images in order, in batches of at most `batch_size`; the last may be short.

    A divisor of the number of images above half of `batch_size` is preferred: batches of one
    size are compiled once. 1,000 images come in 40 batches of 25 for a `batch_size` of 32.
    """
    count = len(labels)
    even = (size for size in range(batch_size, batch_size // 2, -1) if count % size == 0)
    batch_size = next(even, batch_size)
    for start in range(0, count, batch_size):
        rows = slice(start, start + batch_size)
        yield images[rows], labels[rows]


def random_crop(
    images: UInt8[ndarray, "batch height width channels"], generator: np.random.Generator
) -> UInt8[ndarray, "batch height width channels"]:
    """Pad every side with 4 zeros and cut a window of the old size at one of 81 places, each."""
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[1:3], axis=(1, 2))
    down, right = generator.integers(0, 9, (2, len(images)))
    return np.moveaxis(windows[np.arange(len(images)), down, right], 1, -1)
