"""The fixed grid: as many steps as the interval holds, whatever the rounding."""

import jax.numpy as jnp
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
