"""How the memory of a gradient grows with the number of steps, as XLA plans it."""

import math

import jax
import jax.numpy as jnp
import pytest

from jax_node.solve import FIXED_STEP, solve

STATE = jnp.ones((1000, 16))


def states(adjoint, solver, max_steps):
    """Temporary memory of a gradient through `solve`, in states."""
    step_size = 1 / max_steps if solver in FIXED_STEP else None

    def loss(w, y0):
        field = lambda t, y, w: jnp.tanh(y @ w)
        ts = jnp.array([0.0, 1.0])
        solution = solve(
            field, y0, ts, w, solver=solver, adjoint=adjoint, step_size=step_size,
            max_steps=max_steps,
        )  # fmt: skip
        return solution.ys[-1].sum()

    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(jnp.eye(16), STATE).compile()
    return compiled.memory_analysis().temp_size_in_bytes / STATE.nbytes


def test_adjoint_takes_as_much_for_any_number_of_steps():
    few, many = (states("adjoint", "dopri5", n) for n in (10, 1000))
    assert abs(many / few - 1) < 0.05


def test_checkpoint_grows_as_the_square_root_of_the_steps():
    """Recursive checkpointing keeps m checkpoints for (m + 1) (m + 2) / 2 steps (diffrax's choice).

    A checkpoint is what a step carries on: the state, and what is saved of it so far.
    """
    few, many = (states("checkpoint", "euler", n) for n in (10, 1000))
    checkpoints = lambda n: math.ceil(-1.5 + math.sqrt(2 * n + 0.25))
    assert many - few <= 2.1 * (checkpoints(1000) - checkpoints(10))


@pytest.mark.parametrize(("solver", "kept"), [("dopri5", 1), ("implicit_adams", 2)])
def test_direct_keeps_a_state_a_step(solver, kept):
    """In states, with Adams its derivative too; 1% is for times, counters and what a step takes."""
    assert abs(states("direct", solver, 10_000) / 10_000 - kept) < 0.01 * kept
