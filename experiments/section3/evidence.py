"""What a study's record says of its models: errors by fold, repeat and image, and comparisons.

Models are compared on the folds that all of them have, with whatever repeats each has there.
"""

from __future__ import annotations

import math
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


def ode_net(record: Record) -> str:
    """The variant that stands for ODE-Net: by either gradient it is the same network."""
    return "odenet" if done(record, "odenet") else "odenet-adjoint"


def by_fold(record: Record, variant: str) -> dict[str, list[Record]]:
    """The finished runs of a variant by fold (`all` where there are none)."""
    found: dict[str, list[Record]] = {}
    for run in done(record, variant):
        found.setdefault(fold_of(run), []).append(run)
    return found


def by_image(
    record: Record, variants: Sequence[str], what: str = "error"
) -> list[list[ndarray]] | None:
    """For each variant and fold that all have, a matrix: a row a repeat, a column an image.

    `what` is `error` (100 for an image that is classified wrongly, so that means are per cent),
    `loss` (negative log-likelihood) or `class`. None without a common fold, or for losses of runs
    that are older than their losses.
    """
    runs = [by_fold(record, variant) for variant in variants]
    folds = sorted(set.intersection(*(set(of) for of in runs)))
    of_all = [run for of in runs for fold in folds for run in of[fold]]
    if not folds or (what == "loss" and not all("loss" in run for run in of_all)):
        return None
    return [[np.stack([_row(record, run, what) for run in of[fold]]) for fold in folds]
            for of in runs]  # fmt: skip


def over_images(record: Record, variant: str, what: str = "error") -> Interval:
    """Mean `error` or `loss` (see `by_image`), over images and repeats; `n` is 0 without runs."""
    found = by_image(record, [variant], what)
    if found is None:
        return Interval(math.nan, math.nan, 0)
    return mean(found[0]).interval(bounds=PERCENT if what == "error" else (0.0, math.inf))


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
    folds = by_fold(record, variant)
    if folds.keys() != {"all"}:
        return folds
    return {f"seed {run['seed']}": [run] for run in folds["all"]}


def _row(record: Record, run: Record, what: str) -> ndarray:
    true = record["tested"][fold_of(run)]["true"]
    if what == "loss":
        return compact.unpack_losses(run["loss"])
    predicted = compact.corrected(run["wrong"], true)
    if what == "class":
        return predicted
    return 100.0 * (predicted != np.array([int(digit) for digit in true]))
