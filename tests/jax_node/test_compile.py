"""What keeps compiling fast."""

import jax
import jax.numpy as jnp
import pytest

from jax_node.solve import ADJOINTS, solve


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_a_solve_can_be_cached(adjoint):
    """JAX keeps no program with a host callback in its persistent cache."""

    def loss(y0, ts):
        return solve(lambda t, y, args: -y, y0, ts, solver="dopri5", adjoint=adjoint).ys.sum()

    lowered = jax.jit(jax.grad(loss, (0, 1))).lower(jnp.ones(2), jnp.array([0.0, 0.5, 1.0]))
    assert "callback" not in lowered.as_text()
