"""A field that is linear in its coefficients, fitted to trajectories: the rivals without a network.

Sparse regression differentiates noisy splines, and what it loses there is not the field's
fault. Here coefficients are fitted to the observations themselves, by least squares over pieces of
the trajectories (rk4), whose starts are fitted too: short pieces first, from a field that is 0,
then of twice the length, up to whole trajectories, each fit beginning where the one before ended.
Fitted to whole trajectories at once, chaos (Lorenz) and fields that escape end in local minima.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy import sparse
from scipy.optimize import least_squares

from experiments.series.series import Series
from experiments.trajectories.sindy import Linear
from jax_node.irregular import solve_at

SUBSTEPS = 3  # of rk4 between two observations
SHORTEST = 5  # intervals of the first pieces
EVALUATIONS = 10  # of the residuals in one fit; the next goes on from it
ESCAPED = 100.0  # states and residuals: no farther from what is scaled to deviations of 1

States = Float[ndarray, "series times dim"]


def observed(series: Sequence[Series]) -> tuple[Float[ndarray, "series times"], States, States]:
    """Times, values (NaN where missing), and states to begin from, of series of one length."""
    times, values = (np.stack([getattr(s, name) for s in series]) for name in ("times", "values"))
    return times, values, np.stack([one.filled() for one in series])


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


def growing(
    times: Float[ndarray, "series times"], values: States, states: States, field: Linear,
    ridge: float = 0.0,
) -> Iterator[tuple[Linear, States]]:  # fmt: skip
    """The fits (see `fit`) to pieces of every length, each from where the one before ended."""
    for at in pieces(times.shape[1]):
        field, states = fit(times, values, states, field, at, ridge)
        yield field, states


def fit(
    times: Float[ndarray, "series times"],
    values: States,
    states: States,
    start: Linear,
    at: Int[ndarray, "pieces length"],
    ridge: float = 0.0,
) -> tuple[Linear, States]:
    """The field of `start`'s kind nearest to the pieces `at` of all series, and its states.

    It begins from `start`, or from 0 if that escapes, and each piece from what `states` has at its
    first time. Values, scaled to deviations of about 1, do not count where they are NaN; `ridge`
    times each coefficient is a residual beside those of the values.
    """
    dim, shape = values.shape[2], start.coefficients.shape
    ts, seen = times[:, at].reshape(-1, at.shape[1]), values[:, at].reshape(-1, at.shape[1], dim)
    count, known, seen = len(ts), ~np.isnan(seen), np.nan_to_num(seen)
    split = lambda flat: (flat[: count * dim].reshape(count, dim), flat[count * dim :])
    field, sensitive = fields(start, dim)
    size = start.coefficients.size
    # Residuals beside those of the values, none without a ridge.
    penalty = ridge * sparse.eye_array(size if ridge else 0, count * dim + size, k=count * dim)

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
            found = np.clip(np.nan_to_num(found, nan=ESCAPED), -ESCAPED, ESCAPED)
            return np.concatenate([found, penalty @ flat])

        def jacobian(flat):
            found = np.where(known[..., None], slopes(flat), 0.0)[..., 1:]
            rows = np.nan_to_num(found.reshape(count, -1, found.shape[3]))
            own = sparse.block_diag(list(rows[..., :dim]))
            rest = rows[..., dim:].reshape(-1, size)
            return sparse.vstack([sparse.hstack([own, sparse.csr_matrix(rest)]), penalty]).tocsr()

        guess = np.concatenate([states[:, at[:, 0]].ravel(), start.coefficients.ravel()])
        if not (np.abs(solve(guess)) < ESCAPED).all():  # or NaN
            guess[count * dim :] = 0
        flat = least_squares(
            residuals, guess, jacobian, x_scale="jac", tr_solver="lsmr", max_nfev=EVALUATIONS
        ).x
        fitted = np.zeros_like(states)
        fitted[:, at] = np.asarray(solve(flat)).reshape(len(times), *at.shape, dim)
    return dataclasses.replace(start, coefficients=flat[count * dim :].reshape(shape)), fitted


Field = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def fields(linear: Linear, dim: int) -> tuple[Field, Field]:
    """The field with coefficients as its third argument, and the same with sensitivities beside it.

    The second's state is `[batch, dim, 1 + dim + coefficients]`: states, their derivatives by the
    initial states, and by the coefficients (the variational equation). Steps of rk4 give the exact
    derivatives of steps of rk4.
    """

    def field(t, y, coefficients):
        return linear.features(y) @ coefficients

    def sensitive(t, state, coefficients):
        y, by = state[..., 0], state[..., 1:]
        along = lambda e: jax.jvp(lambda y: field(t, y, coefficients), (y,), (0 * y + e,))[1]
        turned = jnp.stack([along(e) for e in jnp.eye(dim)], axis=2) @ by
        known = linear.features(y)
        forced = jnp.einsum("bk,ij->bikj", known, jnp.eye(dim)).reshape(len(y), dim, -1)
        dy = (known @ coefficients)[..., None]
        return jnp.concatenate([dy, turned.at[..., dim:].add(forced)], axis=2)

    return field, sensitive
