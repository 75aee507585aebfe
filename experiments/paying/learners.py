"""Models of JAX in training: the only place here that knows how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import nnx

from jax_node.learner import Learner, Loss
from jax_node.learner import NonFiniteLossError as NonFiniteLossError


def learner(model: nnx.Module, loss: Callable[[Any, Any], Any]) -> Learner:
    """Train `model` on `loss(model, batch)`, a scalar, by Adam in float32 on the CPU."""
    objective: Loss = lambda model, batch, *_: (loss(model, batch), {})
    return Learner(model, objective, precision="float32", device="cpu")
