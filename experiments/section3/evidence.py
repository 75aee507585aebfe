"""What a study's record says of its models: errors by repeat and image, and comparisons.

A repeat is all runs of one seed: one run, or one a fold. Of models of which not all folds are done,
those count which all of them have.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy import ndarray

from experiments.section3 import compact, grid
from experiments.section3.collect import Record, fold_of
from experiments.section3.intervals import (
    MARGINS,
    Estimate,
    Interval,
    Verdict,
    difference,
    mean,
    verdicts,
)

PERCENT = (0.0, 100.0)
Pair = tuple[str, str]


def done(record: Record, variant: str) -> list[Record]:
    """The finished runs of a variant."""
    runs = record["runs"]
    return [run for run in runs if run["variant"] == variant and run["status"] == "done"]


def repeats(record: Record, variant: str) -> dict[int, dict[str, Record]]:
    """The finished runs of a variant by seed and fold."""
    found: dict[int, dict[str, Record]] = {}
    for run in done(record, variant):
        found.setdefault(run["seed"], {})[fold_of(run)] = run
    return found


def by_image(record: Record, variants: Sequence[str], what: str = "error") -> list[ndarray] | None:
    """For each variant a row a repeat and a column an image, the images being those of all.

    `what` is `error` (100 for an image that is classified wrongly, so that means are per cent),
    `loss` (negative log-likelihood) or `class`. None if a variant has no runs on common images, or
    its runs are older than their losses.
    """
    runs = [repeats(record, variant) for variant in variants]
    if not all(runs):
        return None
    fullest = (max((set(folds) for folds in of.values()), key=len) for of in runs)
    folds = functools.reduce(set.intersection, fullest)
    whole = [[of for of in seeds.values() if folds <= of.keys()] for seeds in runs]
    if not folds or not all(whole):
        return None
    if what == "loss" and not all("loss" in run for of in whole for r in of for run in r.values()):
        return None
    return [
        np.stack([np.concatenate([_row(record, of[fold], what) for fold in sorted(folds)])
                  for of in variant])
        for variant in whole
    ]  # fmt: skip


def error(record: Record, variant: str) -> Interval:
    """Test error in per cent, over images and repeats; `n` is 0 without runs."""
    found = by_image(record, [variant])
    if found is None:
        return Interval(float("nan"), float("nan"), 0)
    return mean(found[0]).interval(bounds=PERCENT)


def loss(record: Record, variant: str) -> Interval:
    """Mean negative log-likelihood of the test images, over images and repeats."""
    found = by_image(record, [variant], "loss")
    if found is None:
        return Interval(float("nan"), float("nan"), 0)
    return mean(found[0]).interval(bounds=(0.0, float("inf")))


def compare(record: Record, a: str, b: str, what: str = "error") -> Estimate | None:
    """`what` of variant `a` minus that of `b`, on the same images; None without common ones."""
    found = by_image(record, [a, b], what)
    return None if found is None else difference(*found)


def compared(record: Record) -> dict[Pair, Verdict]:
    """What may be said of every comparison of the study that has runs, corrected for all."""
    found = {pair: compare(record, *pair) for pair in grid.PAIRS}
    known = {pair: estimate for pair, estimate in found.items() if estimate is not None}
    return dict(zip(known, verdicts(list(known.values()), margin(record)), strict=True))


def margin(record: Record) -> float:
    """The difference in test error, in points, that counts as none for the study's images."""
    return MARGINS["fashion_mnist" if "fashion_mnist" in record["flags"] else "mnist"]


def by_unit(record: Record, variant: str) -> dict[str, list[Record]]:
    """The finished runs of a variant in independent groups: by fold, or by seed without folds.

    Folds test other images each, so that their spread holds that of images and of training.
    """
    found: dict[str, list[Record]] = {}
    for run in done(record, variant):
        found.setdefault(fold_of(run) if "fold" in run else f"seed {run['seed']}", []).append(run)
    return found


def _row(record: Record, run: Record, what: str) -> ndarray:
    true = record["tested"][fold_of(run)]["true"]
    if what == "loss":
        return compact.unpack_losses(run["loss"])
    predicted = compact.corrected(run["wrong"], true)
    if what == "class":
        return predicted
    return 100.0 * (predicted != np.array([int(digit) for digit in true]))
