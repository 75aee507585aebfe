"""Train any model on any loss; torch_node/learner.py is the twin.

The state is split from the module, stepped by a pure function and put back only when the step has
proved good: `nnx.Optimizer` would have changed weights and moments in place by then, and keeps a
learning rate that here comes from outside, step by step.

All that is random in a loss (noise, probes, choice of samples) comes in with the batch or from the
number of steps made, so that a resumed run goes on with the same numbers.
"""

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int
from numpy import ndarray

from jax_node import checkpoint, sharding
from jax_node import device as devices
from jax_node.adjoint import Backward
from jax_node.checkpoint import CheckpointError as CheckpointError
from jax_node.closures import open_field, origin
from jax_node.failures import SolveError as SolveError
from jax_node.optimizer import transformation
from jax_node.solve import Solution

PRECISIONS = ("float32", "float64", "bfloat16")
KEPT = (nnx.Param, nnx.BatchStat)

Batch = Mapping[str, ndarray]
Metrics = Mapping[str, Array]


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient is NaN or infinite; the training state is as it was before."""


class Tally:
    """What a loss learns of its training step, and where it counts its solve.

    Attributes:
        steps: how many training steps were made before.
        backward: for `solve`, which accounts there for the backward pass.
        solution: the one that was counted.
    """

    def __init__(self, steps: Int[Array, ""], backward: Backward):
        self.steps, self.backward = steps, backward
        self.solution: Solution | None = None

    def count(self, solution: Solution) -> None:
        """Have the step tell the NFE of `solution` and its gradient, and fail if either did."""
        self.solution = solution._replace(ys=None)


class State(NamedTuple):
    """All that training changes: weights, optimiser state, number of steps made, and the running
    statistics of the norm `batch` (no leaves with another).
    """

    weights: nnx.State
    optimizer: optax.OptState
    steps: Int[Array, ""]
    running: nnx.State = nnx.State({})


class Made(NamedTuple):
    """What a step yields besides the new state: scalars, the same on every device."""

    metrics: dict[str, Float[Array, ""]]
    gradient_norm: Float[Array, ""]
    solution: Solution | None
    backward: Backward


# (model, batch, tally) -> (loss, metrics), all scalars. Of several devices each returns its share
# of the loss (`sharding.mean`), and metrics of the whole batch (`sharding.total`).
Loss = Callable[[Any, Mapping[str, Array], Tally], tuple[Float[Array, ""], Metrics]]


class Learner:
    """A model, a loss and an optimiser. A failed step leaves all as they were.

    Attributes:
        parameter_count: number of trainable numbers.
        device_name: where it runs, in words.
        versions: of the libraries that decide the numbers.
        state: weights, optimiser state, step count and running statistics.
    """

    def __init__(
        self,
        model: nnx.Module,
        loss: Loss,
        *,
        precision: str,
        device: str | Mesh,
        optimizer: str = "adam",
        momentum: float = 0.0,
        by_device: bool = False,
    ):
        """Train `model`, which is cast to `precision`, on `loss(model, batch, tally)`.

        `device` is a name for `device.choose`, or a mesh, whose devices share a batch that their
        number divides; with `by_device` each runs by itself (see `sharding.py`). `momentum` is that
        of sgd; adam has its authors' defaults. Raises ValueError for an unknown name.
        """
        self._mesh = sharding.make_mesh(device) if isinstance(device, str) else device
        self._whole = sharding.whole(self._mesh)
        self._dtype = dtype_of(precision)
        self._optimizer, self._by_device = transformation(optimizer, momentum), by_device
        self._advice = "" if optimizer == "adam" else ", or use `optimizer='adam'`"
        cast = lambda w: w.astype(self._dtype)
        with self._context():
            nnx.update(model, jax.tree.map(cast, nnx.state(model, KEPT)))
            self._graph, *parts = nnx.split(model, *KEPT)
            weights, running = parts
            zero = jnp.zeros((), jnp.int32)
            state = State(weights, self._optimizer.init(weights), zero, running)
            # Placed once: compiled once.
            self.state = jax.device_put(state, self._whole)
        model.eval()
        self._evaluated = nnx.graphdef(model)
        self.parameter_count = sum(w.size for w in jax.tree.leaves(weights))
        self.device_name = devices.describe(*self._mesh.devices)
        self.versions = devices.versions()
        step = functools.partial(train_step, self._graph, self._optimizer, loss)
        self._train_step = self._compile(step, (False, True, False), sharding.WHOLE)

    def train_step(self, batch: Batch, learning_rate: float) -> dict[str, float]:
        """One step of the optimiser; returns `loss` and the loss function's metrics.

        Of a solve that it counts also nfe_forward, nfe_backward, steps and rejected. Raises
        SolveError and NonFiniteLossError; all is then as it was before.
        """
        with self._context():
            rate = jnp.asarray(learning_rate, self._dtype)
            state, made = self._train_step(self.state, self._place(batch), rate)
        made = jax.device_get(made)  # here, and only here, a step waits for the device
        if made.solution is not None:
            made.solution.check()
        if made.backward.failed:
            raise SolveError(
                f"the adjoint's solve backwards in time failed after {int(made.backward.nfe)} "
                "evaluations: use `adjoint='checkpoint'`, or smaller `rtol` and `atol`"
            )
        for what, value in (("loss", made.metrics["loss"]), ("gradient", made.gradient_norm)):
            if not math.isfinite(value):
                raise NonFiniteLossError(
                    f"the {what} is not finite at training step {int(self.state.steps)} (learning "
                    f"rate {learning_rate:g}); lower `learning_rate`{self._advice}"
                )
        self.state = state
        return {name: float(value) for name, value in made.metrics.items()}

    def apply(self, function: Callable[..., Any], **arrays: ndarray) -> Any:
        """`function(model, **arrays)` with the present weights; numpy in, numpy out.

        Functions that do the same, such as a lambda in a loop, compile once.
        """

        def run(weights, running, arrays):
            with full_precision():
                return function(nnx.merge(self._evaluated, weights, running), **arrays)

        with self._context():
            inputs = self.state.weights, self.state.running, self._place(arrays)
            program, closed_over, _ = open_field(run, origin(function), *inputs)
            out = _run(program, closed_over, *inputs)
        return jax.tree.map(np.asarray, out)

    def save(self, path: Path) -> None:
        """Write the whole `state` to the new directory `path`."""
        checkpoint.write(path, named(self.state))

    def load(self, path: Path) -> None:
        """Restore what `save` wrote; training then goes on bit for bit on one device.

        Raises CheckpointError, and changes nothing, if the files are unreadable or are of another
        model, optimiser or precision.
        """
        self._load(path, "")

    def load_weights(self, path: Path) -> None:
        """Take only the weights of what `save` wrote, of a run with any optimiser.

        Raises CheckpointError, and changes nothing, if they are not of this model.
        """
        self._load(path, "model.")

    def _load(self, path: Path, prefix: str) -> None:
        """Restore the arrays whose names begin with `prefix`."""
        now, chosen = named(self.state), lambda name: name.startswith(prefix)
        found = {name: array for name, array in checkpoint.read(path).items() if chosen(name)}
        checkpoint.check(path, found, {name: like for name, like in now.items() if chosen(name)})
        leaves = [jax.device_put(found.get(name, old), self._whole) for name, old in now.items()]
        self.state = jax.tree.unflatten(jax.tree.structure(self.state), leaves)

    def _place(self, batch: Batch) -> dict[str, Array]:
        def convert(array: ndarray) -> Array:
            floating = np.issubdtype(array.dtype, np.floating)
            place = sharding.split(self._mesh, len(array)) if array.ndim else self._whole
            return jax.device_put(array.astype(self._dtype) if floating else array, place)

        return {name: convert(np.asarray(array)) for name, array in batch.items()}

    def _compile(self, function: Callable, batched: tuple[bool, ...], outputs: Any) -> Callable:
        """`function` by device, if each runs by itself; what does not, XLA partitions."""
        if self._by_device:
            function = sharding.by_device(function, self._mesh, batched, outputs)
        return jax.jit(function)

    def _context(self):
        return jax.default_device(self._mesh.devices[0])


@functools.partial(jax.jit, static_argnums=0)
def _run(program, closed_over, *inputs):
    return program(closed_over, *inputs)


def train_step(
    graph: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    state: State,
    batch: Mapping[str, Array],
    learning_rate: Float[Array, ""],
) -> tuple[State, Made]:
    """One step of `optimizer` on `loss`: a pure function."""

    def loss_of(weights, backward):
        model = nnx.merge(graph, weights, state.running, copy=True)
        tally = Tally(state.steps, backward)
        value, metrics = loss(model, batch, tally)
        return value, (metrics, tally.solution, nnx.state(model, nnx.BatchStat))

    with full_precision():
        (value, (metrics, solution, running)), (gradient, backward) = jax.value_and_grad(
            loss_of, (0, 1), has_aux=True
        )(state.weights, Backward.zeros())
    value, gradient = sharding.total((value, gradient))
    metrics = {"loss": value, **metrics}
    if solution is not None:
        metrics |= {
            "nfe_forward": solution.nfe,
            "nfe_backward": backward.nfe,
            "steps": solution.accepted,
            "rejected": solution.rejected,
            "reconstruction": backward.reconstruction,
        }
    norm = optax.tree.norm(gradient, ord=jnp.inf)  # squares may overflow where it does not
    new = updated(optimizer, state, gradient, learning_rate)._replace(running=running)
    return new, Made(metrics, norm, solution, backward)


def updated(
    optimizer: optax.GradientTransformation,
    state: State,
    gradient: nnx.State,
    learning_rate: Float[Array, ""],
) -> State:
    """The state after one step of `optimizer` against `gradient`."""
    updates, opt_state = optimizer.update(gradient, state.optimizer, state.weights)
    weights = jax.tree.map(lambda w, u: w - learning_rate * u, state.weights, updates)
    return state._replace(weights=weights, optimizer=opt_state, steps=state.steps + 1)


def dtype_of(precision: str) -> jnp.dtype:
    """The type of weights and state; 64-bit types on for float64. ValueError if unknown."""
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise ValueError(f"precision {precision!r} is unknown; choose one of {known}")
    return devices.use_precision(precision)


def named(state: State) -> dict[str, Array]:
    """Every leaf of the state by name, in the order of its leaves."""
    return {
        **checkpoint.flatten("model", state.weights),
        **checkpoint.flatten("optimizer", state.optimizer),
        "steps": state.steps,
        **checkpoint.flatten("model", state.running),
    }


def full_precision():
    """Float32 means float32: a GPU would multiply in TF32, a TPU in bfloat16."""
    return jax.default_matmul_precision("highest")
