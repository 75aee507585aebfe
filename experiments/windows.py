"""Series of unequal length and spacing as arrays: what latent ODEs learn from and are asked.

Time counts from the start of a window. Rows with fewer observations than others have repeats of
time 0 in front, with mask 0, where a solver stands still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from experiments.idx import DataError


@dataclass(frozen=True)
class Observed:
    """Observations of a batch of windows; `mask` is 1 where a value was observed."""

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
class Set:
    """Windows: what is observed of them, and the truth inside and beyond the observed stretch."""

    observed: Observed
    inside: Observed
    beyond: Observed


@dataclass(frozen=True)
class Problem:
    """What a latent ODE is trained on and tested with.

    Attributes:
        title: the data in one line.
        names: of the channels.
        train: windows that are learnt from.
        test: windows that are not.
        stretch: time from the start of a window to the end of what may be observed.
        unit: of time, in words; `scale`, how many of them one unit of model time is.
        mean, deviation: of the channels in their own units.
    """

    title: str
    names: tuple[str, ...]
    train: Set
    test: Set
    stretch: float
    unit: str
    scale: float
    mean: Float[ndarray, " channels"]
    deviation: Float[ndarray, " channels"]


def pack(rows: Sequence[tuple[ndarray, ndarray]]) -> Observed:
    """Times `[n]` and values `[n, channels]` of every window, padded in front; NaN is masked."""
    longest = max(len(times) for times, _ in rows)
    front = lambda a: np.pad(a, [(longest - len(a), 0), *[(0, 0)] * (a.ndim - 1)])
    values = np.stack([front(np.nan_to_num(v)) for _, v in rows])
    mask = np.stack([front((~np.isnan(v)).astype(float)) for _, v in rows])
    return Observed(np.stack([front(t) for t, _ in rows]), values, mask)


def padding(observed: Observed) -> float:
    """Fraction of the solver's steps that are padding, where each row has its own clock."""
    return 1 - float(observed.mask.any(2).sum()) / observed.times.size


def padding_of_union(observed: Observed) -> float:
    """The same fraction if all rows were solved on the union of their times."""
    real = observed.mask.any(2)
    return 1 - float(real.sum()) / (len(observed) * len(np.unique(observed.times[real])))


def scaled(
    title: str,
    names: tuple[str, ...],
    train: Set,
    test: Set,
    stretch: float,
    unit: str,
    scale: float,
) -> Problem:
    """A problem whose channels have mean 0 and deviation 1 over the training observations."""
    values, mask = train.observed.values, train.observed.mask
    known = [values[..., c][mask[..., c] > 0] for c in range(len(names))]
    mean, deviation = (np.array([f(k) for k in known]) for f in (np.mean, np.std))
    for name in np.array(names)[deviation == 0]:
        raise DataError(f"channel {name} never changes; leave it out.")

    def change(part: Observed) -> Observed:
        return Observed(part.times, (part.values - mean) / deviation * part.mask, part.mask)

    sets = [Set(*map(change, (s.observed, s.inside, s.beyond))) for s in (train, test)]
    return Problem(title, names, sets[0], sets[1], stretch, unit, scale, mean, deviation)
