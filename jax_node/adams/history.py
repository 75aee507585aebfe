"""A ring of past derivatives with a fixed shape, for any PyTree state.

Every leaf of the state gets a leading axis of `slots`. A new derivative overwrites one slot and
nothing is moved: methods reach the derivative of a given age through their (short) weight vectors,
so that a step reads the history once and writes it once, however high the order.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from diffrax import AbstractTerm
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
        here = jnp.arange(past.shape[0]) == slot
        return jnp.where(here.reshape(-1, *([1] * new.ndim)), new[None], past)

    return jax.tree.map(leaf, history, derivative)


def at(history: PyTree[Inexact[Array, "slots ..."]], slot: Int[Array, ""]) -> PyTree:
    """Return the derivative in place `slot`."""
    return jax.tree.map(
        lambda past: jax.lax.dynamic_index_in_dim(past, slot, keepdims=False), history
    )


def ages(slot: Int[Array, ""], slots: int) -> Int[Array, " slots"]:
    """Return how many steps ago each place was written, when `slot` is the latest."""
    return jnp.mod(slot - jnp.arange(slots), slots)


def combine(
    weights: Inexact[Array, "*rows slots"], history: PyTree[Inexact[Array, "slots ..."]]
) -> PyTree[Inexact[Array, "..."]]:
    """Return sum_j weights[..., j] * history[j], leaf by leaf, in the precision of the leaf."""

    def leaf(past: Array) -> Array:
        w = weights.astype(past.dtype)
        return jnp.tensordot(w, past, axes=1, precision=jax.lax.Precision.HIGHEST)

    return jax.tree.map(leaf, history)


def evaluate(
    terms: AbstractTerm,
    t: Inexact[Array, ""],
    y: PyTree[Inexact[Array, "..."]],
    args: PyTree,
) -> PyTree[Inexact[Array, "..."]]:
    """Return dy/dt in the solver's direction of time, in the dtypes of `y`.

    diffeqsolve always integrates forwards and puts the sign of time into the control; the control
    of a unit interval is that sign.
    """
    unit = terms.contr(jnp.zeros_like(t), jnp.ones_like(t))
    derivative = terms.vf_prod(t, y, args, unit)
    return jax.tree.map(lambda f, leaf: jnp.asarray(f, leaf.dtype), derivative, y)
