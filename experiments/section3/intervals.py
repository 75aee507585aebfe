"""Intervals for the error of a model and for the difference of two, over images and repeats.

A model's errors are a matrix: a row a repeat (a training from new random numbers), a column an
image. Repeats are independent of each other and of those of another model; images are the same for
all. With folds there is a matrix for each: its images were tested by networks of their own, trained
without them, so that over all folds every image is tested once a repeat.

What varies is the training and the choice of test images. The choice of training images does not:
conclusions hold for training on these.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from jaxtyping import Float, Shaped
from numpy import ndarray

LEVEL = 0.95
# Differences in test error, in points, that are called equal; fixed before the runs were made.
MARGINS = {"mnist": 0.4, "fashion_mnist": 0.6}
Errors = Float[ndarray, "repeats images"]
NO_BOUNDS = (-math.inf, math.inf)


@dataclass(frozen=True)
class Interval:
    """A mean over `n` repeats, its interval's half width at `level` (NaN if unknown), its bounds.

    `lacks` names a source of doubt that is not in it, for want of repeats.
    """

    mean: float
    half: float
    n: int
    bounds: tuple[float, float] = NO_BOUNDS
    level: float = LEVEL
    lacks: str = ""

    @property
    def low(self) -> float:
        """Lower end."""
        return max(self.mean - self.half, self.bounds[0])

    @property
    def high(self) -> float:
        """Upper end."""
        return min(self.mean + self.half, self.bounds[1])


@dataclass(frozen=True)
class Estimate:
    """A mean with the estimated variance of that mean, and the degrees of freedom of the latter."""

    mean: float
    variance: float
    df: float
    n: int
    lacks: str = ""

    def interval(self, level: float = LEVEL, bounds: tuple[float, float] = NO_BOUNDS) -> Interval:
        """Student's t interval."""
        quantile = float(scipy.stats.t.ppf((1 + level) / 2, self.df))
        half = quantile * math.sqrt(self.variance)
        return Interval(self.mean, half, self.n, bounds, level, self.lacks)

    def p_different(self) -> float:
        """The smallest alpha at which the interval of level 1 - alpha excludes 0."""
        return self._p(abs(self.mean))

    def p_equal(self, margin: float) -> float:
        """The smallest alpha at which the interval of level 1 - alpha lies within the margin.

        Twice that of two one-sided tests (Schuirmann 1987), so that it is of the same interval.
        """
        return self._p(margin - abs(self.mean))

    def _p(self, distance: float) -> float:
        """Alpha of the interval whose half width is `distance`."""
        if distance <= 0:
            return 1.0
        if self.variance == 0:
            return 0.0
        return 2 * float(scipy.stats.t.sf(distance / math.sqrt(self.variance), self.df))


def interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean of independent values."""
    n = len(values)
    if n < 2:
        return Interval(float(values[0]) if n else math.nan, math.nan, n)
    return Estimate(float(np.mean(values)), float(np.var(values, ddof=1)) / n, n - 1, n).interval()


def mean(errors: Sequence[Errors]) -> Estimate:
    """The mean of one model's errors over its folds: `difference` from a model that makes none."""
    return difference(errors, [np.zeros((1, fold.shape[1])) for fold in errors], sure=True)


def difference(a: Sequence[Errors], b: Sequence[Errors], *, sure: bool = False) -> Estimate:
    """Mean of `a` minus mean of `b`, with its variance by the crossed random-effects model.

    Within a fold an error is the sum of a mean, an effect of the image, an effect of the network,
    and a residual. The variance of the mean over images of the images' mean differences holds the
    effect of images and both models' residuals; that of the mean over repeats holds the effect of
    networks and the residual again, whose mean square is therefore subtracted once. Folds add up,
    by the squares of their shares of the images. The whole is never taken below the images' part.
    Degrees of freedom are Satterthwaite's (1946). With one repeat of a model in a fold the
    networks' part is missing, and `lacks` says so; `sure` says that `b` does not vary.

    Args:
        a: For each fold (one, if there are none) errors by repeat and image.
        b: The same of the other model; its repeats may be of another number.
        sure: Whether `b` is known without doubt.

    Raises:
        ValueError: For folds with other images each, or fewer than two.
    """
    sizes = [fold.shape[1] for fold in a]
    if sizes != [fold.shape[1] for fold in b] or min(sizes, default=0) < 2:
        raise ValueError(
            f"errors on the same images, at least two a fold, expected; got {sizes} and "
            f"{[fold.shape[1] for fold in b]}"
        )
    total = 0.0
    # (a mean square's share of the variance, its degrees of freedom); residuals are subtracted.
    images: list[tuple[float, float]] = []
    networks: list[tuple[float, float]] = []
    for mine, its, size in zip(a, b, sizes, strict=True):
        weight = size / sum(sizes)
        per_image = mine.mean(0) - its.mean(0)
        total += weight * float(per_image.mean())
        images.append((weight**2 * float(np.var(per_image, ddof=1)) / size, size - 1.0))
        networks += [
            (weight**2 * share, df) for errors in (mine, its) for share, df in _networks(errors)
        ]
    images_part = sum(share for share, _ in images)
    variance = images_part + sum(share for share, _ in networks)
    shares = [*images, *networks]
    if variance <= images_part:
        shares, variance = images, images_part
    spread = sum(share**2 / df for share, df in shares)
    df = variance**2 / spread if spread else sum(sizes) - float(len(sizes))
    n = min(len(fold) for model in ([a] if sure else [a, b]) for fold in model)
    lacks = "" if n > 1 else "one repeat: images only"
    return Estimate(total, variance, df, n, lacks)


def _networks(errors: Errors) -> list[tuple[float, float]]:
    """Shares of the variance of a fold's mean that networks bring, and degrees of freedom."""
    repeats, size = errors.shape
    if repeats < 2:
        return []
    means = errors.mean(1)
    residual = errors - errors.mean(0) - means[:, None] + errors.mean()
    freedom = (repeats - 1.0) * (size - 1.0)
    return [
        (float(np.var(means, ddof=1)) / repeats, repeats - 1.0),
        (-float((residual**2).sum()) / freedom / (repeats * size), freedom),
    ]


@dataclass(frozen=True)
class Verdict:
    """What may be said of a difference, among many: `words`, and the interval they rest on."""

    words: str
    interval: Interval


def verdicts(found: Sequence[Estimate], margin: float) -> list[Verdict]:
    """Whether each of `found` differs from 0, is 0 within the margin, or is not decided.

    Claims of difference and claims of equality are each held to a 5% chance of any false one among
    them, by Holm (1979). A claim is one about an interval (that it excludes 0, that it lies within
    the margin) at the level that Holm's method came to; that interval is the one returned. Where
    neither is claimed it is the wider of the two. From one repeat a model nothing is claimed.
    """
    claimed = [one for one in found if not one.lacks]
    different = iter(holm([one.p_different() for one in claimed]))
    equal = iter(holm([one.p_equal(margin) for one in claimed]))
    results = []
    for one in found:
        if one.lacks:
            results.append(Verdict("not decided (one repeat)", one.interval()))
            continue
        (differs, its), (equals, other) = next(different), next(equal)
        if differs:
            words, alpha = "different, by less than the margin" if equals else "different", its
        elif equals:
            words, alpha = "equal within the margin", other
        else:
            words, alpha = "not decided", min(its, other)
        results.append(Verdict(words, one.interval(1 - alpha)))
    return results


def holm(ps: Sequence[float], alpha: float = 1 - LEVEL) -> list[tuple[bool, float]]:
    """Holm's step-down method: whether each is rejected, and the level it was tested at.

    The smallest of m is tested at alpha / m, the next at alpha / (m - 1), and so on; from the first
    that is kept all are kept, tested at its level.
    """
    results = [(False, alpha)] * len(ps)
    rejected = True
    level = alpha
    for rank, index in enumerate(np.argsort(ps, kind="stable")):
        if rejected:
            level = alpha / (len(ps) - rank)
            rejected = ps[index] <= level
        results[index] = rejected, level
    return results


def disagreement(
    a: Shaped[ndarray, "repeats_a images"], b: Shaped[ndarray, "repeats_b images"] | None = None
) -> float:
    """Per cent of images to which two networks give different classes, over all pairs of them.

    Pairs of a repeat of `a` with one of `b`; without `b` of two repeats of `a`, NaN if it has one.
    """
    pairs = itertools.combinations(a, 2) if b is None else itertools.product(a, b)
    shares = [float((one != other).mean()) for one, other in pairs]
    return 100 * sum(shares) / len(shares) if shares else math.nan
