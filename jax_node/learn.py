"""Train any model on any loss: what the applications share; torch_node/learn.py is the twin.

All that is random in a loss (noise, probes, choice of samples) comes in with the batch, so that
both frameworks see the same numbers and a resumed run goes on with them.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array

from jax_node import device as devices
from jax_node.closures import open_field, origin
from jax_node.solve import SolveError as SolveError
from jax_node.train import NonFiniteLossError as NonFiniteLossError
from jax_node.train import (
    State,
    adam,
    check_finite,
    full_precision,
    load_state,
    save_state,
    updated,
)

Batch = Mapping[str, np.ndarray]


class Learner:
    """A model, a loss and Adam. A failed step leaves all as they were.

    Attributes:
        parameter_count: number of trainable numbers.
        device_name: where it runs, in words.
        versions: of the libraries that decide the numbers.
        state: weights, optimiser state and step count.
    """

    def __init__(
        self,
        model: nnx.Module,
        loss: Callable[[Any, Mapping[str, Array]], tuple[Array, Mapping[str, Array]]],
        *,
        precision: str,
        device: str,
    ):
        """Train `model` on `loss(model, batch) -> (loss, metrics)`, both scalars."""
        self._device, self._dtype = devices.choose(device), devices.use_precision(precision)
        cast = lambda w: w.astype(self._dtype)
        nnx.update(model, jax.tree.map(cast, nnx.state(model, nnx.Param)))
        self._graph, weights = nnx.split(model, nnx.Param)
        self._optimizer = adam()
        state = State(weights, self._optimizer.init(weights), jnp.zeros((), jnp.int32))
        self.state = jax.device_put(state, self._device)
        self.parameter_count = sum(w.size for w in jax.tree.leaves(weights))
        self.device_name = devices.describe(self._device)
        self.versions = devices.versions()
        self._train_step = jax.jit(
            functools.partial(_train_step, self._graph, self._optimizer, loss)
        )

    def train_step(self, batch: Batch, learning_rate: float) -> dict[str, float]:
        """One step of Adam; returns `loss` and the loss function's metrics.

        Raises NonFiniteLossError before anything is changed.
        """
        with jax.default_device(self._device):
            rate = jnp.asarray(learning_rate, self._dtype)
            state, metrics = self._train_step(self.state, self._arrays_of(batch), rate)
        found = {name: float(value) for name, value in metrics.items()}
        norm = found.pop("gradient_norm")
        values = {"loss": found["loss"], "gradient": norm}
        check_finite(values, self.state, learning_rate, "lower `learning_rate`")
        self.state = state
        return found

    def apply(self, function: Callable[..., Any], **arrays: np.ndarray) -> Any:
        """`function(model, **arrays)` with the present weights; numpy in, numpy out.

        Functions that do the same, such as a lambda in a loop, compile once.
        """

        def run(weights, arrays):
            with full_precision():
                return function(nnx.merge(self._graph, weights), **arrays)

        with jax.default_device(self._device):
            inputs = self.state.weights, self._arrays_of(arrays)
            program, closed_over, _ = open_field(run, origin(function), *inputs)
            out = _run(program, closed_over, *inputs)
        return jax.tree.map(np.asarray, out)

    def save(self, path: Path) -> None:
        """Write weights, optimiser state and step count to the new directory `path`."""
        save_state(path, self.state)

    def load(self, path: Path) -> None:
        """Restore what `save` wrote; training then goes on bit for bit on one device.

        Raises CheckpointError, and changes nothing, if the files are not of this model.
        """
        self.state = load_state(path, self.state, self._device)

    def _arrays_of(self, batch: Batch) -> dict[str, Array]:
        def convert(array: np.ndarray) -> Array:
            floating = np.issubdtype(array.dtype, np.floating)
            return jax.device_put(array.astype(self._dtype) if floating else array, self._device)

        return {name: convert(np.asarray(array)) for name, array in batch.items()}


@functools.partial(jax.jit, static_argnums=0)
def _run(program, closed_over, *inputs):
    return program(closed_over, *inputs)


def _train_step(graph, optimizer, loss, state, batch, learning_rate):
    def loss_of(weights):
        value, metrics = loss(nnx.merge(graph, weights), batch)
        return value, {"loss": value, **metrics}

    with full_precision():
        (_, metrics), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.weights)
    metrics["gradient_norm"] = optax.tree.norm(gradient, ord=jnp.inf)
    return updated(optimizer, state, gradient, learning_rate), metrics
