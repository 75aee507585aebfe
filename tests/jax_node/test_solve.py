"""Every solver and every gradient on a problem with a known solution, in float64."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_node.adjoint import Backward
from jax_node.solve import FIXED_STEP, SOLVERS, SolveError, check, solve

Y0 = 0.1
ORDERS = {"euler": 1, "midpoint": 2, "rk4": 4}
ADAPTIVE = tuple(name for name in SOLVERS if name not in FIXED_STEP)


def logistic(t, y, rate):
    """y' = rate y (1 - y) cos t: nonlinear, and explicit in time."""
    return rate * y * (1 - y) * jnp.cos(t)


def exact(t, rate=2.0):
    return 1 / (1 + (1 / Y0 - 1) * jnp.exp(-rate * jnp.sin(t)))


def run(solver, ts=(0.0, 2.0), field=logistic, **options):
    return solve(field, jnp.array([Y0]), jnp.array(ts), jnp.array(2.0), solver=solver, **options)


@pytest.mark.parametrize("solver", [s for s in FIXED_STEP if s in ORDERS])
def test_observed_order(solver):
    errors = [
        abs(float(run(solver, step_size=2 / n).check().ys[-1, 0] - exact(2.0))) for n in (80, 160)
    ]
    # error = C h^p (1 + O(h)): over a halving the slope is p + O(h), here within 0.3 at h = 1/40.
    assert abs(math.log2(errors[0] / errors[1]) - ORDERS[solver]) < 0.3


@pytest.mark.parametrize("solver", ADAPTIVE)
def test_error_follows_tolerance(solver):
    tolerances = np.array([1e-5, 1e-8])
    errors = [
        float(jnp.abs(run(solver, rtol=tol, atol=tol).check().ys[-1, 0] - exact(2.0)))
        for tol in tolerances
    ]
    # Local errors are held below tol; over a few dozen stable steps they add up to at most 30 tol.
    assert np.all(errors < 30 * tolerances)


@pytest.mark.parametrize("solver", SOLVERS)
def test_nfe_are_those_really_made(solver):
    calls = []

    def counting(t, y, rate):
        count = lambda y: (calls.append(1), np.zeros_like(y))[1]
        return logistic(t, y, rate) + jax.pure_callback(count, y, y)

    step_size = 0.25 if solver in FIXED_STEP else None
    solution = run(solver, field=counting, step_size=step_size, rtol=1e-4, atol=1e-4).check()
    assert int(solution.nfe) == len(calls)


@pytest.mark.parametrize(
    ("solver", "adjoint"),
    [
        ("dopri5", "direct"),
        ("dopri5", "adjoint"),
        ("rk4", "direct"),
        ("rk4", "adjoint"),
        ("explicit_adams", "direct"),
        ("implicit_adams", "direct"),
    ],
)
def test_backward_nfe_are_those_really_made(solver, adjoint):
    calls = []

    def counting(t, y, rate):
        jax.debug.callback(lambda: calls.append(1))
        return logistic(t, y, rate)

    def loss(rate, backward):
        solution = solve(
            counting, jnp.array([Y0]), jnp.array([0.0, 1.0, 2.0]), rate, solver=solver,
            adjoint=adjoint, step_size=0.25 if solver in FIXED_STEP else None, backward=backward,
            max_steps=64,
        )  # fmt: skip
        return jnp.sum(solution.ys**2), solution.nfe

    gradient = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    (_, backward), forward = gradient(jnp.array(2.0), Backward.zeros())
    jax.effects_barrier()
    assert int(backward.nfe) == len(calls) - int(forward)


# `checkpoint` is `direct` but for rounding (below), and held to closed forms in test_solvers.py.
@pytest.mark.parametrize(
    ("solver", "adjoint"),
    [("tsit5", "direct"), *itertools.product(("dopri5", "rk4", "euler"), ("direct", "adjoint"))],
)
def test_gradients_in_everything(solver, adjoint):
    """For y0, all times and the parameter: they converge to those of the known solution."""
    coarse = {"euler": 0.02, "rk4": 0.1}.get(solver)

    def loss(y0, ts, rate, control):
        by = {"step_size": control} if coarse else {"rtol": control, "atol": control}
        options = {"solver": solver, "adjoint": adjoint, "max_steps": 1024, **by}
        return weigh(solve(logistic, y0, ts, rate, **options).ys)

    def exact_loss(y0, ts, rate):
        start = (1 / y0 - 1) * jnp.exp(rate * jnp.sin(ts[0]))
        return weigh(1 / (1 + start[None] * jnp.exp(-rate * jnp.sin(ts[:, None]))))

    weigh = lambda ys: jnp.sum(ys[:, 0] ** 2 * jnp.arange(1.0, 5.0))
    gradient = jax.jit(jax.grad(loss, (0, 1, 2)))
    # Errors of y0 and the rate go as h^p, or as the tolerance. d/dt is that of the interpolant, for
    # `direct` and `checkpoint`: order 1 for Euler's line, 2 for the cubic through rk4's stages, and
    # for dopri5 and tsit5 h^4 with h^5 = tol. 0.3 for terms after the leading one, and for errors
    # that change sign on the way from one tolerance to the next (the larger of the two errors).
    controls = [coarse / 2**k for k in range(3)] if coarse else [10.0**-k for k in range(3, 11)]
    for backwards in {"dopri5": (False, True), "rk4": (True,)}.get(solver, (False,)):
        ts = jnp.array([2.0, 1.3, 0.4, 0.0] if backwards else [0.0, 0.4, 1.3, 2.0])
        at = jnp.array([0.4 if backwards else Y0]), ts, jnp.array(2.0)
        exact = jax.grad(exact_loss, (0, 1, 2))(*at)
        errors = []
        for control in controls:
            found = gradient(*at, control)
            of_y0, of_times, of_rate = (
                float(jnp.max(jnp.abs(a - b))) for a, b in zip(found, exact, strict=True)
            )
            errors.append((max(of_y0, of_rate), of_times))
        of_state, of_times = np.polyfit(np.log(controls), np.log(errors), 1)[0]
        assert of_state > (ORDERS[solver] if coarse else 1) - 0.3
        assert of_times > {"euler": 1, "rk4": 2}.get(solver, 4 / 5) - 0.3


@pytest.mark.parametrize("solver", ["dopri5", "euler"])
def test_direct_and_checkpoint_are_the_same_gradient(solver):
    """Both differentiate the same discretisation, so they differ by rounding only."""
    ts = jnp.array([0.0, 0.37, 1.1, 2.0])
    step_size = 0.3 if solver in FIXED_STEP else None

    def loss(y0, ts, rate, adjoint):
        options = {"step_size": step_size, "max_steps": 64, "adjoint": adjoint}
        return jnp.sum(jnp.sin(3 * solve(logistic, y0, ts, rate, solver=solver, **options).ys))

    at = jnp.array([Y0, 0.3]), ts, jnp.array(2.0)
    gradient = jax.jit(jax.grad(loss, (0, 1, 2)), static_argnums=3)
    for a, b in zip(gradient(*at, "direct"), gradient(*at, "checkpoint"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


def test_any_pytree_and_dtype():
    field = lambda t, y, args: {"a": -y["a"], "b": y["a"][0] * y["b"]}
    y0 = {"a": jnp.ones(2, jnp.float32), "b": jnp.ones((2, 3), jnp.float32)}
    solution = solve(field, y0, jnp.array([0.0, 1.0]), solver="tsit5").check()
    assert solution.ys["b"].shape == (2, 2, 3)
    assert solution.ys["a"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("field", "why"),
    [
        (lambda t, y, _: y**2 * 100, "blows up at t = 0.1"),
        (lambda t, y, _: y + jnp.where(t > 0.5, jnp.nan, 0.0), "not a number after t = 0.5"),
        (lambda t, y, _: -1e9 * (y - jnp.cos(t)), "stiff"),
    ],
)
def test_a_failed_solve_says_where(field, why):
    with pytest.raises(SolveError, match=r"stopped at t = .* steps .* NFE .*"):
        run("dopri5", field=field, max_steps=200).check()


def test_names_and_step_sizes_are_checked():
    with pytest.raises(ValueError, match="dopri5, dopri8, tsit5"):
        check("rk45", "direct", None)
    with pytest.raises(ValueError, match="checkpoint, direct, adjoint"):
        check("dopri5", "backprop", None)
    with pytest.raises(ValueError, match="as `step_size`"):
        check("euler", "direct", None)
    with pytest.raises(ValueError, match="leave out `step_size`"):
        check("dopri5", "direct", 0.1)
