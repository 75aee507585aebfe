"""The fields that are compared: three formulas, a small network, and the MNIST models' own.

The small ones take parameters and states with any leading axes in numpy, so that complex-step
derivatives in all directions are one solve.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from crosscheck import reference, weights
from crosscheck.problem import Problem
from jax_node import blocks as jax_blocks
from torch_node import blocks as torch_blocks

# 20 observations on a grid of steps 1/16: binary fractions, so that both frameworks' step times
# are equal and no observation falls between steps.
TWENTY = np.arange(21) / 16
FIXED_STEP = 1 / 16
# One observation inside, for gradients.
THREE = np.array([0.0, 0.5, 1.25])
THREE_EQUAL = np.array([0.0, 0.5, 1.0])


def linear() -> Problem:
    """y' = y A: a rotation that shrinks. The exact gradient is in `reference`."""

    def field(t, y, params):
        return y @ params["A"]

    A = np.array([[-0.2, 2.0], [-1.5, -0.4]])
    return Problem(
        "linear", field, field, {"A": A}, np.array([[1.0, 0.5]]), TWENTY, numpy=field, operations=2
    )


def spiral() -> Problem:
    """y' = y^3 A + b sin(t): the cubic spiral of the authors' demo, driven in time."""
    params = {"A": np.array([[-0.1, 2.0], [-2.0, -0.1]]), "b": np.array([0.3, -0.2])}

    def in_jax(t, y, params):
        return y**3 @ params["A"] + params["b"] * jnp.sin(t)

    def in_torch(t, y, params):
        return y**3 @ params["A"] + params["b"] * torch.sin(t)

    def in_numpy(t, y, params):
        return y**3 @ params["A"] + params["b"][..., None, :] * np.sin(t)[..., None, None]

    y0 = np.array([[1.0, 0.2], [0.4, -0.9]])
    return Problem("spiral", in_jax, in_torch, params, y0, TWENTY, numpy=in_numpy)


def lotka_volterra() -> Problem:
    """x' = x (1.5 - y), y' = y (x - 3): hunters and prey, two trajectories."""
    params = {"growth": np.array([1.5, -3.0]), "interaction": np.array([-1.0, 1.0])}

    def field(t, y, p):
        return y * (p["growth"] + p["interaction"] * y[..., ::-1])

    def in_torch(t, y, p):
        return y * (p["growth"] + p["interaction"] * y.flip(-1))

    def in_numpy(t, y, p):
        row = lambda a: a[..., None, :]
        return y * (row(p["growth"]) + row(p["interaction"]) * y[..., ::-1])

    y0 = np.array([[1.0, 1.0], [4.0, 0.5]])
    return Problem("lotka-volterra", field, in_torch, params, y0, TWENTY, numpy=in_numpy)


def mlp() -> Problem:
    """y' = tanh(y W1 + b1 + t c1) W2 + b2, 3 - 8 - 3, four trajectories."""
    rng = np.random.default_rng(0)
    params = {
        "W1": rng.normal(size=(3, 8)),
        "b1": rng.normal(size=8),
        "c1": rng.normal(size=8),
        "W2": rng.normal(size=(8, 3)) / 2,
        "b2": rng.normal(size=3),
    }

    def in_jax(t, y, p):
        return jnp.tanh(y @ p["W1"] + p["b1"] + t * p["c1"]) @ p["W2"] + p["b2"]

    def in_torch(t, y, p):
        return torch.tanh(y @ p["W1"] + p["b1"] + t * p["c1"]) @ p["W2"] + p["b2"]

    def in_numpy(t, y, p):
        row = lambda a: a[..., None, :]
        inner = y @ p["W1"] + row(p["b1"]) + np.asarray(t)[..., None, None] * row(p["c1"])
        return np.tanh(inner) @ p["W2"] + row(p["b2"])

    return Problem("mlp", in_jax, in_torch, params, rng.normal(size=(4, 3)), TWENTY, numpy=in_numpy)


def conv(params: dict[str, np.ndarray], features: np.ndarray) -> Problem:
    """The vector field of the MNIST ODE-Net.

    Args:
        params: its weights by Flax name (`conv1.kernel`, ...).
        features: states `[batch, channels, height, width]` that a downsampling made.
    """
    graph, state = nnx.split(jax_blocks.VectorField(rngs=nnx.Rngs(0)))

    def in_jax(t, y, params):
        return nnx.merge(graph, weights.fill(state, params))(t, y)

    return Problem(
        "conv",
        in_jax,
        torch_blocks.VectorField(features.shape[1]),
        params,
        np.asarray(features, np.float64).transpose(2, 3, 0, 1),
        TWENTY,
        axes=(2, 3, 0, 1),
        numpy=reference.vector_field,
        smooth=False,  # ReLU
        operations=9 * (features.shape[1] + 1),
        stable=10,  # Winograd F(6x6, 3x3): 4e-6 in float32, plain 4e-7
    )
