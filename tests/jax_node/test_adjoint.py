"""The adjoint by hand, and what it says of its own backward solve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_node.adjoint import Backward
from jax_node.solve import solve


def test_one_linear_step_by_hand():
    """y' = theta y, one step h: y1 = y0 (1 + theta h); L = y1.

    Backwards, one Euler step from t1 = h: a = 1 + theta h, a_theta = h y1, and
    dL/dt1 = theta y1, dL/dt0 = -theta y1 (df/dt = 0).
    """

    def end(y0, ts, theta):
        field = lambda t, y, theta: theta * y
        options = {"solver": "euler", "adjoint": "adjoint", "step_size": 1.0}
        return solve(field, y0, ts, theta, **options).ys[-1, 0]

    y1 = 2.0 * (1 + 0.7 * 0.25)
    found, of = jax.value_and_grad(end, (0, 1, 2))(jnp.array([2.0]), jnp.array([0.0, 0.25]), 0.7)
    assert found == pytest.approx(y1)
    for ours, exact in zip(of, ([1 + 0.7 * 0.25], [-0.7 * y1, 0.7 * y1], 0.25 * y1), strict=True):
        np.testing.assert_allclose(ours, exact, rtol=1e-14)


def test_an_observation_adds_its_gradient_where_it_is_made():
    """A loss on the middle time only sees no later dynamics."""
    field = lambda t, y, theta: jnp.stack([y[1], -jnp.sin(y[0]) - theta * y[1] + jnp.cos(t)])

    def middle(y0, theta, ts):
        options = {"solver": "euler", "adjoint": "adjoint", "step_size": 0.1}
        return solve(field, y0, jnp.array(ts), theta, **options).ys[1].sum()

    gradients = [
        jax.grad(middle, (0, 1))(jnp.array([1.0, 0.2]), 0.3, ts)
        for ts in ([0.0, 0.5, 2.0], [0.0, 0.5])
    ]
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


RATE = 3.0


def reconstruction(ts, y0=(2.0, -1.0), **options):
    """Of `y' = RATE y`, from its gradient."""

    def loss(backward):
        field = lambda t, y, rate: rate * y
        y = jnp.asarray(y0)
        return solve(field, y, jnp.asarray(ts), RATE, backward=backward, **options).ys[-1].sum()

    return float(jax.jit(jax.grad(loss))(Backward.zeros()).reconstruction)


@pytest.mark.parametrize("ts", [[0.0, 1.0], [0.0, 1.0, 2.0], [1.0, 0.0]])
def test_reconstruction_of_one_step_is_what_the_polynomial_says(ts):
    """One step multiplies by R(z), R the Taylor polynomial of exp; the step back by R(-z)."""
    taylor = lambda z: 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24
    expected = abs(taylor(RATE) * taylor(-RATE) - 1)
    found = reconstruction(ts, solver="rk4", adjoint="adjoint", step_size=1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_reconstruction_falls_with_the_order_of_the_solver():
    """R(z) R(-z) = 1 + O(z^6), being even: over 1 / h steps the fifth power of h."""
    options = {"solver": "rk4", "adjoint": "adjoint"}
    coarse, fine = (reconstruction([0.0, 1.0], step_size=h, **options) for h in (1 / 16, 1 / 32))
    assert 28 < coarse / fine < 36


@pytest.mark.parametrize("adjoint", ["direct", "checkpoint"])
def test_a_gradient_through_the_steps_reconstructs_nothing(adjoint):
    assert reconstruction([0.0, 1.0], solver="rk4", adjoint=adjoint, step_size=1.0) == 0


def test_a_state_of_zero_that_stays_is_reconstructed():
    options = {"solver": "rk4", "adjoint": "adjoint", "step_size": 1.0}
    assert reconstruction([0.0, 1.0], y0=(0.0, 0.0), **options) == 0
