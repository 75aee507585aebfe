"""A kernel's field fitted to trajectories: the rival where no form of the field is known.

As by Heinonen, Yildiz, Mannerstrom, Intosalmi and Lahdesmaki (Learning unknown ODE models with
Gaussian processes, ICML 2018), the field is a Gaussian process given by its values at some centres
in the space of states, and found by least squares over trajectories with the prior as a penalty
(the posterior's mode). Here its mean is linear, so that it has a slope beyond the data, and its
kernel is exp(-|y - z|^2 / 2 l^2).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.cluster.vq import kmeans2
from scipy.linalg import cholesky, solve_triangular

from experiments.paying.pieces import growing, observed
from experiments.series.series import Series
from experiments.trajectories.sindy import Linear

CENTRES = 64  # found by k-means among the observations
LENGTHS, RIDGES = (0.7, 1.0, 1.5), (0.03, 0.1)  # in deviations of the data; by validation
JITTER = 1e-6


@dataclass(frozen=True)
class Kernel(Linear):
    """Its features: 1, the state, and the kernel at `centres`, whitened: of variance 1 a priori."""

    centres: Float[ndarray, "centres dim"]
    length: float

    def features(self, y: Any) -> Any:
        """See `Linear`."""
        xp, white = y.__array_namespace__(), self._kernel(y) @ self._whitening
        return xp.concat([xp.ones_like(y[..., :1]), y, white], axis=-1)

    def _kernel(self, y: Any) -> Any:
        squares = ((y[..., None, :] - self.centres) ** 2).sum(-1)
        return y.__array_namespace__().exp(-squares / (2 * self.length**2))

    @functools.cached_property
    def _whitening(self) -> Float[ndarray, "centres centres"]:
        own = np.eye(len(self.centres))
        return solve_triangular(cholesky(self._kernel(self.centres) + JITTER * own), own)


def fits(series: Sequence[Series]) -> Iterator[Linear]:
    """The fits of every length of the kernel, ridge and length of pieces, to choose from.

    Of series as `polynomials.fits` takes them.
    """
    times, values, states = observed(series)
    dim = values.shape[2]
    seen = states.reshape(-1, dim)
    centres = kmeans2(seen, min(CENTRES, len(seen)), minit="++", seed=0)[0]
    for length in LENGTHS:
        for ridge in RIDGES:
            start = Kernel(np.zeros((1 + dim + len(centres), dim)), centres, length)
            for field, _ in growing(times, values, states, start, ridge):
                yield field
