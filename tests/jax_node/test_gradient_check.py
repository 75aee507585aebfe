"""The comparison of gradients, on an ODE whose Lipschitz constant grows with time."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jax_node.gradient_check import gradient_check, lipschitz_constant
from jax_node.models import Output
from jax_node.solve import solve


class Growth(nnx.Module):
    """dy/dt = scale (1 + t) y, whose states at `t1` are logits."""

    def __init__(self, solver, t1):
        self.solver, self.t1, self.scale = solver, t1, nnx.Param(jnp.ones(()))

    def field(self, t, y):
        """The derivative."""
        return self.scale[...] * (1 + t) * y

    def __call__(self, y0, backward=None):
        """Logits, and the solve."""
        ts, graph = jnp.array([0, self.t1], y0.dtype), nnx.split(self)
        field = lambda t, y, weights: nnx.merge(graph[0], weights).field(t, y)
        solution = self.solver(field, y0, ts, graph[1], backward=backward)
        return Output(solution.ys[-1], solution)


@pytest.mark.usefixtures("_no_type_checks")
def test_the_lipschitz_constant_is_that_at_the_ends_of_the_trajectory():
    """At t1 = 2 it was that of t = 1."""
    options = {"solver": "rk4", "step_size": 0.25, "adjoint": "direct", "max_steps": 8}
    network = Growth(functools.partial(solve, **options), 2.0)
    parts = nnx.split(network, nnx.Param, nnx.BatchStat)
    found = gradient_check(*parts[:1], options, *parts[1:], jnp.ones((2, 3)), jnp.array([0, 1]))
    assert found["lipschitz"] == pytest.approx(3, rel=1e-12)


def test_the_lipschitz_constant_of_a_field_that_does_not_look_at_the_state_is_zero():
    assert lipschitz_constant(lambda y: jnp.ones_like(y), jnp.ones(3), jax.random.key(0)) == 0
