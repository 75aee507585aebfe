"""A polynomial field fitted to trajectories: the rival that is told the form.

Sparse regression differentiates noisy splines, and what it loses there is not the polynomial's
fault. Here coefficients are fitted to the observations themselves, by least squares over pieces of
the trajectories (rk4), whose starts are fitted too: short pieces first, from a field that is 0,
then of twice the length, up to whole trajectories, each fit beginning where the one before ended,
and higher degrees where the lower one's short pieces ended. Fitted to whole trajectories at once,
chaos (Lorenz) and fields that escape end in local minima.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy import sparse
from scipy.optimize import least_squares

from experiments.series.series import Series
from experiments.trajectories.sindy import Polynomial, products
from jax_node.irregular import solve_at

SUBSTEPS = 3  # of rk4 between two observations
SHORTEST = 5  # intervals of the first pieces
EVALUATIONS = 10  # of the residuals in one fit; the next goes on from it
ESCAPED = 100.0  # states and residuals: no farther from what is scaled to deviations of 1


def fits(series: Sequence[Series], degrees: Sequence[int]) -> Iterator[Polynomial]:
    """The fits of every degree and length of pieces, from which validation may choose.

    Every series has as many observations as the others, at least two; values that are NaN do not
    count, and values are scaled to deviations of about 1. `degrees` rise.
    """
    times, values = (np.stack([getattr(s, name) for s in series]) for name in ("times", "values"))
    states = np.stack([one.filled() for one in series])
    start = Polynomial(0, np.zeros((1, values.shape[2])))
    for degree in degrees:
        more = len(products(values.shape[2], degree)) - len(start.coefficients)
        field = start = Polynomial(degree, np.pad(start.coefficients, ((0, more), (0, 0))))
        fitted = states
        for number, at in enumerate(pieces(times.shape[1])):
            field, fitted = fit(times, values, fitted, field, at)
            if number == 0:
                start, states = field, fitted
            yield field


def pieces(observations: int) -> Iterator[Int[ndarray, "pieces length"]]:
    """Which observations each piece has, for every length; the last piece may overlap."""
    length, whole = SHORTEST, observations - 1
    while True:
        length = min(length, whole)
        ends = np.minimum(np.arange(length, whole + length, length), whole)
        yield ends[:, None] + np.arange(-length, 1)
        if length == whole:
            return
        length *= 2


def fit(
    times: Float[ndarray, "series times"],
    values: Float[ndarray, "series times dim"],
    states: Float[ndarray, "series times dim"],
    start: Polynomial,
    at: Int[ndarray, "pieces length"],
) -> tuple[Polynomial, Float[ndarray, "series times dim"]]:
    """The polynomial nearest to the pieces `at` of all series, and its states at all times.

    It begins from `start`, or from 0 if that escapes, and each piece from what `states` has at its
    first time.
    """
    dim, shape = values.shape[2], start.coefficients.shape
    ts, seen = times[:, at].reshape(-1, at.shape[1]), values[:, at].reshape(-1, at.shape[1], dim)
    count, known, seen = len(ts), ~np.isnan(seen), np.nan_to_num(seen)
    split = lambda flat: (flat[: count * dim].reshape(count, dim), flat[count * dim :])
    field, sensitive = fields(dim, start.degree)

    with jax.enable_x64(True):
        clock = jnp.asarray(ts)

        @jax.jit
        def solve(flat):
            y0, coefficients = split(flat)
            return solve_at(field, y0, clock, coefficients.reshape(shape), substeps=SUBSTEPS)

        @jax.jit
        def slopes(flat):
            y0, coefficients = split(flat)
            own = jnp.broadcast_to(jnp.eye(dim), (count, dim, dim))
            rest = jnp.zeros((count, dim, coefficients.size))
            y0 = jnp.concatenate([y0[..., None], own, rest], axis=2)
            return solve_at(sensitive, y0, clock, coefficients.reshape(shape), substeps=SUBSTEPS)

        def residuals(flat):
            found = np.where(known, solve(flat) - seen, 0.0).ravel()
            return np.clip(np.nan_to_num(found, nan=ESCAPED), -ESCAPED, ESCAPED)

        def jacobian(flat):
            found = np.where(known[..., None], slopes(flat), 0.0)[..., 1:]
            rows = np.nan_to_num(found.reshape(count, -1, found.shape[3]))
            own = sparse.block_diag(list(rows[..., :dim]))
            rest = rows[..., dim:].reshape(-1, start.coefficients.size)
            return sparse.hstack([own, sparse.csr_matrix(rest)]).tocsr()

        guess = np.concatenate([states[:, at[:, 0]].ravel(), start.coefficients.ravel()])
        if not (np.abs(solve(guess)) < ESCAPED).all():  # or NaN
            guess[count * dim :] = 0
        flat = least_squares(
            residuals, guess, jacobian, x_scale="jac", tr_solver="lsmr", max_nfev=EVALUATIONS
        ).x
        fitted = np.zeros_like(states)
        fitted[:, at] = np.asarray(solve(flat)).reshape(len(times), *at.shape, dim)
    return Polynomial(start.degree, flat[count * dim :].reshape(shape)), fitted


Field = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def fields(dim: int, degree: int) -> tuple[Field, Field]:
    """The polynomial field, and the same with the sensitivities of its states beside them.

    The second's state is `[batch, dim, 1 + dim + coefficients]`: states, their derivatives by the
    initial states, and by the coefficients (the variational equation). Steps of rk4 give the exact
    derivatives of steps of rk4.
    """
    terms = products(dim, degree)

    def monomials(y):
        one = jnp.ones_like(y[:, 0])
        return jnp.stack([math.prod((y[:, i] for i in at), start=one) for at in terms], axis=1)

    def field(t, y, coefficients):
        return monomials(y) @ coefficients

    def sensitive(t, state, coefficients):
        y, by = state[..., 0], state[..., 1:]
        along = lambda e: jax.jvp(lambda y: field(t, y, coefficients), (y,), (0 * y + e,))[1]
        turned = jnp.stack([along(e) for e in jnp.eye(dim)], axis=2) @ by
        known = monomials(y)
        forced = jnp.einsum("bk,ij->bikj", known, jnp.eye(dim)).reshape(len(y), dim, -1)
        dy = (known @ coefficients)[..., None]
        return jnp.concatenate([dy, turned.at[..., dim:].add(forced)], axis=2)

    return field, sensitive
