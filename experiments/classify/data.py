"""The images that a run's flags ask for."""

from __future__ import annotations

import dataclasses

from experiments.classify.config import Data
from experiments.images import sources
from experiments.images.dataset import Dataset


def load(flags: Data) -> Dataset:
    """Load them; `DataError` if they are not to be had."""
    given = dataclasses.asdict(flags)
    del given["channels"], given["classes"]  # what was found the first time
    return sources.load(given.pop("dataset"), given.pop("source"), **given)
