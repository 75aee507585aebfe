"""A small Transformer for irregular times: what is asked for attends to what was observed.

Every entry is a token of its values, which of them are known, and sines and cosines of its time
from the last observation, so that what lies beyond a window is like what was trained on (times as
in mTAN: Shukla and Marlin 2021; the blocks normalise first: Xiong et al. 2020). All tokens attend
to the observed ones only, so that no answer depends on another question. It is trained as it is
used: entries that are `free` are asked for from those before them.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from experiments.paying.recurrent import Times, Values
from jax_node.mlp import Linear

HEADS, LAYERS, OCTAVES = 4, 2, 8
REACH, ROUNDS = 0.75, 2  # of the span is asked for at once, as in training; how often


class Transformer(nnx.Module):
    """Blocks of attention of the given width over windows that last `span`."""

    def __init__(self, channels: int, width: int, span: float, *, rngs: nnx.Rngs):
        self.span = span
        self.enter = Linear(2 * channels + 2 * OCTAVES, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, rngs=rngs) for _ in range(LAYERS)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.leave = Linear(width, channels, rngs=rngs)

    def __call__(self, times: Times, values: Values, mask: Values, free: Times) -> Values:
        """What is expected at every time, from the entries that are not `free`.

        Args:
            times: of all entries, in any order.
            values, mask: what was observed, and 1 where it was.
            free: 1 where an entry may not be read.
        """
        known = mask * (1 - free)[:, :, None]
        periods = 4 * self.span / 2.0 ** jnp.arange(OCTAVES, dtype=times.dtype)
        angles = 2 * jnp.pi * (times - self.last(times, mask, free))[:, :, None] / periods
        tokens = self.enter(
            jnp.concatenate([values * known, known, jnp.sin(angles), jnp.cos(angles)], axis=2)
        )
        read = known.any(axis=2)[:, None, None, :]
        for block in self.blocks:
            tokens = block(tokens, read)
        return self.leave(self.norm(tokens))

    @staticmethod
    def last(times: Times, mask: Values, free: Times) -> Float[Array, "batch 1"]:
        """The time of the last entry that may be read."""
        read = mask.any(axis=2) & (free < 1)
        return jnp.max(jnp.where(read, times, -jnp.inf), axis=1, keepdims=True)


class Block(nnx.Module):
    """Attention to what is seen, then two dense layers, each added to what it normalised."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.attend = nnx.MultiHeadAttention(HEADS, width, decode=False, rngs=rngs)
        self.widen = Linear(width, 2 * width, rngs=rngs)
        self.narrow = Linear(2 * width, width, rngs=rngs)

    def __call__(self, tokens: Values, seen: Array) -> Values:
        """Map tokens `[batch, times, width]`; `seen` `[batch, 1, 1, times]` may be attended to."""
        tokens = tokens + self.attend(self.norms[0](tokens), mask=seen)
        return tokens + self.narrow(jax.nn.gelu(self.widen(self.norms[1](tokens))))


def loss(model: Transformer, batch: Any) -> Float[Array, ""]:
    """Mean squared error of the entries that the batch has `free`."""
    asked = batch["mask"] * batch["free"][:, :, None]
    found = model(batch["times"], batch["values"], batch["mask"], batch["free"])
    return jnp.sum(((found - batch["values"]) * asked) ** 2) / jnp.maximum(asked.sum(), 1)


def forecast(model: Transformer, times: Times, values: Values, mask: Values, ask: Times) -> Values:
    """What is expected at the asked times, from all observations.

    Times further from the last observation than was trained on are asked for again when the
    answers to those before them are known.
    """
    blank = jnp.zeros((*ask.shape, values.shape[2]), values.dtype)
    join = lambda a, b: jnp.concatenate([a, b], axis=1)
    free = join(jnp.zeros_like(times), jnp.ones_like(ask))
    times, values = join(times, ask), join(values, blank)
    mask = join(mask, jnp.ones_like(blank))
    for _ in range(ROUNDS):
        found = model(times, values, mask, free)
        values = jnp.where(free[:, :, None] > 0, found, values)
        near = times - model.last(times, mask, free) <= REACH * model.span
        free = free * (1 - near)
    return values[:, -ask.shape[1] :]
