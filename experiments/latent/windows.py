"""Series of unequal length and spacing as arrays: what latent ODEs learn from and are asked.

Time counts from the start of a window. Rows with fewer observations than others have repeats of
time 0 in front, with mask 0, where a solver stands still.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from experiments.harness.errors import DataError
from experiments.series.series import Series

KL_STEPS = 1000  # in which the weight of the divergence grows from 0 to 1
UNITS = 6.0  # of model time in the observed stretch of a real series; a spiral's has 3.7
FURTHEST = 1000  # stretches ahead: rounding moves times by 2e-4 of those units


@dataclass(frozen=True)
class Observed:
    """Values of a batch of windows at each one's times; `mask` is 1 where one was observed."""

    times: Float[ndarray, "batch times"]
    values: Float[ndarray, "batch times channels"]
    mask: Float[ndarray, "batch times channels"]

    def arrays(self) -> dict[str, ndarray]:
        """What the models take."""
        return {"times": self.times, "values": self.values, "mask": self.mask}

    def __getitem__(self, rows: ndarray | slice) -> Observed:
        return Observed(self.times[rows], self.values[rows], self.mask[rows])

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True)
class Questions:
    """Windows to predict, from what is observed of them.

    `inside` is the truth in the observed stretch, `beyond` after it, `before` before it (with
    times that fall from 0); `noisy` says whether that truth has noise of its own.
    """

    observed: Observed
    inside: Observed
    beyond: Observed
    before: Observed
    noisy: bool

    def __getitem__(self, rows: slice) -> Questions:
        return self.map(lambda part: part[rows])

    def map(self, change: Callable[[Observed], Observed]) -> Questions:
        """The same with every part changed."""
        parts = map(change, (self.observed, self.inside, self.beyond, self.before))
        return Questions(next(parts), next(parts), next(parts), next(parts), self.noisy)


@dataclass(frozen=True)
class Windows:
    """What a latent ODE is trained on and tested with, in the model's units.

    Attributes:
        title: the data in one line.
        names: of the channels.
        train: windows that are learnt from; `test`: others.
        stretch: time from the start of a window to the end of what may be observed.
        unit: of time in pictures, of which one unit of model time has `scale`.
        mean, deviation: of the channels, in their own units.
    """

    title: str
    names: tuple[str, ...]
    train: Observed
    test: Questions
    stretch: float
    unit: str
    scale: float
    mean: Float[ndarray, " channels"]
    deviation: Float[ndarray, " channels"]

    def batch(self, step: int, size: int, latent: int, seed: int) -> dict[str, ndarray]:
        """What a training step learns from: random windows, noise, the divergence's weight."""
        generator = np.random.default_rng([seed, 0, step])
        rows = generator.integers(0, len(self.train), size)
        return {
            **self.train[rows].arrays(),
            "noise": generator.normal(size=(size, latent)),
            "kl": np.array(min(1.0, step / KL_STEPS)),
        }


def pack(rows: Sequence[tuple[ndarray, ndarray]]) -> Observed:
    """Times `[n]` and values `[n, channels]` of every window, padded in front; NaN is masked."""
    longest = max(len(times) for times, _ in rows)
    front = lambda a: np.pad(a, [(longest - len(a), 0), *[(0, 0)] * (a.ndim - 1)])
    values = np.stack([front(np.nan_to_num(v)) for _, v in rows])
    mask = np.stack([front((~np.isnan(v)).astype(float)) for _, v in rows])
    return Observed(np.stack([front(t) for t, _ in rows]), values, mask)


def padding(observed: Observed) -> tuple[float, float]:
    """Fraction of the solver's steps that is wasted, with a clock for each row, and with one.

    With one clock every row is solved at the union of all times.
    """
    real = observed.mask.any(2)
    own, union = observed.times.size, len(observed) * len(np.unique(observed.times[real]))
    return 1 - float(real.sum()) / own, 1 - float(real.sum()) / union


def problem(
    title: str, names: tuple[str, ...], train: Observed, test: Questions, stretch: float, unit: str,
    scale: float, rounding: Float[ndarray, " channels"] | float = 0.0,
) -> Windows:  # fmt: skip
    """A problem whose channels have mean 0 and deviation 1 over the training observations.

    Raises DataError for a channel whose deviation is at most `rounding`.
    """
    known = [train.values[..., c][train.mask[..., c] > 0] for c in range(len(names))]
    mean, deviation = (np.array([f(k) for k in known]) for f in (np.mean, np.std))
    for name in np.array(names)[deviation <= rounding]:
        raise DataError(f"channel {name} never changes; leave it out.")

    def change(part: Observed) -> Observed:
        return Observed(part.times, (part.values - mean) / deviation * part.mask, part.mask)

    return Windows(
        title, names, change(train), test.map(change), stretch, unit, scale, mean, deviation
    )


def cut(
    series: Series, *, title: str, unit: str, stretch: float, ahead: float, observations: int,
    train_fraction: float, seed: int, windows: int = 1000, tests: int = 64,
) -> Windows:  # fmt: skip
    """Windows of one long series: each `stretch` long, predicted for `ahead` beyond and before.

    Training windows end before `train_fraction` of the time has passed, test windows start
    `ahead` after it. Of each, `observations` random ones are observed (or all there are), less the
    mean that these have: levels are not predicted, only changes.

    Raises DataError if the series is too short for that, or too sparse, or `ahead` too far.
    """
    if ahead > FURTHEST * stretch:
        raise DataError(
            f"--ahead {ahead:g} is more than {FURTHEST:,} times --stretch {stretch:g}, further "
            "than float32 resolves time; forecast less far."
        )
    generator, length = np.random.default_rng([seed, 3]), series.times[-1] - series.times[0]
    border = series.times[0] + train_fraction * length
    known = ~np.isnan(series.values).all(1)
    times, values = series.times[known], series.values[known]
    need = "a shorter --stretch or --ahead, or another --train-fraction, may do"

    def between(start: float, end: float) -> slice:
        return slice(*np.searchsorted(times, [start, end]))

    def draw(start: float) -> tuple[slice, ndarray, ndarray] | None:
        """The stretch from `start`, which of it are observed, their mean; None if too few."""
        span = between(start, start + stretch)
        inside = np.arange(span.start, span.stop)
        chosen = np.sort(generator.permutation(inside)[:observations])
        enough = len(chosen) > 1 and not np.isnan(values[chosen]).all(0).any()
        return (span, chosen, np.nanmean(values[chosen], axis=0)) if enough else None

    factor = UNITS / stretch
    row = lambda at, start, mean: ((times[at] - start) * factor, values[at] - mean)
    last = border - stretch
    train = []
    for start in generator.permutation(times[times <= last])[:windows]:
        if found := draw(start):
            train.append(row(found[1], start, found[2]))
    later = times[(times >= border + ahead) & (times <= times[-1] - stretch - ahead)]
    rows: dict[str, list] = {"observed": [], "inside": [], "beyond": [], "before": []}
    spread = np.unique(np.linspace(0, len(later), tests, endpoint=False).astype(int))
    for start in later[spread] if len(later) else later:
        found = draw(start)
        beyond = between(start + stretch, start + stretch + ahead)
        before = between(start - ahead, start)
        if found is None or beyond.start == beyond.stop or before.start == before.stop:
            continue
        span, chosen, mean = found
        rest = np.setdiff1d(np.arange(span.start, span.stop), chosen)
        asked = {"observed": chosen, "inside": rest, "beyond": beyond, "before": before}
        for name, at in asked.items():
            rows[name].append(row(at, start, mean))
    for what, count in (("learn from", len(train)), ("test", len(rows["observed"]))):
        if count == 0:
            raise DataError(
                f"the series, {length:g} long, has no window to {what} with 2 observations of "
                f"every channel in {stretch:g} and some in the {ahead:g} around; {need}."
            )
    # Forecasts start at the first time, so that there is none to pad; the last few are left out.
    least = min(len(t) for t, _ in rows["beyond"])
    rows["beyond"] = [(t[:least], v[:least]) for t, v in rows["beyond"]]
    rows["before"] = [(t[::-1], v[::-1]) for t, v in rows["before"]]
    test = Questions(**{name: pack(parts) for name, parts in rows.items()}, noisy=True)
    title = (
        f"{title}: {len(train)} windows of {stretch:g} with {observations} observations, "
        f"{len(rows['observed'])} later ones to test"
    )
    # What is left of a constant when its mean is taken off, which adds up 1,000 numbers or so.
    rounding = 32 * np.finfo(float).eps * np.nanmax(np.abs(series.values), axis=0)
    return problem(title, series.names, pack(train), test, UNITS, unit, 1 / factor, rounding)
