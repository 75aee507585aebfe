"""Image classification, an application of `learner.py`; torch_node/classify.py is the twin."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Integer, UInt8
from numpy import ndarray

from jax_node import sharding
from jax_node.gradient_check import gradient_check
from jax_node.learner import Batch, Learner, Tally, dtype_of, full_precision
from jax_node.models import ODENet, Output, ResNet, as_images, build
from jax_node.regularise import Regulariser, regulariser
from jax_node.solve import Solution, check, solve, splits_batch

Pixels = UInt8[ndarray, "batch height width channels"]
Labels = Integer[ndarray, " batch"]
Logits = Float[ndarray, "batch classes"]


class Trajectory(NamedTuple):
    """States of an ODE-Net on the way, the logits its head gives them, and the NFE of the solve."""

    states: Float[ndarray, "times batch height width channels"]
    logits: Float[ndarray, "times batch classes"]
    nfe: int


def loss(
    model: ResNet | ODENet,
    batch: Mapping[str, Array],
    tally: Tally,
    *,
    penalties: Regulariser | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Mean cross-entropy of `images` (bytes) and `labels`, plus penalties if weighted.

    The metrics are the cross-entropy as `loss`, how many are `correct`, and the penalties.
    """
    options = penalties.options(tally.steps) if penalties else {}
    labels, images = batch["labels"], as_images(batch["images"], model.head.linear.kernel.dtype)
    output = model(images, tally.backward, **options)
    if output.solution is not None:
        tally.count(output.solution)
    losses = optax.softmax_cross_entropy_with_integer_labels(output.logits, labels)
    entropy = sharding.mean(losses)
    correct = jnp.sum(jnp.argmax(output.logits, 1).astype(labels.dtype) == labels)
    metrics = {"loss": entropy, "correct": correct}
    cost = penalties.cost(output.penalties) if penalties else 0.0
    return entropy + cost, {**sharding.total(metrics), **output.penalties}


class ImageLearner(Learner):
    """A `Learner` of labelled images: bytes from 0 to 255, and classes from 0 on."""

    def __init__(self, model: ResNet | ODENet, *arguments: Any, adjoint: str | None, **options):
        """Train `model`, whose ODE is differentiated by `adjoint`; the rest as in `Learner`."""
        super().__init__(model, *arguments, **options)
        self._adjoint = adjoint
        evaluated = functools.partial(forward, self._evaluated)
        outputs = Output._make([sharding.SPLIT, sharding.WHOLE, sharding.WHOLE])
        self._forward = self._compile(evaluated, (False, False, True), outputs)
        self._trajectory = jax.jit(functools.partial(trajectory, self._evaluated))
        options = getattr(getattr(model, "solver", None), "keywords", {})
        self._check_gradient = jax.jit(functools.partial(gradient_check, self._graph, options))

    def train_step(self, batch: Batch, learning_rate: float) -> dict[str, float]:
        """One optimiser step on `images` and `labels`; see `loss`.

        Returns loss (the cross-entropy), accuracy (0 to 1), nfe_forward, nfe_backward, and steps
        and rejected of the forward solve; the last four are 0 for a ResNet. By `adjoint` also
        reconstruction (see `adjoint.Backward`), with penalties kinetic, and jacobian if it has a
        weight, both unweighted. Raises SolveError and NonFiniteLossError; all is then as it was
        before. Here and below ValueError for images or labels of another kind.
        """
        _check(batch["images"], batch["labels"])
        found = NO_SOLVE | super().train_step(batch, learning_rate)
        if self._adjoint != "adjoint":
            found.pop("reconstruction", None)
        return found | {"accuracy": found.pop("correct") / len(batch["labels"])}

    def evaluate(self, images: Pixels, labels: Labels) -> dict[str, float]:
        """Mean loss, number of errors and the solve's statistics for one batch of any size."""
        _check(images, labels)
        logits, solution, _ = self._evaluate(images)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels)).mean()
        wrong = {"loss": float(loss), "errors": float(np.sum(np.argmax(logits, 1) != labels))}
        if solution is None:
            return wrong | NO_SOLVE
        made = {"nfe_forward": solution.nfe, "steps": solution.accepted}
        made |= {"rejected": solution.rejected}
        return wrong | NO_SOLVE | {name: float(value) for name, value in made.items()}

    def predict(self, images: Pixels) -> Logits:
        """Logits."""
        return np.asarray(self._evaluate(images).logits)

    def trajectory(self, images: Pixels, times: Sequence[float]) -> Trajectory:
        """The ODE's state at `times` (from 0, increasing); no ResNet has one."""
        with self._context():
            arrays = self._place({"images": images})["images"], jnp.asarray(times, self._dtype)
            solution, logits = self._trajectory(self.state.weights, self.state.running, *arrays)
        solution.check()
        states = np.asarray(solution.ys).transpose(0, 3, 1, 2, 4)
        return Trajectory(states, np.asarray(logits), int(solution.nfe))

    def check_gradient(self, images: Pixels, labels: Labels) -> dict[str, float]:
        """How far the ODE-Net's gradient is from the others: see `gradient_check`."""
        _check(images, labels)
        with self._context(), full_precision():
            placed = self._place({"images": images, "labels": labels})
            inputs = as_images(placed["images"], self._dtype), placed["labels"]
            found = self._check_gradient(self.state.weights, self.state.running, *inputs)
        return {name: float(value) for name, value in found.items()}

    def _evaluate(self, images: Pixels) -> Output:
        with self._context():
            placed = self._place({"images": images})["images"]
            output = self._forward(self.state.weights, self.state.running, placed)
        if output.solution is not None:
            output.solution.check()
        return output


def _check(images: ndarray, labels: ndarray) -> None:
    """Refuse labels that are not a class for each image: -1 would be the last class."""
    whole = np.issubdtype(labels.dtype, np.integer)
    if not whole or labels.shape != images.shape[:1] or labels.min(initial=0) < 0:
        raise ValueError(
            f"the labels are {labels.dtype}{list(labels.shape)} from {labels.min(initial=0)} on "
            f"for {len(images)} images: give each a class, a whole number from 0 on"
        )


NO_SOLVE = {"nfe_forward": 0.0, "nfe_backward": 0.0, "steps": 0.0, "rejected": 0.0}


def forward(graph: nnx.GraphDef, weights: nnx.State, running: nnx.State, pixels: Array) -> Output:
    """The model's output for bytes, without the states of its solve."""
    with full_precision():
        model = nnx.merge(graph, weights, running)
        output = model(as_images(pixels, model.head.linear.kernel.dtype))
    solution = output.solution
    return output._replace(solution=None if solution is None else solution._replace(ys=None))


def trajectory(
    graph: nnx.GraphDef, weights: nnx.State, running: nnx.State, pixels: Array, times: Array
) -> tuple[Solution, Array]:
    """`models.ODENet.trajectory` for bytes."""
    with full_precision():
        return nnx.merge(graph, weights, running).trajectory(as_images(pixels, times.dtype), times)


def learner(
    *,
    model: str,
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
    kinetic_weight: float = 0.0,
    jacobian_weight: float = 0.0,
    **architecture: Any,
) -> ImageLearner:
    """A model with weights drawn from `seed`, ready to train; `architecture` is as in `build`.

    Weights are drawn in float32, so both precisions start from the same numbers. Those of
    `regularise.py`'s penalties count in training only. Raises ValueError for an unknown name, or a
    penalty without an ODE.
    """
    mesh, dtype = sharding.make_mesh(device, n_devices), dtype_of(precision)
    integrate = None
    if solver is not None and adjoint is not None:
        check(solver, adjoint, step_size)
        options: dict[str, Any] = {"rtol": rtol, "atol": atol, "step_size": step_size}
        options |= {"solver": solver, "adjoint": adjoint, "max_steps": max_steps}
        integrate = functools.partial(solve, **options)
    elif kinetic_weight or jacobian_weight:
        raise ValueError(f"{model} solves no ODE whose dynamics could be penalised")
    architecture |= {"seed": seed, "dtype": dtype, "low_precision": precision == "bfloat16"}
    with jax.default_device(mesh.devices[0]):
        network = build(model, solver=integrate, **architecture)
    penalties = regulariser(kinetic_weight, jacobian_weight, seed)
    return ImageLearner(
        network,
        functools.partial(loss, penalties=penalties),
        adjoint=adjoint,
        precision=precision,
        device=mesh,
        optimizer=optimizer,
        momentum=momentum,
        by_device=_runs_by_device(solver, adjoint, penalties is not None),
    )


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
    """How many devices a `learner` with these arguments had best share a batch among.

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
