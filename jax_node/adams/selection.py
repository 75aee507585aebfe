"""Which order and step size an Adams solve goes on with: scalar decisions, free of the state.

Order k stands for a predictor of order k and a corrector of order k + 1. All errors are in units of
the tolerance. `estimates` are what the corrector of order k - 2, ..., k + 1 would err by at a
constant step,

    e_j = |gamma*_j| h^(j+1) |y^(j+1)|,    y^(j+1) = j! f[t_{n+1}, t_n, ..., t_{n+1-j}],

infinite where the history is too short, and no less than `_NEGLIGIBLE`. The order moves to a
neighbour as in Shampine and Gordon, Computer Solution of Ordinary Differential Equations (1975),
chapter 7 (subroutine STEP): down where the estimates do not fall with the order, up where the next
one is smaller. The step then aims at e_k = `_AIM`, and is left alone where that would gain less
than a fifth: equal steps make the estimates sharper.

Decisions should not hang on rounding errors, which high differences magnify: a solve that is
differentiated by recomputing its steps, as diffrax's adjoints do it, must take the same steps again
in differently compiled code. Hence the least estimate, and hence the step changes by powers of
2^(1/4) only, never by a factor that holds the last digits of an estimate.

The constants are STEP's or were chosen on the DETEST problems while this was written. What comes of
them is in docs/solvers.md; how much each matters is not.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_AIM = 0.3
_NEGLIGIBLE = 1e-4
_GRID = 4  # a quarter of an octave is the least change that is worthwhile
_GROWTH = 2.0  # more would crowd the past points: weights become large and magnify rounding errors
_FIRST_GROWTH = 10.0
_SHRINK_ACCEPTED = 0.91
_SHRINK_REJECTED = 0.7
_SHRINK_MOST = 0.2
_SHRINK_FIRST_ORDER = 1e-3  # at order 1 the estimate is sharp: cut a step after a jump at once
_SHRINK_NOT_FINITE = 0.1


class Selection(NamedTuple):
    """Order of the next step, its size over this one's, and whether the start-up goes on."""

    order: Int[Array, ""]
    factor: Float[Array, ""]
    starting: Bool[Array, ""]


def select(
    order: Int[Array, ""],
    estimates: Float[Array, "4"],
    accepted: Bool[Array, ""],
    starting: Bool[Array, ""],
    max_order: int,
) -> Selection:
    """Choose how to go on after a step at `order` that was accepted, or not.

    During the start-up the order rises and the step at least doubles with every step, until an
    estimate says otherwise.
    """
    lower2, lower, same, higher = jnp.maximum(estimates, _NEGLIGIBLE)  # keeps NaN
    falls = (order > 2) & (jnp.maximum(lower, lower2) <= same)
    falls |= (order == 2) & (lower <= same / 2)
    starting = starting & accepted & ~falls & (order < max_order)

    down = (order > 1) & (falls | (lower <= jnp.minimum(same, higher)))
    up = ~falls & (higher < jnp.where(order == 1, same / 2, same))
    up = (starting | (up & ~down)) & (order < max_order)
    down = down & ~starting
    moved = jnp.where(accepted, jnp.where(up, 1, jnp.where(down, -1, 0)), jnp.where(falls, -1, 0))
    order_next = order + moved
    estimate = jnp.where(moved < 0, lower, same)
    estimate = jnp.where((moved > 0) & jnp.isfinite(higher), higher, estimate)

    ratio = jnp.floor(_GRID * jnp.log2(_AIM / estimate) / (order_next + 1))
    ratio = 2 ** (ratio / _GRID)
    steady = jnp.clip(ratio, _SHRINK_ACCEPTED, _GROWTH)
    growing = jnp.clip(ratio, _GROWTH, jnp.where(order == 1, _FIRST_GROWTH, _GROWTH))
    least = jnp.where(order == 1, _SHRINK_FIRST_ORDER, _SHRINK_MOST)
    cut = jnp.where(
        jnp.isfinite(same), jnp.clip(ratio, least, _SHRINK_REJECTED), _SHRINK_NOT_FINITE
    )
    factor = jnp.where(accepted, jnp.where(starting, growing, steady), cut)
    return Selection(order_next, factor.astype(estimates.dtype), starting)
