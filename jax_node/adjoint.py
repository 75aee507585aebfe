"""The adjoint sensitivity method: optimise-then-discretise (paper, section 2 and appendix B, C).

With `a(t) = dL/dy(t)`, the gradient needs no stored trajectory: one solve backwards in time of

    y' = f(t, y)        the state again                              (paper, algorithm 1)
    a' = -a df/dy       the adjoint                                  (equation 4)
    p' = -a df/dargs    the gradient of the parameters accumulating  (equation 5)

from each observation time to the one before it, `a` jumping by the loss gradient at each.
`torch_node/adjoint.py` spells out the same by hand.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from jax_node import sharding
from jax_node.jumps import between_jumps

Field = Callable[[Float[Array, ""], PyTree, PyTree], PyTree]


class Forward(NamedTuple):
    """What a solve brings back: states at every observation time, and its statistics."""

    ys: PyTree
    stats: dict


class Backward(NamedTuple):
    """What a backward pass cost and how far to trust it; see `solve.solve`.

    Numbers besides a gradient come out of differentiation in one way only: as the *cotangent* of an
    argument. So `Backward.zeros()` goes in, and its gradient is the account of the backward pass.

    Attributes:
        nfe: evaluations of the vector field.
        failed: solves backwards in time that failed.
        reconstruction: the adjoint solves for the state again, backwards from each observation to
            the one before. This is how far it ends from the state that was there, relative to that
            state: the largest over the intervals. 0 for a gradient through the solver's steps.
    """

    nfe: Float[Array, ""]
    failed: Float[Array, ""]
    reconstruction: Float[Array, ""]

    @classmethod
    def zeros(cls) -> "Backward":
        """Zeros to be differentiated."""
        return cls(jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))


class Augmented(NamedTuple):
    """State of the backward solve: `y(t)`, the adjoint `a(t)`, and the gradient of `args`."""

    y: PyTree
    a: PyTree
    p: PyTree


# Maps (field, y0, ts, args) to a `Forward`: the solver, whichever it is.
Integrate = Callable[[Field, PyTree, Float[Array, " times"], PyTree], Forward]


def solve_by_adjoint(
    field: Field,
    integrate: Integrate,
    y0: PyTree,
    ts: Float[Array, " times"],
    params: PyTree,
    given: PyTree,
    backward: Backward,
) -> Forward:
    """`integrate`, with gradients for `y0`, every one of `ts` and `params` by the adjoint method.

    `field` takes `(params, given)` as its arguments, where `given` is `(rest, controls)`, and must
    take everything that is differentiated, or known only to a trace, through them. If a backward
    solve fails, the whole gradient is NaN.
    """
    return _solve(field, integrate, y0, ts, params, given, backward)


def _solve_primal(field, integrate, y0, ts, params, given, backward):
    del backward
    return integrate(field, y0, ts, (params, given))


_solve = jax.custom_vjp(_solve_primal, nondiff_argnums=(0, 1))


def _forward(field, integrate, y0, ts, params, given, backward):
    values = lambda tree: jax.tree.map(lambda leaf: leaf.value, tree)
    times_wanted = () if ts.perturbed else None  # by structure: residuals are arrays
    args = values(params), values(given)
    out = _solve_primal(field, integrate, values(y0), ts.value, *args, None)
    return out, (out.ys, ts.value, args, times_wanted)


def _backward(field, integrate, residuals, cotangents):
    gradient, counts = _gradient(field, integrate, residuals, materialised(cotangents.ys))
    return *gradient, None, counts


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)  # an eager gradient compiles once
def _gradient(field, integrate, residuals, observed):
    ys, ts, (params, given), times_wanted = residuals
    at = lambda i: jax.tree.map(lambda leaf: leaf[i], ys)

    def augmented(t, state, args):
        params, given = args
        dy, pull = jax.vjp(lambda y, p: field(t, y, (p, given)), state.y, params)
        da, dp = jax.tree.map(jnp.negative, pull(state.a))
        return Augmented(dy, da, dp)

    def interval(carry, i):
        """From observation `i` back to `i - 1` (equation 50 of appendix C between jumps)."""
        a, p = carry
        times = jnp.stack([ts[i], ts[i - 1]])
        out = integrate(augmented, Augmented(at(i), a, p), times, (params, given))
        y, a, p = jax.tree.map(lambda leaf: leaf[-1], out.ys)
        a = jax.tree.map(lambda a, g: a + g[i - 1], a, observed)
        found = Backward(
            out.stats["nfe"], ~out.stats["ok"], _relative_distance(y, at(i - 1), otherwise=at(i))
        )
        return (a, p), jax.tree.map(lambda number: number.astype(float), found)

    last = len(ts) - 1
    start = jax.tree.map(lambda g: g[last], observed), jax.tree.map(jnp.zeros_like, params)
    (a, p), counts = jax.lax.scan(interval, start, jnp.arange(last, 0, -1))
    counts = Backward(counts.nfe.sum(), counts.failed.sum(), counts.reconstruction.max())

    dts = jnp.zeros_like(ts)
    if times_wanted is not None:
        # dL/dt_i = g_i f(t_i, y_i) at each observation; at t0 the whole adjoint leaves the
        # interval: dL/dt_0 = (g_0 - a(t_0)) f(t_0, y_0) (appendix B.2). Whatever jumps in between;
        # at a jump itself the field is that of the way to it.
        jump_ts = given[1].jump_ts
        starts, ends = jax.vmap(lambda a, b: between_jumps(a, b, jump_ts))(ts[:-1], ts[1:])
        asked = jnp.concatenate([starts[:1], ends])

        def power(i, g):
            return _inner(g, field(asked[i], at(i), (params, given))).astype(ts.dtype)

        at_observations = jax.vmap(power)(jnp.arange(last + 1), observed)
        dts = at_observations.at[0].add(-power(0, a))
        counts = counts._replace(nfe=counts.nfe + (last + 2))
    return nan_unless(counts.failed == 0, (a, dts, p)), counts


_solve.defvjp(_forward, _backward, symbolic_zeros=True)


def measured(state: PyTree) -> PyTree:
    """What of a state its error is measured by: of the gradient of `args` the sum over devices.

    Each device solves for its own part of it, which is all of it where `args` are split as the
    batch is.
    """
    if isinstance(state, Augmented):
        return state._replace(p=sharding.total(state.p))
    return state


def materialised(cotangents: PyTree) -> PyTree[Array]:
    """Cotangents with arrays for JAX's symbolic zeros."""
    symbolic = lambda leaf: isinstance(leaf, jax.custom_derivatives.SymbolicZero)
    zeros = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype) if symbolic(leaf) else leaf
    return jax.tree.map(zeros, cotangents, is_leaf=symbolic)


def nan_unless(ok: Bool[Array, "..."], tree: PyTree, inputs: PyTree = ()) -> PyTree:
    """`tree`, or NaN: by multiplication, so that the gradient is NaN too.

    With an axis, `ok` is about the leading axis of every leaf. The gradient in `inputs` is NaN even
    if `tree` was made without them, as by a solve that failed in its first step.
    """

    def leaf(x: Array) -> Array:
        factor = jnp.where(ok, 1, jnp.nan).astype(x.dtype)
        return x * factor.reshape(factor.shape + (1,) * (x.ndim - factor.ndim))

    return _tied(jax.tree.map(leaf, tree), ok, inputs)


@jax.custom_jvp
def _tied(tree: PyTree, ok: Bool[Array, "..."], inputs: PyTree) -> PyTree:
    """`tree`, whose derivative in `inputs` is NaN where it is not `ok`."""
    del ok, inputs
    return tree


@_tied.defjvp
def _tie(primals, tangents):
    (tree, ok, _), (moved, _, inputs) = primals, tangents
    change = sum(jnp.sum(jnp.real(leaf)).astype(float) for leaf in jax.tree.leaves(inputs))

    def leaf(dx: Array) -> Array:
        lost = (jnp.where(ok, 0, jnp.nan) * change).astype(dx.dtype)
        return dx + lost.reshape(lost.shape + (1,) * (dx.ndim - lost.ndim))

    return tree, jax.tree.map(leaf, moved)


def _relative_distance(y: PyTree, reference: PyTree, otherwise: PyTree) -> Float[Array, ""]:
    """Of `y` from `reference`, in sizes of `reference`, or of `otherwise` if that is zero."""

    def size(tree: PyTree) -> Float[Array, ""]:
        squares = [jnp.sum(jnp.square(jnp.abs(leaf))) for leaf in jax.tree.leaves(tree)]
        return jnp.sqrt(sharding.total(sum(squares)))

    whole = jnp.where(size(reference) > 0, size(reference), size(otherwise))
    distance = size(jax.tree.map(jnp.subtract, y, reference))
    return jnp.where(distance > 0, distance / whole, 0.0)


def _inner(a: PyTree, b: PyTree) -> Float[Array, ""]:
    products = jax.tree.map(lambda u, v: jnp.sum(u * v), a, b)
    return jax.tree.reduce(jnp.add, products)
