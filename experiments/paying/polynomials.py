"""Polynomial fields fitted to trajectories: the rival that is told the form, where it is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from experiments.paying.pieces import growing, observed
from experiments.series.series import Series
from experiments.trajectories.sindy import Linear, Polynomial, products


def fits(series: Sequence[Series], degrees: Sequence[int]) -> Iterator[Linear]:
    """The fits of every degree and length of pieces, from which validation may choose.

    A higher degree begins where the lower one's short pieces ended. Every series has as many
    observations as the others, at least two; values that are NaN do not count, and values are
    scaled to deviations of about 1. `degrees` rise.
    """
    times, values, states = observed(series)
    dim = values.shape[2]
    start: Linear = Polynomial(np.zeros((1, dim)), 0)
    for degree in degrees:
        more = len(products(dim, degree)) - len(start.coefficients)
        wider = Polynomial(np.pad(start.coefficients, ((0, more), (0, 0))), degree)
        for number, (field, fitted) in enumerate(growing(times, values, states, wider)):
            if number == 0:
                start, short = field, fitted
            yield field
        states = short
