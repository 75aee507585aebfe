"""A ring of past derivatives with a fixed shape, for any PyTree state.

Every leaf of the state gets a leading axis of `slots`. A new derivative overwrites one slot and
nothing is moved: methods reach the derivative of a given age through their (short) weight vectors,
so that a step reads the history once and writes it once, however high the order.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int, PyTree


def empty(y: PyTree[Inexact[Array, "..."]], slots: int) -> PyTree[Inexact[Array, "slots ..."]]:
    """Return a history of zeros with `slots` places for derivatives shaped like `y`."""
    return jax.tree.map(lambda leaf: jnp.zeros((slots, *leaf.shape), leaf.dtype), y)


def push(
    history: PyTree[Inexact[Array, "slots ..."]],
    derivative: PyTree[Inexact[Array, "..."]],
    slot: Int[Array, ""],
) -> PyTree[Inexact[Array, "slots ..."]]:
    """Return the history with `derivative` in place `slot`.

    A select and not a dynamic update: diffeqsolve selects between the new and the old solver state
    anyway (it drops rejected steps), and two selects fuse into one pass over memory.
    """

    def leaf(past: Array, new: Array) -> Array:
        here = jnp.arange(past.shape[0], dtype=slot.dtype) == slot
        return jnp.where(here.reshape(-1, *([1] * new.ndim)), new[None], past)

    return jax.tree.map(leaf, history, derivative)


def ages(slot: Int[Array, ""], slots: int) -> Int[Array, " slots"]:
    """Return how many steps ago each place was written, when `slot` is the latest."""
    return jnp.mod(slot - jnp.arange(slots, dtype=slot.dtype), slots)
