"""Every solver, gradient, direction, dtype and PyTree against closed forms.

A new solver is tested by being listed in `jax_node/integrate.py`.
"""

import importlib.util
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_node.solve import FIXED_STEP, GRADIENTS, SOLVERS, solve

_spec = importlib.util.spec_from_file_location(
    "closed_forms", Path(__file__).parents[1] / "closed_forms.py"
)
closed_forms = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(closed_forms)

TREES = {
    "array": (lambda y: y, lambda tree: tree),
    "nested": (
        lambda y: {"a": (y[0],), "b": y[1:].reshape(1, 1, -1)},
        lambda tree: jnp.concatenate([tree["a"][0][None], tree["b"].ravel()]),
    ),
}
# Over an interval of 2. Adams-Bashforth of order 11 is stable below 0.0034 / |df/dy| = 0.0068.
STEPS = dict.fromkeys(FIXED_STEP, 1 / 64) | {"explicit_adams": 1 / 256}
# Of states and gradients. Euler's error is h / 2 times an integral of |y''|, below 4 here; that of
# midpoint and of higher orders is below h^2. The coefficients of fixed-step Adams assume equal
# steps, and the derivative by a time makes the last one unequal: of first order.
ORDER_1 = {"euler": ("states", "times"), "explicit_adams": ("times",), "implicit_adams": ("times",)}


def bound(solver, dtype, what="states"):
    """Of the error, relative to numbers of order 1."""
    if solver in FIXED_STEP:
        order_1 = what in ORDER_1.get(solver, ())
        of_method = 2 * STEPS[solver] if order_1 else STEPS[solver] ** 2
    else:
        of_method = 100 * tolerance(dtype)  # errors of steps, each below it, over some dozen steps
    return of_method + 100 * float(jnp.finfo(dtype).eps)


def tolerance(dtype):
    return 1e-5 if dtype == "float32" else 1e-7


# How fast these gradients converge is tested in test_solve.py.
CONVERGES = {("tsit5", "direct")}
CONVERGES |= set(itertools.product(("dopri5", "rk4", "euler"), ("direct", "adjoint")))


def cases():
    """All of them; of a solver and gradient not in `CONVERGES` one dtype and PyTree are fast."""
    products = itertools.product(SOLVERS, GRADIENTS, ("float32", "float64"), TREES)
    for solver, adjoint, dtype, tree in products:
        turn = SOLVERS.index(solver) + GRADIENTS.index(adjoint)
        one = dtype == ("float64", "float32")[turn % 2] and tree == list(TREES)[turn // 2 % 2]
        marks = () if one and (solver, adjoint) not in CONVERGES else pytest.mark.slow
        yield pytest.param(solver, adjoint, dtype, tree, marks=marks)


@pytest.mark.parametrize(("solver", "adjoint", "dtype", "tree"), list(cases()))
def test_states_and_gradients_are_those_of_the_closed_form(solver, adjoint, dtype, tree):
    problem = closed_forms.FORCED
    pack, unpack = TREES[tree]
    options = {"solver": solver, "adjoint": adjoint, "max_steps": 600}
    if solver in FIXED_STEP:
        options["step_size"] = STEPS[solver]
    else:
        options |= {"rtol": tolerance(dtype), "atol": tolerance(dtype)}

    field = lambda t, state, a: pack(problem.field(jnp, t, unpack(state), a))

    def found(y0, ts, a):
        solution = solve(field, pack(y0), ts, a, **options)
        assert {leaf.dtype for leaf in jax.tree.leaves(solution.ys)} == {jnp.dtype(dtype)}
        return jax.vmap(unpack)(solution.ys), solution.ok

    def exact(y0, ts, a):
        return jax.vmap(lambda t: problem.exact(jnp, t, ts[0], y0, a))(ts)

    # The last state, weighted: one program for states and gradients, forwards and backwards.
    weights = jnp.array([1.0, -2.0], dtype)
    value = lambda *inputs: (jnp.sum(weights * found(*inputs)[0][-1]), found(*inputs))
    derive = jax.jacfwd if adjoint == "forward" else jax.grad
    program = jax.jit(derive(value, (0, 1, 2), has_aux=True))
    loss = lambda *inputs: jnp.sum(weights * exact(*inputs)[-1])

    for ts in (problem.ts, problem.ts[::-1]):
        inputs = [jnp.asarray(value, dtype) for value in (problem.y0, ts, problem.a)]
        gradient, (ys, ok) = program(*inputs)
        assert ok
        np.testing.assert_allclose(ys, exact(*inputs), rtol=0, atol=bound(solver, dtype))
        names = ("states", "times", "states")
        expected = jax.grad(loss, (0, 1, 2))(*inputs)
        for ours, theirs, what in zip(gradient, expected, names, strict=True):
            # Weights of 3 in sum, and derivatives of up to 3 by the time.
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=9 * bound(solver, dtype, what))
