"""Sparse least squares for a vector field: the baseline that needs no training.

SINDy (Brunton, Proctor and Kutz 2016): derivatives of smoothed data are regressed on all monomials
up to a degree, and coefficients below a threshold are dropped, again and again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.integrate import solve_ivp
from scipy.interpolate import make_smoothing_spline

from experiments.series.series import Series

BOUND = 100.0
EVALUATIONS = 6 * 4096  # of the field in one solve: what the steps of a Neural ODE's may take


@dataclass(frozen=True)
class Linear:
    """dy/dt = features(y) @ coefficients: a field that is linear in its coefficients."""

    coefficients: Float[ndarray, "features dim"]

    def features(self, y: Any) -> Any:
        """Of states `[..., dim]`, of numpy or JAX: `[..., features]`."""
        raise NotImplementedError

    def field(self, y: Float[ndarray, "*batch dim"]) -> Float[ndarray, "*batch dim"]:
        """The derivative."""
        return self.features(y) @ self.coefficients

    def solve(
        self, y0: Float[ndarray, "batch dim"], ts: Float[ndarray, " times"]
    ) -> Float[ndarray, "batch times dim"]:
        """Trajectories at common times; NaN from where one leaves [-BOUND, BOUND].

        One that takes more than `EVALUATIONS` of the field is NaN after its start.
        """
        escaped = lambda t, y: BOUND - np.abs(y).max()
        escaped.terminal = True  # type: ignore[attr-defined]
        out = np.full((len(y0), len(ts), y0.shape[1]), np.nan)
        for i, y in enumerate(y0):
            try:
                found = solve_ivp(
                    self._limited(), (ts[0], ts[-1]), y, t_eval=ts, events=escaped,
                    rtol=1e-6, atol=1e-6,
                )  # fmt: skip
            except _TooLongError:
                out[i, 0] = y
                continue
            out[i, : found.y.shape[1]] = found.y.T
        return out

    def _limited(self) -> Callable[[float, ndarray], ndarray]:
        evaluations = itertools.count(1)

        def field(t: float, y: ndarray) -> ndarray:
            if next(evaluations) > EVALUATIONS:
                raise _TooLongError
            return self.field(y)

        return field


class _TooLongError(Exception):
    """A solve took more than `EVALUATIONS`."""


@dataclass(frozen=True)
class Polynomial(Linear):
    """Its features are all products of at most `degree` components, a constant first."""

    degree: int

    def features(self, y: Any) -> Any:
        """See `Linear`."""
        return monomials(y, self.degree)


def monomials(y: Any, degree: int) -> Any:
    """All products of at most `degree` components of `y`, a constant first: `[..., monomials]`."""
    of = [y[..., at].prod(-1) for at in products(y.shape[-1], degree)]
    return y.__array_namespace__().stack(of, axis=-1)


def products(dim: int, degree: int) -> list[Int[ndarray, " factors"]]:
    """The components that each monomial is a product of; none for the constant."""
    found = (itertools.combinations_with_replacement(range(dim), d) for d in range(degree + 1))
    return [np.array(factors, int) for factors in itertools.chain(*found)]


def fit(series: Sequence[Series], degree: int, threshold: float = 0.05) -> Polynomial:
    """Regress derivatives of smoothing splines (penalty by cross-validation) on monomials.

    `threshold` is relative to the largest coefficient of each component. Channels are smoothed
    over the values that were observed; a series with fewer than 5 of them in a channel is left
    out. Raises ValueError if none is left.
    """
    states, slopes = [], []
    for one in series:
        known = ~np.isnan(one.values)
        if known.sum(0).min() < 5:
            continue
        splines = [
            make_smoothing_spline(one.times[k], column[k])
            for column, k in zip(one.values.T, known.T, strict=True)
        ]
        states.append(np.stack([s(one.times) for s in splines], axis=1))
        slopes.append(np.stack([s.derivative()(one.times) for s in splines], axis=1))
    if not states:
        raise ValueError("no series has 5 observations of every channel")
    library = monomials(np.concatenate(states), degree)
    target = np.concatenate(slopes)
    coefficients = np.linalg.lstsq(library, target, rcond=None)[0]
    for _ in range(10):
        keep = np.abs(coefficients) > threshold * np.abs(coefficients).max(0)
        coefficients = np.zeros_like(coefficients)
        for i in range(target.shape[1]):
            used = library[:, keep[:, i]]
            coefficients[keep[:, i], i] = np.linalg.lstsq(used, target[:, i], rcond=None)[0]
    return Polynomial(coefficients, degree)
