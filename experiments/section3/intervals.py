"""Means with 95% intervals, and differences between models trained with the same seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean of `n` values and the half width of its interval at `LEVEL`, NaN for one value."""

    mean: float
    half: float
    n: int

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half


@dataclass(frozen=True)
class Difference:
    """A difference in test error, in points of per cent, with its two sources of doubt.

    `seeds` is over repeated training, on the test images at hand; `images` is over the choice of
    test images, for the trained networks at hand. Both vary in the next study, and independently,
    so `both` has their half widths added as a root of squares.
    """

    seeds: Interval
    images: Interval

    @property
    def both(self) -> Interval:
        """The interval that a conclusion should rest on."""
        return Interval(
            self.seeds.mean, math.hypot(self.seeds.half, self.images.half), self.seeds.n
        )


def interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean of independent values."""
    n = len(values)
    if n == 0:
        return Interval(math.nan, math.nan, 0)
    if n == 1:
        return Interval(float(values[0]), math.nan, 1)
    error = float(np.std(values, ddof=1)) / math.sqrt(n)
    quantile = float(scipy.stats.t.ppf((1 + LEVEL) / 2, n - 1))
    return Interval(float(np.mean(values)), quantile * error, n)


def difference(a: dict[int, str], b: dict[int, str], true: str) -> Difference:
    """Test error of `a` minus that of `b`, over the seeds that both have.

    `a` and `b` hold a string of predicted digits for each seed. The interval over images is that of
    McNemar's comparison (only images on which the two disagree count), with each image's
    disagreements averaged over the seeds, so that an image counts once.
    """
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        nothing = Interval(math.nan, math.nan, 0)
        return Difference(nothing, nothing)
    wrong = lambda runs: np.array(
        [[p != t for p, t in zip(runs[s], true, strict=True)] for s in seeds], float
    )
    more = 100 * (wrong(a) - wrong(b))
    return Difference(interval(list(more.mean(1))), interval(list(more.mean(0))))


def statement(found: Interval, unit: str = "points") -> str:
    """What an interval of a difference allows to say."""
    if not math.isfinite(found.half):
        return "one seed: nothing can be said"
    if found.low > 0:
        return f"higher, by {found.low:.2f} to {found.high:.2f} {unit}"
    if found.high < 0:
        return f"lower, by {-found.high:.2f} to {-found.low:.2f} {unit}"
    return f"no difference larger than {max(-found.low, found.high):.2f} {unit}"
