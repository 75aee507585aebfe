"""Sets that TFDS has, or can fetch: whether they can be had, and they themselves."""

from __future__ import annotations

import functools
import threading
import urllib.request
from pathlib import Path

from numpy import ndarray

from experiments.harness.errors import DataError
from experiments.images.dataset import CLASSES, TITLES, Classes, Source
from experiments.images.idx import FILES

PROBE_SECONDS = 3.0


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


def choose(name: str, tfds_dir: Path) -> tuple[Source, str]:
    """Settle `auto`: the source, and the sentence that says why."""
    from experiments.images.tfds_store import URLS, find_official, is_prepared

    if name not in URLS:
        return "tfds", ""
    if is_prepared(tfds_dir, f"{name}-official") or find_official(tfds_dir, name) is not None:
        return "tfds", ""
    if reachable(URLS[name] + FILES["test"][1] + ".gz"):
        return "tfds", f"downloading the official {TITLES[name]} files from {URLS[name]}"
    host = URLS[name].split("/")[2]
    missing = f"official {TITLES[name]} is not in {tfds_dir} and {host} did not answer"
    if name != "mnist":
        raise DataError(f"{missing}; {advice(name)}.")
    return "embedded", f"{missing} within {PROBE_SECONDS:.0f} s: using the 5,000 embedded images"


def advice(name: str) -> str:
    """Where else the images may be had."""
    if name == "fashion_mnist":
        return (
            "pass --data-dir with its IDX files (Debian's package dataset-fashion-mnist puts them "
            "in /usr/share/datasets/fashion-mnist)"
        )
    return "pass --data-dir with its IDX files, or --source embedded"


def official(name: str, tfds_dir: Path) -> tuple[dict[str, tuple[ndarray, ndarray]], Classes]:
    """The set as TFDS has it in `tfds_dir`, MNIST and Fashion-MNIST downloaded first if need be.

    Returns train and test, and the classes' names. Raises `DataError`.
    """
    from experiments.images import tfds_store as store

    config, prepared = f"{name}-official", store.find_official(tfds_dir, name)
    if prepared is not None and not store.is_prepared(tfds_dir, config):
        return store.read(prepared), CLASSES.get(name) or tuple(
            prepared.info.features["label"].names
        )
    if name not in store.URLS:
        raise DataError(
            f"TFDS has prepared no {name!r} in ArrayRecord files in {tfds_dir}; where TensorFlow "
            f"is installed, tfds.builder({name!r}, file_format='array_record')"
            ".download_and_prepare() does it."
        )
    url = store.URLS[name]
    if not store.is_prepared(tfds_dir, config) and not reachable(url + FILES["test"][1] + ".gz"):
        raise DataError(
            f"official {TITLES[name]} is not in {tfds_dir} and {url.split('/')[2]} did not answer "
            f"within {PROBE_SECONDS:.0f} s; {advice(name)}."
        )
    fetch = functools.partial(store.download, name)
    return store.prepare(tfds_dir, config, fetch), CLASSES[name]
