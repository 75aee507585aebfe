"""Which order an Adams solve goes on with, and the step it could take: free of the state.

Order k stands for a predictor of order k and a corrector of order k + 1. All errors are in units of
the tolerance. `estimates` are what the corrector of order k - 2, ..., k + 1 would err by at a
constant step,

    e_j = |gamma*_j| h^(j+1) |y^(j+1)|,

infinite where the history is too short, and no less than `_NEGLIGIBLE`. The order moves to a
neighbour as in Shampine and Gordon, Computer Solution of Ordinary Differential Equations (1975),
chapter 7 (subroutine STEP): down where the estimates do not fall with the order, up where the next
one is smaller. The step that could be taken then is the one with e_k = `_AIM`.

Decisions should not hang on rounding errors, which high differences magnify: a solve that is
differentiated by recomputing its steps, as diffrax's adjoints do it, must take the same steps again
in differently compiled code. Hence the least estimate, and hence `AdamsController`'s grid of steps.

The constants are STEP's or were chosen on the DETEST problems while this was written. What comes of
them is in docs/solvers.md; how much each matters is not.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_AIM = 0.3
_NEGLIGIBLE = 1e-4
_GROWTH = 2.0  # more would crowd the past points: weights become large and magnify rounding errors
_GROWTH_AT_START = 10.0  # there are no past points yet
_SHRINK_ACCEPTED = 0.91
_SHRINK_REJECTED = 0.85
_SHRINK_MOST = 0.2
_SHRINK_FIRST_ORDER = 1e-3  # at order 1 the estimate is sharp: cut a step after a jump at once


class Selection(NamedTuple):
    """Order of the next step, how much longer than this one it could be, and whether in start-up.

    The ratio is below one if, and only if, this step was rejected or nearly so.
    """

    order: Int[Array, ""]
    ratio: Float[Array, ""]
    starting: Bool[Array, ""]


def select(
    order: Int[Array, ""],
    estimates: Float[Array, "4"],
    motion: Float[Array, ""],
    accepted: Bool[Array, ""],
    starting: Bool[Array, ""],
    max_order: int,
) -> Selection:
    """Choose how to go on after a step at `order` that was accepted, or not.

    During the start-up the order rises and the step at least doubles with every step, until an
    estimate says otherwise. It waits at order 1, which has no past points that a longer step could
    leave behind, while the step's `motion`, h f, is below the tolerance.
    """
    lower2, lower, same, higher = jnp.maximum(estimates, _NEGLIGIBLE)  # keeps NaN
    falls = (order > 2) & (jnp.maximum(lower, lower2) <= same)
    falls |= (order == 2) & (lower <= same / 2)
    starting = starting & accepted & ~falls & (order < max_order)
    waiting = starting & (order == 1) & (motion < 1)

    down = (order > 1) & (falls | (lower <= jnp.minimum(same, higher)))
    up = ~falls & (higher < jnp.where(order == 1, same / 2, same))
    up = (starting | (up & ~down)) & (order < max_order) & ~waiting
    down = down & ~starting
    move = jnp.where(accepted, jnp.where(up, 1, jnp.where(down, -1, 0)), jnp.where(falls, -1, 0))
    order_next = (order + move).astype(order.dtype)
    estimate = jnp.where(move < 0, lower, same)
    estimate = jnp.where((move > 0) & jnp.isfinite(higher), higher, estimate)

    ratio = _step_ratio(estimate, order_next)
    least = jnp.where(starting, _GROWTH, _SHRINK_ACCEPTED)
    most = jnp.where(starting & (order == 1), _GROWTH_AT_START, _GROWTH)
    going_on = jnp.where(waiting, ratio, jnp.clip(ratio, least, most))
    least = jnp.where(order == 1, _SHRINK_FIRST_ORDER, _SHRINK_MOST)
    again = jnp.clip(ratio, least, _SHRINK_REJECTED)
    return Selection(order_next, jnp.where(accepted, going_on, again), starting)


def _step_ratio(estimate: Float[Array, ""], order: Int[Array, ""]) -> Float[Array, ""]:
    """The step with an error of `_AIM` over the one with this error."""
    return (_AIM / estimate) ** (1 / (order + 1).astype(estimate.dtype))
