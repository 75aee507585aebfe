"""Optimisers by name, without a learning rate: that comes from outside, step by step."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

OPTIMIZERS = ("sgd", "adam")


def transformation(optimizer: str, momentum: float = 0.0) -> optax.GradientTransformation:
    """Plain SGD or with `momentum`, or Adam with its authors' defaults; ValueError for another."""
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer {optimizer!r} is unknown; choose one of sgd, adam")
    if optimizer == "sgd":
        return optax.trace(momentum) if momentum else optax.identity()
    plain = optax.scale_by_adam()

    def clipped(g: Array) -> Array:
        # Of a larger one adam would keep an infinite square, and stand still.
        largest = jnp.finfo(g.dtype).max ** 0.5 / 2
        return jnp.clip(g, -largest, largest)

    def update(gradient, state, weights=None):
        with jax.numpy_dtype_promotion("standard"):  # optax promotes its count of steps
            return plain.update(jax.tree.map(clipped, gradient), state, weights)

    return optax.GradientTransformation(plain.init, update)
