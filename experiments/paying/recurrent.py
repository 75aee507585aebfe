"""Recurrent baselines for irregular times that are trained as they are used: feeding on themselves.

A GRU reads an observation and the gap to the next time, and says what it expects there. Where an
entry is `free`, it reads its own expectation instead of an observation, in training as in use. With
`decay` its state also decays in the gap, each unit at a learnt rate (GRU-D: Che et al. 2018; its
decay of missing inputs is that of own expectations here).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jax_node.mlp import GRU, Linear

Times = Float[Array, "batch times"]
Values = Float[Array, "batch times channels"]


class Recurrent(nnx.Module):
    """A GRU of `hidden` units that can feed on its own expectations."""

    def __init__(self, channels: int, hidden: int, decay: bool, *, rngs: nnx.Rngs):
        self.hidden, self.decay = hidden, decay
        self.gru = GRU(2 * channels + 1, hidden, rngs=rngs)
        self.leave = Linear(hidden, channels, rngs=rngs)
        if decay:
            self.rate = Linear(1, hidden, rngs=rngs)

    def __call__(self, times: Times, values: Values, mask: Values, free: Times) -> Values:
        """What is expected at every time but the first, from what was read before it.

        Args:
            times: never decreasing; a row with fewer observations has padding in front, mask 0.
            values, mask: what was observed, and 1 where it was.
            free: 1 where the expectation is read in place of the values.
        """
        graph, weights = nnx.split(self)

        def advance(carry, entry):
            cell = nnx.merge(graph, weights)
            h, expected = carry
            x, seen, own, gap = entry
            own = own[:, None]
            x, seen = jnp.where(own > 0, expected, x), jnp.maximum(seen, own)
            new = cell.gru(h, jnp.concatenate([x * seen, seen, gap[:, None]], axis=1))
            if cell.decay:
                new = new * jnp.exp(-jax.nn.relu(cell.rate(gap[:, None])))
            h = jnp.where(seen.any(axis=1, keepdims=True), new, h)
            expected = cell.leave(h)
            return (h, expected), expected

        start = jnp.zeros((len(times), self.hidden), times.dtype), jnp.zeros_like(values[:, 0])
        entries = [jnp.moveaxis(a[:, :-1], 1, 0) for a in (values, mask)]
        _, expected = jax.lax.scan(advance, start, (*entries, free[:, :-1].T, jnp.diff(times).T))
        return jnp.moveaxis(expected, 0, 1)


def loss(model: Recurrent, batch: Any) -> Float[Array, ""]:
    """Mean squared error of every observation but the first, `free` from where the batch says."""
    mask = batch["mask"]
    expected = model(batch["times"], batch["values"], mask, batch["free"])
    foreseen = mask[:, 1:] * mask[:, :-1].any(axis=2, keepdims=True)
    error = (expected - batch["values"][:, 1:]) * foreseen
    return jnp.sum(error**2) / jnp.maximum(foreseen.sum(), 1)


def forecast(model: Recurrent, times: Times, values: Values, mask: Values, ask: Times) -> Values:
    """Expectations at times after all observations, each read for the next."""
    blank = jnp.zeros((*ask.shape, values.shape[2]), values.dtype)
    join = lambda a, b: jnp.concatenate([a, b], axis=1)
    free = join(jnp.zeros_like(times), jnp.ones_like(ask))
    found = model(join(times, ask), join(values, blank), join(mask, blank), free)
    return found[:, times.shape[1] - 1 :]
