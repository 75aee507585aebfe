"""One interface to train, evaluate, save and load a model; torch_node/train.py is its twin."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Integer, UInt8

from jax_node import checkpoint, sharding
from jax_node import device as devices
from jax_node.adjoint import Backward
from jax_node.checkpoint import CheckpointError as CheckpointError
from jax_node.gradient_check import gradient_check
from jax_node.models import Output, as_images, build, parameter_count
from jax_node.regularise import Regulariser, regulariser
from jax_node.solve import Solution, SolveError, check, solve, splits_batch

OPTIMIZERS = ("sgd", "adam")
PRECISIONS = ("float32", "float64", "bfloat16")

Pixels = UInt8[np.ndarray, "batch 28 28 1"]
Labels = Integer[np.ndarray, " batch"]


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient is NaN or infinite; the training state is as it was before."""


class State(NamedTuple):
    """All that training changes: weights, optimiser state, number of steps made, and the running
    statistics of the norm `batch` (no leaves with another).
    """

    weights: nnx.State
    optimizer: optax.OptState
    steps: Int[Array, ""]
    running: nnx.State = nnx.State({})


class Result(NamedTuple):
    """What one batch yields besides the new state."""

    loss: Float[Array, ""]
    correct: Int[Array, ""]
    gradient_norm: Float[Array, ""]
    backward: Backward
    solution: Solution | None
    penalties: dict[str, Float[Array, ""]]


class Trajectory(NamedTuple):
    """States of an ODE-Net on the way, the logits its head gives them, and the NFE of the solve."""

    states: Float[np.ndarray, "times batch height width channels"]
    logits: Float[np.ndarray, "times batch 10"]
    nfe: int


class Learner:
    """A model and its optimiser. A failed step leaves both as they were.

    Attributes:
        parameter_count: number of trainable numbers.
        device_name: where it runs, in words.
        versions: of the libraries that decide the numbers.
        state: weights, optimiser state, step count and running statistics.
    """

    def __init__(
        self,
        *,
        model: str,
        final_relu: bool,
        downsampling: str,
        solver: str | None,
        adjoint: str | None,
        rtol: float,
        atol: float,
        step_size: float | None,
        max_steps: int,
        optimizer: str,
        momentum: float,
        seed: int,
        precision: str,
        device: str,
        n_devices: int = 1,
        t1: float = 1.0,
        norm: str = "group",
        kinetic_weight: float = 0.0,
        jacobian_weight: float = 0.0,
    ):
        """Build `model` (see `models.build`) with weights drawn from `seed`.

        `momentum` is that of sgd; adam has its authors' defaults. Weights are drawn in float32, so
        both precisions start from the same numbers. A batch is split over `n_devices` if their
        number divides it (see `sharding.py`). The weights of `regularise.py`'s penalties count in
        training only. Raises ValueError for an unknown name, or a penalty without an ODE.
        """
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer {optimizer!r} is unknown; choose one of sgd, adam")
        if precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise ValueError(f"precision {precision!r} is unknown; choose one of {known}")
        self._mesh = sharding.make_mesh(device, n_devices)
        self._dtype = devices.use_precision(precision)
        integrate = None
        options: dict[str, Any] = {}
        if solver is not None and adjoint is not None:
            check(solver, adjoint, step_size)
            options = {
                "solver": solver,
                "adjoint": adjoint,
                "rtol": rtol,
                "atol": atol,
                "step_size": step_size,
                "max_steps": max_steps,
            }
            integrate = functools.partial(solve, **options)
        elif kinetic_weight or jacobian_weight:
            raise ValueError(f"{model} solves no ODE whose dynamics could be penalised")
        self._optimizer = (
            optax.trace(momentum) if optimizer == "sgd" and momentum else optax.identity()
        )
        if optimizer == "adam":
            self._optimizer = adam()
        with self._context():
            network = build(
                model,
                solver=integrate,
                t1=t1,
                final_relu=final_relu,
                downsampling=downsampling,
                norm=norm,
                seed=seed,
                dtype=self._dtype,
                low_precision=precision == "bfloat16",
            )
            graph, *parts = nnx.split(network, nnx.Param, nnx.BatchStat)
            weights, running = parts
            zero = jnp.zeros((), jnp.int32)
            state = State(weights, self._optimizer.init(weights), zero, running)
            # Placed once: compiled once.
            self.state = jax.device_put(state, sharding.whole(self._mesh))
        self._by_adjoint = adjoint == "adjoint"
        self.parameter_count = parameter_count(network)
        self.device_name = devices.describe(*self._mesh.devices)
        self.versions = devices.versions()
        penalties = regulariser(kinetic_weight, jacobian_weight, seed)
        step: Callable = functools.partial(
            train_step, graph, self._optimizer, regulariser=penalties
        )
        network.eval()
        evaluated = nnx.graphdef(network)
        evaluation: Callable = functools.partial(forward, evaluated)
        # What is not run by device, XLA partitions.
        if _runs_by_device(solver, adjoint, penalties is not None):
            states = P(None, None, None, sharding.AXIS)
            others = [P()] * (len(Solution._fields) - 1)
            solved = P() if integrate is None else Solution._make([states, *others])
            result = Result._make([P(), P(), P(), P(), solved, P()])
            step = sharding.by_device(step, self._mesh, (False, True, True, False), (P(), result))
            output = Output._make([P(sharding.AXIS), solved, P()])
            evaluation = sharding.by_device(evaluation, self._mesh, (False, False, True), output)
        self._train_step = jax.jit(step)
        self._forward = jax.jit(evaluation)
        self._trajectory = jax.jit(functools.partial(trajectory, evaluated))
        self._gradient_check = jax.jit(functools.partial(gradient_check, graph, options))

    def train_step(self, images: Pixels, labels: Labels, learning_rate: float) -> dict[str, float]:
        """One optimiser step on the mean cross-entropy of a batch, plus penalties if weighted.

        Returns loss (the cross-entropy), accuracy (0 to 1), nfe_forward, nfe_backward, and steps
        and rejected of the forward solve; the last four are 0 for a ResNet. By `adjoint` also
        reconstruction (see `adjoint.Backward`), with penalties kinetic, and jacobian if it has a
        weight, both unweighted. Raises SolveError and
        NonFiniteLossError before anything is changed.
        """
        with self._context():
            state, result = self._train_step(
                self.state,
                self._images(images),
                self._place(labels),
                jnp.asarray(learning_rate, self._dtype),
            )
        if result.solution is not None:
            result.solution.check()
            if result.backward.failed:
                nfe = int(result.backward.nfe)
                raise SolveError(
                    f"the adjoint's solve backwards in time failed after {nfe} evaluations: "
                    "use `adjoint='checkpoint'`, or smaller `rtol` and `atol`"
                )
        check_finite(
            {"loss": result.loss, "gradient": result.gradient_norm},
            self.state,
            learning_rate,
            "lower `learning_rate`, or use `optimizer='adam'`",
        )
        self.state = state
        return {
            "loss": float(result.loss),
            "accuracy": int(result.correct) / len(labels),
            **_statistics(result.solution, result.backward),
            **self._reconstruction(result.backward),
            **{name: float(value) for name, value in result.penalties.items()},
        }

    def evaluate(self, images: Pixels, labels: Labels) -> dict[str, float]:
        """Mean loss, number of errors and the solve's statistics for one batch of any size."""
        output = self._evaluate(images)
        logits = output.logits
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels)).mean()
        return {
            "loss": float(loss),
            "errors": float(np.sum(np.argmax(logits, 1) != labels)),
            **_statistics(output.solution, Backward.zeros()),
        }

    def predict(self, images: Pixels) -> Float[np.ndarray, "batch 10"]:
        """Logits."""
        return np.asarray(self._evaluate(images).logits)

    def trajectory(self, images: Pixels, times: Sequence[float]) -> Trajectory:
        """The ODE's state at `times` (from 0, increasing); no ResNet has one."""
        with self._context():
            solution, logits = self._trajectory(
                self.state.weights,
                self.state.running,
                self._images(images),
                jnp.asarray(times, self._dtype),
            )
        solution.check()
        states = np.asarray(solution.ys).transpose(0, 3, 1, 2, 4)
        return Trajectory(states, np.asarray(logits), int(solution.nfe))

    def check_gradient(self, images: Pixels, labels: Labels) -> dict[str, float]:
        """How far the ODE-Net's gradient is from the others: see `gradient_check`."""
        with self._context(), full_precision():
            found = self._gradient_check(
                self.state.weights,
                self.state.running,
                self._images(images),
                self._place(labels),
            )
        return {name: float(value) for name, value in found.items()}

    def save(self, path: Path) -> None:
        """Write the whole `state` to the new directory `path`."""
        save_state(path, self.state)

    def load(self, path: Path) -> None:
        """Restore what `save` wrote; training then goes on bit for bit on one device.

        Raises CheckpointError, and changes nothing, if the files are unreadable or are of another
        model, optimiser or precision.
        """
        self.state = load_state(path, self.state, sharding.whole(self._mesh))

    def load_weights(self, path: Path) -> None:
        """Take only the weights of what `save` wrote, of a run with any optimiser.

        Raises CheckpointError, and changes nothing, if they are not of this model.
        """
        self.state = load_weights(path, self.state, sharding.whole(self._mesh))

    def _reconstruction(self, backward: Backward) -> dict[str, float]:
        """How well the adjoint came back to where the solve began, if there is an adjoint."""
        return {"reconstruction": float(backward.reconstruction)} if self._by_adjoint else {}

    def _evaluate(self, images: Pixels) -> Output:
        with self._context():
            state = self.state
            output = self._forward(state.weights, state.running, self._images(images))
        if output.solution is not None:
            output.solution.check()
        return output

    def _images(self, images: Pixels) -> Any:
        return as_images(self._place(images), self._dtype)

    def _place(self, batch: np.ndarray) -> Array:
        return jax.device_put(batch, sharding.split(self._mesh, len(batch)))

    def _context(self):
        return jax.default_device(self._mesh.devices[0])


def _runs_by_device(solver: str | None, adjoint: str | None, penalised: bool) -> bool:
    """Whether devices share a batch each by itself. Probes are drawn for the whole batch."""
    return splits_batch(solver, adjoint) and not penalised


def default_devices(
    batch_size: int,
    cores: int,
    *,
    solver: str | None,
    adjoint: str | None,
    device: str,
    kinetic_weight: float,
    jacobian_weight: float,
    **others: Any,
) -> int:
    """How many devices a `Learner` with these arguments had best share a batch among.

    More than one pay only where each runs by itself; the CPU is divided into its free `cores` then,
    if JAX has not been used before. Raises ValueError if there is no such device.
    """
    del others
    alone = _runs_by_device(solver, adjoint, bool(kinetic_weight or jacobian_weight))
    if not alone:
        return 1
    if device in ("auto", "cpu"):
        sharding.divide_processor(cores)
    return sharding.default_count(device, batch_size)


def forward(graph: nnx.GraphDef, weights: nnx.State, running: nnx.State, images: Array) -> Output:
    """The model's output for images with values in [0, 1]."""
    with full_precision():
        return nnx.merge(graph, weights, running)(images)


def trajectory(
    graph: nnx.GraphDef, weights: nnx.State, running: nnx.State, images: Array, times: Array
) -> tuple[Solution, Array]:
    """`models.ODENet.trajectory` for images with values in [0, 1]."""
    with full_precision():
        return nnx.merge(graph, weights, running).trajectory(images, times)


def train_step(
    graph: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    state: State,
    images: Float[Array, "batch height width channels"],
    labels: Integer[Array, " batch"],
    learning_rate: Float[Array, ""],
    regulariser: Regulariser | None = None,
) -> tuple[State, Result]:
    """One step of `optimizer` on the mean cross-entropy and any penalties: a pure function."""
    options = regulariser.options(state.steps) if regulariser else {}

    def loss_of(weights, backward):
        model = nnx.merge(graph, weights, state.running, copy=True)
        output = model(images, backward, **options)
        losses = optax.softmax_cross_entropy_with_integer_labels(output.logits, labels)
        loss = losses.sum() / (len(labels) * sharding.count())
        total = loss + regulariser.cost(output.penalties) if regulariser else loss
        return total, (loss, output, nnx.state(model, nnx.BatchStat))

    with full_precision():
        (_, (loss, output, running)), (gradient, backward) = jax.value_and_grad(
            loss_of, (0, 1), has_aux=True
        )(state.weights, Backward.zeros())
    correct = jnp.sum(jnp.argmax(output.logits, 1) == labels)
    loss, correct, gradient = sharding.total((loss, correct, gradient))
    norm = optax.tree.norm(gradient, ord=jnp.inf)  # squares may overflow where it does not
    result = Result(loss, correct, norm, backward, output.solution, output.penalties)
    return updated(optimizer, state, gradient, learning_rate)._replace(running=running), result


def adam() -> optax.GradientTransformation:
    """optax's, which would keep an infinite square of a finite gradient, and stand still."""
    plain = optax.scale_by_adam()

    def clipped(g: Array) -> Array:
        largest = jnp.finfo(g.dtype).max ** 0.5 / 2
        return jnp.clip(g, -largest, largest)

    def update(gradient, state, weights=None):
        return plain.update(jax.tree.map(clipped, gradient), state, weights)

    return optax.GradientTransformation(plain.init, update)


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


def check_finite(
    values: Mapping[str, Float[Array, ""] | float], state: State, learning_rate: float, advice: str
) -> None:
    """Raise NonFiniteLossError, ending in `advice`, naming the first of `values` not finite."""
    for what, value in values.items():
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"the {what} is not finite at training step {int(state.steps)} (learning rate "
                f"{learning_rate:g}); {advice}"
            )


def named(state: State) -> dict[str, Array]:
    """Every leaf of the state by name, in the order of its leaves."""
    return {
        **checkpoint.flatten("model", state.weights),
        **checkpoint.flatten("optimizer", state.optimizer),
        "steps": state.steps,
        **checkpoint.flatten("model", state.running),
    }


def save_state(path: Path, state: State) -> None:
    """Write a state to the new directory `path`."""
    checkpoint.write(path, named(state))


def load_state(path: Path, like: State, device: jax.Device | jax.sharding.Sharding) -> State:
    """What `save_state` wrote, placed on `device`; CheckpointError if it is not as `like`."""
    found, expected = checkpoint.read(path), named(like)
    checkpoint.check(path, found, expected)
    leaves = [jax.device_put(found[name], device) for name in expected]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def load_weights(path: Path, like: State, device: jax.Device | jax.sharding.Sharding) -> State:
    """`like` with the weights of what `save_state` wrote; CheckpointError if they do not fit."""
    expected = named(like)
    found = {k: v for k, v in checkpoint.read(path).items() if k.startswith("model.")}
    checkpoint.check(path, found, {k: v for k, v in expected.items() if k.startswith("model.")})
    leaves = [jax.device_put(found.get(name, old), device) for name, old in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def full_precision():
    """Float32 means float32: a GPU would multiply in TF32, a TPU in bfloat16."""
    return jax.default_matmul_precision("highest")


def _statistics(solution: Solution | None, backward: Backward) -> dict[str, float]:
    if solution is None:
        return {"nfe_forward": 0.0, "nfe_backward": 0.0, "steps": 0.0, "rejected": 0.0}
    return {
        "nfe_forward": float(solution.nfe),
        "nfe_backward": float(backward.nfe),
        "steps": float(solution.accepted),
        "rejected": float(solution.rejected),
    }
