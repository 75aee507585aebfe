"""Derivatives of solves: which there are, of what, how often; and NaN where a solve failed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_node.solve import ADJOINTS, solve

OPTIONS = {"solver": "dopri5", "rtol": 1e-7, "atol": 1e-7, "max_steps": 16}


def end(y0, a, adjoint, **options):
    """y' = -a y^2 from 0 to 1: y0 / (1 + a y0)."""
    field = lambda t, y, a: -a * y**2
    return solve(field, y0, [0.0, 1.0], a, adjoint=adjoint, **OPTIONS | options).ys[-1]


def exact(y0, a):
    return y0 / (1 + a * y0)


@pytest.mark.parametrize("adjoint", ["direct", "adjoint"])
def test_second_derivatives(adjoint):
    """Forward over reverse, and reverse over reverse, with respect to both."""
    loss = lambda y0, a: end(y0, a, adjoint)
    squared = lambda f: lambda a: jax.grad(f)(1.0, a) ** 2
    # Errors of derivatives are of the order of the tolerance, 1e-7; times some dozen steps.
    np.testing.assert_allclose(
        jax.jit(jax.hessian(loss, (0, 1)))(1.0, 1.0),
        jax.hessian(exact, (0, 1))(1.0, 1.0),
        atol=3e-6,
    )
    np.testing.assert_allclose(
        jax.grad(squared(loss))(1.0), jax.grad(squared(exact))(1.0), atol=3e-6
    )


def test_forward_mode_as_often_as_wanted():
    f, g = (lambda y0: end(y0, 1.0, "forward")), (lambda y0: exact(y0, 1.0))
    np.testing.assert_allclose(jax.jacfwd(f)(1.0), jax.jacfwd(g)(1.0), atol=3e-6)
    twice = jax.jacfwd(jax.jacfwd(f))(1.0)
    np.testing.assert_allclose(twice, jax.jacfwd(jax.jacfwd(g))(1.0), atol=3e-6)


@pytest.mark.parametrize("adjoint", ADJOINTS)
@pytest.mark.parametrize("order", [lambda f: f, jax.jit])
def test_what_there_is_not_is_said_in_a_sentence(adjoint, order):
    f = order(lambda y0: end(y0, 1.0, adjoint))
    with pytest.raises(TypeError, match=r"reverse mode .*use `adjoint='forward'`"):
        jax.jacfwd(f)(1.0)


@pytest.mark.parametrize("twice", [jax.hessian, lambda f: jax.grad(jax.grad(f))])
def test_checkpoint_is_differentiated_once(twice):
    with pytest.raises(TypeError, match="differentiated once: .*`adjoint='direct'`"):
        twice(lambda y0: end(y0, 1.0, "checkpoint"))(1.0)


@pytest.mark.parametrize("solver", ["explicit_adams", "implicit_adams"])
def test_where_an_end_of_adams_steps_moves_the_state_does_by_its_slope(solver):
    """Which does not bend: y''(1) was that of a line, without a word."""
    how = {"solver": solver, "step_size": 0.25, "rtol": 1e-9, "atol": 1e-9}

    def at(t1, y0, adjoint):
        return solve(
            lambda t, y, _: -(y**2), y0, jnp.stack([0.0 * t1, t1]), adjoint=adjoint, **how
        ).ys[-1]

    message = rf"by `ts` through the steps of {solver} is not .*`adjoint='adjoint'`"
    with pytest.raises(TypeError, match=message):
        jax.grad(jax.grad(at))(1.0, 1.0, "direct")
    with pytest.raises(TypeError, match=message):
        jax.jacfwd(jax.jacfwd(at))(1.0, 1.0, "forward")
    if solver == "explicit_adams":  # whose steps are too long to be stable
        return
    # -y(1)^2 by y0: the start-up's error is of the order of 0.25^4.
    mixed = jax.jacfwd(jax.jacfwd(at), 1)(1.0, 1.0, "forward")
    assert mixed == pytest.approx(jax.grad(lambda y0: -(exact(y0, 1.0) ** 2))(1.0), abs=0.25**4)


def test_forward_has_no_reverse():
    with pytest.raises(Exception, match="use one of checkpoint, direct, adjoint"):
        jax.grad(lambda y0: end(y0, 1.0, "forward"))(1.0)


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_a_gradient_of_a_failed_solve_is_nan(adjoint):
    loss = lambda y0, a: end(y0, a, adjoint, rtol=1e-13, atol=1e-13, max_steps=64)
    assert np.isnan(jax.grad(loss, (0, 1))(1.0, 1.0)).all()


def test_a_gradient_whose_backward_solve_fails_is_nan():
    """From a small state the way forwards takes 8 steps, and back, with an adjoint of 1, 15."""

    def loss(a, max_steps):
        field = lambda t, y, a: -a * y
        options = {"rtol": 1e-6, "atol": 1e-6, "max_steps": max_steps, "adjoint": "adjoint"}
        solution = solve(field, jnp.array([0.01]), [0.0, 1.0], a, solver="dopri5", **options)
        return solution.ys[-1, 0], solution.ok

    gradient, ok = jax.grad(loss, has_aux=True)(5.0, 12)
    assert ok
    assert np.isnan(gradient)
    gradient, ok = jax.grad(loss, has_aux=True)(5.0, 256)
    np.testing.assert_allclose(gradient, -0.01 * np.exp(-5), atol=1e-6)


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_atol_0_where_a_gradient_starts_at_0(adjoint):
    found = jax.grad(lambda y0, a: end(y0, a, adjoint, atol=0.0, max_steps=64), (0, 1))(1.0, 0.5)
    np.testing.assert_allclose(found, jax.grad(exact, (0, 1))(1.0, 0.5), rtol=1e-5)


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_what_is_no_float_is_passed_on_and_what_is_closed_over_is_differentiated(adjoint):
    closed_over = lambda w, order: solve(
        lambda t, y, args: args["bend"](-w * y[order] * args["times"]),
        jnp.ones(2), [0.0, 1.0],
        {"bend": jnp.asinh, "times": 2, "order": order, "key": jax.random.key(0)},
        adjoint=adjoint, **OPTIONS,
    ).ys[-1].sum()  # fmt: skip
    reference = lambda w: solve(
        lambda t, y, w: jnp.asinh(-2 * w * y), jnp.ones(2), [0.0, 1.0], w,
        adjoint="forward", **OPTIONS,
    ).ys[-1].sum()  # fmt: skip
    expected = jax.jacfwd(reference)(1.0)
    for program in (closed_over, jax.jit(closed_over)):
        found = jax.grad(program)(1.0, jnp.array([1, 0]))
        np.testing.assert_allclose(found, expected, atol=3e-6)


def test_an_eager_solve_compiles_once():
    """In a loop: other values, other tolerances, another lambda that does the same."""
    with jax.log_compiles(False):
        traces = []

        def once(i):
            field = lambda t, y, a: (traces.append(1), -a * y)[1]
            options = {"solver": "dopri5", "rtol": 10.0**-i, "atol": 1e-8, "adjoint": "adjoint"}
            end = lambda a: solve(field, float(i), [0.0, 1.0], a, **options).ys[-1]
            return end(1.0), jax.grad(end)(1.0)

        once(3)
        of_first = len(traces)
        compiled = solve_cache_size()
        for i in range(4, 7):
            value, gradient = once(i)
            np.testing.assert_allclose([value, -gradient], i * np.exp(-1.0), rtol=10.0 ** (2 - i))
        assert solve_cache_size() == compiled
        assert (
            len(traces) - of_first == 3 * 2
        )  # looked at at every call, to see what it closes over


def solve_cache_size():
    from jax_node.solve import _solve

    return _solve._cache_size()


def test_what_a_field_closes_over_is_never_stale():
    rate = 1.0
    field = lambda t, y, _: -rate * y
    assert solve(field, 1.0, [0.0, 1.0], **OPTIONS).ys[-1] == pytest.approx(np.exp(-1), rel=1e-5)
    rate = 2.0
    assert solve(field, 1.0, [0.0, 1.0], **OPTIONS).ys[-1] == pytest.approx(np.exp(-2), rel=1e-5)
