"""Gradients by rules of our own that can be differentiated again, in any mode.

A rule that is fast, or sparing with memory, loops over an unknown number of steps, and JAX cannot
pull a gradient back through such a loop. Where a rule is itself differentiated, the same solve is
done by diffrax's bounded loops, which can be differentiated in any mode any number of times.
"""

from collections.abc import Callable

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jax_node import multistep, runge_kutta
from jax_node.adjoint import Backward, Field, Forward, Integrate
from jax_node.integrate import Loops, Method


def differentiable(
    fast: Callable[..., tuple[PyTree, PyTree]], smooth: Callable[..., PyTree]
) -> Callable[..., tuple[PyTree, PyTree]]:
    """`fast`, which returns (value, extra), with the derivatives of `smooth`, which returns value.

    `extra` has a derivative of zero.
    """

    @jax.custom_jvp
    def function(*inputs):
        return fast(*inputs)

    @function.defjvp
    def rule(inputs, tangents):
        value, extra = function(*inputs)
        _, tangent = jax.jvp(smooth, inputs, tangents)
        return (value, extra), (tangent, jax.tree.map(_zero_tangent, extra))

    return function


def differentiable_integrate(method: Method) -> Integrate:
    """`method.integrate` of a field that takes `(params, (rest, controls))`."""

    def integrate(field, y0, ts, args):
        run = lambda loops: (
            lambda y0, ts, args: method.integrate(field, y0, ts, args, args[1][1], loops)
        )
        once, bounded = run("once"), run("bounded")
        return differentiable(lambda *inputs: (once(*inputs), ()), bounded)(y0, ts, args)[0]

    return integrate


def solve_through_loops(
    field: Field,
    method: Method,
    loops: Loops,
    y0: PyTree,
    ts: Float[Array, " times"],
    args: tuple[PyTree, PyTree],
    backward: Backward,
) -> Forward:
    """A solve whose gradient is that of its steps, as diffrax differentiates them."""
    counted = lambda t, y, args: field(t, _count(y, args[1], jnp.ones(())), args[0])
    controls = args[1][1]
    if loops == "checkpointed":
        return method.integrate(counted, y0, ts, (args, backward.nfe), controls, loops)
    # Every evaluation is differentiated, and once; a rule inside of these loops would keep them
    # from being differentiated again.
    out = method.integrate(field, y0, ts, args, controls, loops)
    return out._replace(ys=_count(out.ys, backward.nfe, out.stats["nfe"].astype(float)))


def keeps_steps(solver: diffrax.AbstractSolver) -> bool:
    """Whether `solve_by_kept_steps` knows the method."""
    return runge_kutta.supports(solver) or multistep.supports(solver)


def solve_by_kept_steps(
    field: Field,
    method: Method,
    y0: PyTree,
    ts: Float[Array, " times"],
    params: PyTree,
    given: PyTree,
    backward: Backward,
) -> Forward:
    """A solve whose gradient is that of its steps, which are kept, by the method's `pull_back`.

    `field` takes `(params, given)`, where `given` is `(rest, controls)`, and must take everything
    that is differentiated, or known only to a trace, through them.
    """

    def ahead(y0, ts, params, given):
        args = params, given
        out, steps = method.integrate(field, y0, ts, args, given[1], keep_steps=True)
        return out, (steps, out.stats["accepted"])

    def bounded(y0, ts, params, given):
        return method.integrate(field, y0, ts, (params, given), given[1], "bounded")

    def back(y0, ts, params, given, kept, observed):
        (steps, n_steps), (_, controls) = kept, given
        solver, args, jump_ts = method.make(controls), (params, given), controls.jump_ts
        kind = multistep if multistep.supports(solver) else runge_kutta
        gradient, nfe = kind.pull_back(
            field, solver, steps, n_steps, y0, ts, args, jump_ts, observed
        )
        return gradient, nfe.astype(float)

    def bounded_back(y0, ts, params, given, kept, observed):
        run = lambda y0, ts, params: bounded(y0, ts, params, given).ys
        return jax.vjp(run, y0, ts, params)[1](observed)

    # An eager gradient compiles once.
    gradient_of = jax.jit(differentiable(back, bounded_back), inline=True)

    @jax.custom_vjp
    def solve(y0, ts, params, given, backward):
        del backward
        return method.integrate(field, y0, ts, (params, given), given[1])

    def solve_forward(y0, ts, params, given, backward):
        del backward
        values = y0, ts, params, given
        out, kept = differentiable(ahead, bounded)(*values)
        return out, (*values, kept)

    def solve_backward(kept, cotangents):
        gradient, nfe = gradient_of(*kept, cotangents.ys)
        return *gradient, None, Backward.zeros()._replace(nfe=nfe)

    solve.defvjp(solve_forward, solve_backward)
    return solve(y0, ts, params, given, backward)


@jax.custom_vjp
def _count(y: PyTree, count: Float[Array, ""], number: Float[Array, ""]) -> PyTree:
    """The identity; differentiated, the cotangent of `count` grows by `number`."""
    del count, number
    return y


_count.defvjp(lambda y, _, number: (y, number), lambda number, g: (g, number, None))


def _zero_tangent(leaf: Array) -> Array | np.ndarray:
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.zeros_like(leaf)
    return np.zeros(leaf.shape, jax.dtypes.float0)
