"""The fixed grid: as many steps as the interval holds, whatever the rounding."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_node.solve import solve


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0), (5.0, 6.0)])
def test_no_step_is_made_of_rounding(ends):
    """In float32, 1 - 100 * 0.01 is not 0; that is no reason for a step of 1e-8."""
    field = lambda t, y, args: -y
    ts, y0 = jnp.array(ends, jnp.float32), jnp.ones(1, jnp.float32)
    solution = solve(field, y0, ts, solver="euler", step_size=0.01, max_steps=200)
    assert solution.ok
    assert int(solution.accepted) == 100
    assert float(solution.t) == ends[1]


@pytest.mark.parametrize("adjoint", ["checkpoint", "direct"])
@pytest.mark.parametrize(
    ("solver", "step_size"),
    [("euler", 1.0), ("rk4", 1.0), ("rk4", 0.25), ("explicit_adams", 1.0), ("dopri5", None)],
)
def test_a_step_that_ends_at_t1_moves_with_it_whole(solver, step_size, adjoint):
    """Shifting all times moves nothing, so dL/dt1 = -dL/dt0; and h is the difference of both."""
    ts = jnp.array([0.0, 1.0 if step_size else 2e-4])
    end = lambda ts: solve(
        lambda t, y, args: -0.7 * y, jnp.ones(1), ts, solver=solver, step_size=step_size,
        adjoint=adjoint,
    ).ys[-1, 0]  # fmt: skip
    gradient = np.asarray(jax.grad(end)(ts))
    assert gradient[1] == pytest.approx(-gradient[0], rel=1e-12)
    if step_size in (1.0, None):  # one step: y1 = R(z), z = -0.7 h
        power = 1 if solver == "euler" else 5 if solver == "dopri5" else 4
        z = -0.7 * float(ts[1])
        slope = sum(z ** (k - 1) / math.factorial(k - 1) for k in range(1, power + 1))
        # dopri5's sixth power is z^6 / 600 and not there at 1e-4
        assert gradient[1] == pytest.approx(-0.7 * slope, rel=1e-12)
