"""Other parts of a data set than its source's: folds, fewer images, some for validation.

What is drawn is drawn with constants, so that it is the same for all models and seeds.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from experiments.harness.errors import DataError
from experiments.images.dataset import Dataset

FOLD_SEED, VALIDATION_SEED = 1806, 7366


def fold(dataset: Dataset, folds: int, index: int) -> Dataset:
    """Fold `index` of `folds` of all images of the set to test, the others to train.

    The pool is the training images followed by the test images; each fold has its share of every
    class, and over all folds every image is tested once.
    """
    images = np.concatenate([dataset.train_images, dataset.test_images])
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    if folds > len(labels):
        raise DataError(f"{len(labels)} images cannot make {folds} folds.")
    test = np.sort(np.array_split(stratified(labels, FOLD_SEED), folds)[index])
    train = np.setdiff1d(np.arange(len(labels)), test)
    return dataclasses.replace(
        dataset,
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        test_rows=test,
        fold=f"fold {index} of {folds}",
    )


def limit(dataset: Dataset, train: int | None, test: int | None) -> Dataset:
    """The first `train` of the training images and the first `test` of the test images."""
    return dataclasses.replace(
        dataset,
        train_images=dataset.train_images[:train],
        train_labels=dataset.train_labels[:train],
        test_images=dataset.test_images[:test],
        test_labels=dataset.test_labels[:test],
        test_rows=dataset.test_rows[:test],
    )


def validation(dataset: Dataset, count: int) -> Dataset:
    """`count` of the training images, with every class's share, set aside to choose by."""
    total = len(dataset.train_labels)
    if count >= total:
        raise DataError(f"{count} images for validation leave none of the {total} to train on.")
    chosen = np.zeros(total, bool)
    chosen[stratified(dataset.train_labels, VALIDATION_SEED)[:count]] = True
    return dataclasses.replace(
        dataset,
        train_images=dataset.train_images[~chosen],
        train_labels=dataset.train_labels[~chosen],
        validation_images=dataset.train_images[chosen],
        validation_labels=dataset.train_labels[chosen],
    )


def stratified(labels: Int[ndarray, " n"], seed: int) -> Int[ndarray, " n"]:
    """A random order of the images of which every stretch has each class's share, or nearly."""
    order = np.random.default_rng(seed).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return order[np.argsort(place[order], kind="stable")]
