"""`direct` through Adams steps: the gradient of `checkpoint`, in everything, and more than once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_node.adams.coefficients import fixed_step_tables
from jax_node.solve import solve

SOLVERS = ("explicit_adams", "implicit_adams")
TS = jnp.array([0.0, 0.55, 2.0])
Y0 = {"a": jnp.array([0.1, 0.3]), "b": jnp.array(0.5)}


def field(t, y, rate):
    """Nonlinear, explicit in time, of a state in two parts."""
    a, b = y["a"], y["b"]
    return {"a": rate * a * (1 - a) * jnp.cos(t), "b": jnp.sum(a) * jnp.sin(b) + t}


def loss(y0, ts, rate, adjoint, solver, step_size=0.1, tolerance=1e-3, max_steps=64):
    solution = solve(
        field, y0, ts, rate, solver=solver, adjoint=adjoint, step_size=step_size, rtol=tolerance,
        atol=tolerance, max_steps=max_steps,
    )  # fmt: skip
    return sum(jnp.sum(jnp.sin(3 * leaf)) for leaf in jax.tree.leaves(solution.ys)), solution


def rounding(n_steps):
    """Every step rounds by a machine epsilon for each unit of its weights; some ten operations."""
    weights = max(np.abs(table).sum(1).max() for table in fixed_step_tables(11)[:3])
    return 10 * n_steps * weights * np.finfo(float).eps


@pytest.mark.parametrize(
    ("solver", "inside"),
    [
        ("explicit_adams", True),
        ("implicit_adams", True),
        ("explicit_adams", False),
        pytest.param("implicit_adams", False, marks=pytest.mark.slow),  # of one code with explicit
    ],
)
def test_direct_and_checkpoint_are_the_same_gradient(solver, inside):
    """Forwards and backwards in time; start-up only, and beyond a full history."""
    gradient = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True), static_argnums=(3, 4))
    times = [0.0, 0.37, 0.4, 1.1, 2.0] if inside else [0.0, 2.0]
    iterated = set()
    for ts in (times, times[::-1]):
        # The corrector converges at once, at different steps, or (1e-12) nowhere.
        for step_size, tolerance in ((3.0, 1e-3), (0.3, 1e-3), (0.13, 1e-6), (0.1, 1e-12)):
            at = Y0, jnp.array(ts), jnp.array(2.0)
            control = solver, step_size, tolerance
            found, solution = gradient(*at, "direct", *control)
            expected, reference = gradient(*at, "checkpoint", *control)
            assert solution.ok
            assert solution.nfe == reference.nfe
            iterated.add(int(solution.nonconverged))
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
                tolerated = rounding(int(solution.accepted)) * np.abs(b).max()
                np.testing.assert_allclose(a, b, rtol=0, atol=tolerated)
    assert solver == "explicit_adams" or len(iterated) > 1


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_batch_by_vmap(solver):
    """Solves that are iterated differently often go back together."""
    of = jax.jit(
        jax.grad(lambda y, rate: loss({"a": y, "b": y[0]}, TS, rate, "direct", solver)[0], (0, 1))
    )
    starts, rates = jnp.array([[0.1, 0.3], [0.9, -0.4]]), jnp.array([1.0, 3.0])
    together = jax.jit(jax.vmap(of))(starts, rates)
    for i in range(2):
        for a, b in zip(together, of(starts[i], rates[i]), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=0, atol=rounding(20) * np.abs(b).max())


@pytest.mark.parametrize(
    ("solver", "twice"),
    [("explicit_adams", jax.hessian), ("implicit_adams", lambda f: jax.grad(jax.grad(f)))],
    ids=["forward over reverse", "reverse over reverse"],
)
def test_second_derivatives(solver, twice):
    """Against forward mode taken twice."""
    of = lambda adjoint: lambda rate: loss(Y0, TS, rate, adjoint, solver, max_steps=24)[0]
    expected = jax.jit(jax.jacfwd(jax.jacfwd(of("forward"))))(2.0)
    np.testing.assert_allclose(jax.jit(twice(of("direct")))(2.0), expected, rtol=rounding(20))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_gradient_of_a_failed_solve_is_nan(solver):
    gradient, solution = jax.grad(loss, (0, 1, 2), has_aux=True)(
        Y0, TS, jnp.array(2.0), "direct", solver, max_steps=16
    )
    assert not solution.ok
    for leaf in jax.tree.leaves(gradient):
        assert np.isnan(leaf).any()


@pytest.mark.parametrize("adjoint", ["direct", "checkpoint"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_first_and_last_times_have_a_gradient_of_high_order(solver, adjoint):
    """Weights of equal steps know nothing of an end that moves: by them it is of first order."""
    swing = lambda t, y, _: jnp.sin(3 * t) * y + jnp.cos(y)
    times = jnp.array([0.0, 1.0])

    def end(ts, solver, adjoint, **options):
        return solve(swing, jnp.array(0.4), ts, solver=solver, adjoint=adjoint, **options).ys[-1]

    true = jax.grad(end)(times, "dopri8", "adjoint", rtol=1e-10, atol=1e-10)
    coarse, fine = (
        jnp.abs(jax.grad(end)(times, solver, adjoint, step_size=h, max_steps=128) - true).max()
        for h in (0.02, 0.01)
    )
    # The start-up is of order 4: halved steps leave a sixteenth, beside terms of higher order.
    assert fine < coarse / 2**3
    assert coarse < 1e-5
