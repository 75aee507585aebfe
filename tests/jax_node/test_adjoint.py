"""What the adjoint says of its own backward solve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_node.adjoint import Backward
from jax_node.solve import solve

RATE = 3.0


def reconstruction(ts, y0=(2.0, -1.0), **options):
    """Of `y' = RATE y`, from its gradient."""

    def loss(backward):
        field = lambda t, y, rate: rate * y
        y = jnp.asarray(y0)
        return solve(field, y, jnp.asarray(ts), RATE, backward=backward, **options).ys[-1].sum()

    return float(jax.jit(jax.grad(loss))(Backward.zeros()).reconstruction)


@pytest.mark.parametrize("ts", [[0.0, 1.0], [0.0, 1.0, 2.0], [1.0, 0.0]])
def test_of_one_rk4_step_it_is_what_the_polynomial_says(ts):
    """One step multiplies by R(z), R the Taylor polynomial of exp; the step back by R(-z)."""
    taylor = lambda z: 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24
    expected = abs(taylor(RATE) * taylor(-RATE) - 1)
    found = reconstruction(ts, solver="rk4", adjoint="adjoint", step_size=1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_it_falls_with_the_order_of_the_solver():
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
