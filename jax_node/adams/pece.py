"""Predict and correct: the arithmetic of one Adams step, once its coefficients are known.

Order k stands for a predictor of order k. Sizes are norms in units of the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from jax_node.adams.field import Y, add_scaled, combine
from jax_node.adams.newton import Coefficients
from jax_node.adams.state import AdamsState

Size = Callable[[Y], Shaped[Array, ""]]
_SMOOTH = 0.5  # the history must predict the new derivative this much better than the latest one


class Prediction(NamedTuple):
    """What the past says of the end of a step: the state there, and the derivative.

    The derivative is by polynomials through the latest j derivatives: `by_one` for j = 1, `lower2`,
    `lower`, `same`, `higher` for j = k - 2, ..., k + 1, and in `by_any` one row for every j.
    """

    state: Y
    by_one: Y
    lower2: Y
    lower: Y
    same: Y
    higher: Y
    by_any: Y


def predict(
    h: Float[Array, ""], c: Coefficients, k: Int[Array, ""], y0: Y, past: AdamsState
) -> Prediction:
    """Extrapolate the history to the end of the step: all that a step reads of it."""
    slots = c.beta.shape[0]
    place = jnp.arange(slots + 1, dtype=k.dtype)
    by_any = jnp.where(place[None, :-1] < place[:, None], c.beta[None, :], 0)
    increment = h * jnp.where(place[:-1] < k, c.g[:-1] * c.beta, 0)
    near = jnp.clip(jnp.stack([jnp.ones_like(k), k - 2, k - 1, k, k + 1]), 0, slots)
    rows = jnp.concatenate([increment[None], by_any[near], by_any])
    found = combine(rows, past.differences)
    row = lambda i: jax.tree.map(lambda leaf: leaf[i], found)
    state = jax.tree.map(jnp.add, y0, row(0))
    return Prediction(state, row(1), row(2), row(3), row(4), row(5), row(slice(6, None)))


class Correction(NamedTuple):
    """The corrected state, and what the correction says about the step."""

    state: Y
    error: Y
    error_size: Float[Array, ""]
    move_size: Float[Array, ""]  # of what the corrector changed
    accepted: Bool[Array, ""]
    broken: Bool[Array, ""]  # the history was of no use: this was a step of order 1
    sizes: Float[Array, "3"]  # of h Phi_{k-2}, h Phi_{k-1}, h Phi_k


def correct(
    h: Float[Array, ""],
    c: Coefficients,
    k: Int[Array, ""],
    y0: Y,
    past: AdamsState,
    predicted: Prediction,
    f: Y,
    doubtful: Bool[Array, ""],
    size: Size,
) -> Correction:
    """Correct the predicted state by the derivative `f` there, and judge the step.

    Far points count little in the corrector, and its error estimate would take a jump for a small
    error. So where the history is `doubtful` and predicts the derivative hardly better than the
    latest one does, the step is one of order 1 instead.
    """
    missed = lambda by: jax.tree.map(jnp.subtract, f, by)  # Phi_j
    first, last = missed(predicted.by_one), missed(predicted.same)
    all_four = (first, missed(predicted.lower2), missed(predicted.lower), last)
    stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *all_four)
    sizes = jax.vmap(size, axis_size=4)(stacked)
    broken = doubtful & (sizes[-1] > _SMOOTH * sizes[0])

    k = jnp.where(broken, 1, k)
    at_order = jax.tree.map(lambda a, b: jnp.where(broken, a, b), first, last)
    euler = add_scaled(y0, h, predicted.by_one)
    base = jax.tree.map(lambda a, b: jnp.where(broken, a, b), euler, predicted.state)
    sizes = jnp.where(broken, sizes[0], sizes[1:])
    weight = c.g[k]
    error_weight = jax.lax.stop_gradient(weight - c.g[k - 1])
    error_size = jnp.abs(error_weight) * sizes[-1]
    return Correction(
        state=add_scaled(base, h * weight, at_order),
        error=jax.tree.map(lambda d: (h * error_weight).astype(d.dtype) * d, at_order),
        error_size=error_size,
        move_size=jnp.abs(weight) * sizes[-1],
        accepted=error_size <= 1,  # false if not finite
        broken=broken,
        sizes=sizes,
    )
