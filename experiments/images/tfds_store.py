"""The TFDS builder: one way to store and read images, whatever their source.

TFDS's own `mnist` builder needs TensorFlow to prepare its `Image` feature. This one stores a
`Tensor` of uint8 in ArrayRecord files, which takes neither TensorFlow to write nor to read.
Importing this module imports tensorflow_datasets.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from filelock import FileLock
from jaxtyping import Int, UInt8
from numpy import ndarray

from experiments.harness.errors import DataError
from experiments.images.idx import FILES, read_split

Split = tuple[UInt8[ndarray, "n height width channels"], Int[ndarray, " n"]]
Splits = dict[str, Split]  # "train" and "test"

# TFDS has size and SHA-256 of each file under these addresses, and refuses a file that differs.
URLS = {
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}


@dataclass(eq=False)
class SourceConfig(tfds.core.BuilderConfig):
    """A set to prepare: `splits(download_manager)` reads it from its source."""

    splits: Callable[[Any], Splits] | None = None


class IdxImages(tfds.core.GeneratorBasedBuilder):
    """28x28 grey images of ten classes, in the order of their source."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(28, 28, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            disable_shuffling=True,  # the order of the source is part of a run's reproducibility
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        assert self.builder_config.splits is not None
        splits = self.builder_config.splits(dl_manager)
        self.info.metadata["sha256"] = checksum(splits)
        return {name: self._generate_examples(*splits[name]) for name in FILES}

    def _generate_examples(self, images: ndarray, labels: ndarray) -> Iterator:
        for key, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield key, {"image": image, "label": int(label)}


def checksum(splits: Splits) -> str:
    """SHA-256 over train images, train labels, test images, test labels, a byte per value."""
    digest = hashlib.sha256()
    for name in FILES:
        images, labels = splits[name]
        digest.update(np.ascontiguousarray(images, np.uint8).data)
        digest.update(np.ascontiguousarray(labels, np.uint8).data)
    return digest.hexdigest()


def download(dataset: str, manager: Any) -> Splits:
    """Fetch the official IDX files through TFDS's download manager, checksums verified."""
    names = [name for pair in FILES.values() for name in pair]
    paths = manager.download({name: f"{URLS[dataset]}{name}.gz" for name in names})
    return {split: read_split(*(Path(paths[name]) for name in FILES[split])) for split in FILES}


def is_prepared(tfds_dir: Path, config: str) -> bool:
    """Whether `prepare` would find this set in `tfds_dir` without reading its source."""
    return (_home(tfds_dir, config) / "dataset_info.json").is_file()


def prepare(tfds_dir: Path, config: str, splits: Callable[[Any], Splits]) -> Splits:
    """Prepare the set `config` in `tfds_dir` unless it is there, and read it.

    `splits` is called with TFDS's download manager. One process prepares at a time, and a
    preparation that was killed leaves nothing that is ever read: TFDS renames a finished folder
    into place. Raises `DataError` if the folder cannot be written, a downloaded file has the
    wrong checksum, or what is read is not what was prepared.
    """
    home = _home(tfds_dir, config)
    with _exclusive(home.parent):
        # TFDS warns that a configuration is not one of a fixed list, which here it never is.
        verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)
        builder = IdxImages(
            data_dir=str(tfds_dir),
            config=SourceConfig(name=config, splits=splits),
            file_format="array_record",
        )
        logging.set_verbosity(verbosity)
        if not is_prepared(tfds_dir, config):
            for leftover in home.parent.glob("incomplete.*"):
                shutil.rmtree(leftover, ignore_errors=True)
            shutil.rmtree(home, ignore_errors=True)
            _generate(builder, tfds_dir)
    result = read(builder)
    if checksum(result) != builder.info.metadata.get("sha256"):
        raise DataError(f"the images in {home} have changed since they were stored; delete it.")
    return result


def read(builder: Any) -> Splits:
    """Read train and test of a prepared builder into memory, in stored order."""
    missing = [
        *(f"split {name!r}" for name in FILES if name not in builder.info.splits),
        *(f"feature {name!r}" for name in ("image", "label") if name not in builder.info.features),
    ]
    if missing:
        raise DataError(f"the set in {builder.data_dir} has no {missing[0]}.")
    try:
        return {name: _read_split(builder.as_data_source(name)) for name in FILES}
    except Exception as error:  # noqa: BLE001 (ArrayRecord and TFDS share no base class)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"the prepared set in {builder.data_dir} cannot be read ({reason}); delete that folder."
        ) from error


def find_official(tfds_dir: Path, dataset: str) -> Any | None:
    """Builder of the set that TFDS's own code prepared in `tfds_dir`, if it is one we can read.

    A set in TFRecord files takes TensorFlow to read, and is passed over like a missing one.
    """
    versions = [path.parent for path in (tfds_dir / dataset).glob("*/dataset_info.json")]
    for version in sorted(versions, reverse=True):
        builder = tfds.builder_from_directory(str(version))
        if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
            return builder
    return None


def _read_split(source: Any, chunk: int = 4096) -> Split:
    images = np.empty((len(source), *np.shape(source[0]["image"])), np.uint8)
    labels = np.empty(len(source), np.int32)
    for start in range(0, len(source), chunk):
        rows = range(start, min(start + chunk, len(source)))
        for row, example in zip(rows, source.__getitems__(rows), strict=True):
            images[row], labels[row] = example["image"], example["label"]
    return images, labels


def _home(tfds_dir: Path, config: str) -> Path:
    return tfds_dir / IdxImages.name / config / str(IdxImages.VERSION)


def _generate(builder: IdxImages, tfds_dir: Path) -> None:
    tfds.disable_progress_bar()
    settings = tfds.download.DownloadConfig(force_checksums_validation=True, try_download_gcs=False)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                download_dir=str(tfds_dir / "downloads"), download_config=settings
            )
    except tfds.download.DownloadError as error:
        raise DataError(f"the download failed: {str(error).splitlines()[0]}") from error
    except Exception as error:
        if type(error).__name__ != "NonMatchingChecksumError":
            raise
        url = str(error).split(",")[0].removeprefix("Artifact ")
        raise DataError(
            f"the file from {url} has the wrong checksum and was not used; try again later."
        ) from error


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of one set while it is looked up and prepared."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock").acquire()
    except OSError as error:
        raise DataError(
            f"the data folder {folder} cannot be written ({error.strerror}); "
            "choose another with --tfds-dir."
        ) from None
    with lock:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"preparing data in {folder} failed: {error}; choose another with --tfds-dir."
            ) from error
