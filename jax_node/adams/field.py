"""The vector field as the Adams methods see it, and arithmetic on its values."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from diffrax import AbstractTerm, MultiTerm, ODETerm
from jaxtyping import Array, Inexact, PyTree, Shaped

Y = PyTree[Inexact[Array, "..."]]


def evaluate(terms: PyTree[AbstractTerm], t: Shaped[Array, ""], y: Y, args: PyTree) -> Y:
    """Return dy/dt in the solver's direction of time, in the dtypes of `y`.

    diffeqsolve always integrates forwards and puts the sign of time into the control; the control
    of a unit interval is that sign.

    Raises:
        ValueError: a term has a control other than time, so that there is no dy/dt.
    """
    if not is_ode(terms):
        raise ValueError(
            "Adams methods solve ordinary differential equations: `terms` must be an `ODETerm`, or "
            f"a `MultiTerm` of them, but is {_name(terms)}."
        )
    unit = terms.contr(jnp.zeros_like(t), jnp.ones_like(t))
    derivative = terms.vf_prod(t, y, args, unit)
    return jax.tree.map(lambda f, leaf: jnp.asarray(f, leaf.dtype), derivative, y)


def is_ode(term: PyTree[AbstractTerm]) -> bool:
    """Whether time is the control of a term, of every term of a sum, or of what a term wraps.

    diffrax wraps terms itself, for the direction of time and for `BacksolveAdjoint`.
    """
    if isinstance(term, MultiTerm):
        return all(map(is_ode, term.terms))
    if isinstance(term, ODETerm):
        return type(term).contr is ODETerm.contr
    wrapped = getattr(term, "term", None)
    return isinstance(wrapped, AbstractTerm) and is_ode(wrapped)


def _name(term: PyTree[AbstractTerm]) -> str:
    if isinstance(term, MultiTerm):
        return f"MultiTerm({', '.join(map(_name, term.terms))})"
    wrapped = getattr(term, "term", None)
    return type(term).__name__ if wrapped is None else _name(wrapped)


def add_scaled(y: Y, factor: Shaped[Array, ""], f: Y) -> Y:
    """Return y + factor * f, leaf by leaf, in the dtype of the leaf."""
    return jax.tree.map(lambda y, f: y + factor.astype(y.dtype) * f.astype(y.dtype), y, f)


def combine(
    weights: Inexact[Array, "*rows slots"], history: PyTree[Inexact[Array, "slots ..."]]
) -> PyTree[Inexact[Array, "..."]]:
    """Return sum_j weights[..., j] * history[j], leaf by leaf, in the precision of the leaf."""

    def leaf(past: Array) -> Array:
        w = weights.astype(past.dtype)
        return jnp.tensordot(w, past, axes=1, precision=jax.lax.Precision.HIGHEST)

    return jax.tree.map(leaf, history)
