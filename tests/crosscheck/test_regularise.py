"""Penalties on the MNIST field, and their gradients in every weight: JAX against torch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from crosscheck import layers, weights
from jax_node import regularise, solve
from torch_node import regularise as torch_regularise
from torch_node import solve as torch_solve

RK4 = {"solver": "rk4", "step_size": 0.5, "adjoint": "direct", "max_steps": 4}


def test_penalties_and_gradients_agree():
    flax, twin = layers.twins("odenet", None, "float64")
    rng = np.random.default_rng(0)
    y0 = rng.normal(size=(2, 64, 6, 6))
    probe = rng.choice([-1.0, 1.0], size=y0.shape)

    theirs, penalties = torch_regularise.solve_penalised(
        functools.partial(torch_solve.solve, **RK4),
        twin.field,
        torch.tensor(y0),
        torch.tensor([0.0, 1.0], dtype=torch.float64),
        probe=torch.tensor(probe),
    )
    (penalties["kinetic"] + penalties["jacobian"]).backward()
    graph, state = nnx.split(flax.field, nnx.Param)
    to_jax = lambda array: jnp.asarray(array.transpose(2, 3, 0, 1))

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def ours(state):
        solution, found = regularise.solve_penalised(
            functools.partial(solve.solve, **RK4),
            lambda t, y, state: nnx.merge(graph, state)(t, y),
            to_jax(y0),
            jnp.array([0.0, 1.0]),
            state,
            probe=to_jax(probe),
        )
        return found["kinetic"] + found["jacobian"], (found, solution.ys)

    (_, (found, ys)), gradients = ours(state)
    np.testing.assert_allclose(ys[-1].transpose(2, 3, 0, 1), theirs.ys[-1].detach(), atol=1e-10)
    # Sums over 576 numbers in some 30 layers, whose errors the second derivatives enlarge:
    # 1e4 sqrt(576) eps.
    bound = 1e4 * np.sqrt(576) * np.finfo(float).eps
    for name in ("kinetic", "jacobian"):
        np.testing.assert_allclose(found[name], penalties[name].item(), rtol=bound)
    expected = weights.to_jax({n: p.grad.numpy() for n, p in twin.field.named_parameters()})
    nnx.update(flax.field, gradients)
    for name, gradient in weights.of_jax(flax.field).items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(gradient, expected[name], atol=bound * scale, err_msg=name)
