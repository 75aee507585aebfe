"""The ways to train ODE-Net that the stability study compares, and one gradient by each of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import optax
from flax import nnx
from jaxtyping import Array, Float

from experiments.images.dataset import Dataset
from jax_node import models
from jax_node.adjoint import Backward
from jax_node.learner import full_precision
from jax_node.solve import Solution


@dataclasses.dataclass(frozen=True)
class Case:
    """A way to train: model, solver in both directions, and optimiser (sgd unless `adam`)."""

    name: str
    solver: str
    adjoint: str
    step_size: float | None = None
    momentum: float = 0.9
    clip: float | None = None
    adam: bool = False
    final_relu: bool = True
    downsampling: str = "conv"


# torchdiffeq's implicit_adams without a step size takes one step over [0, 1], and since it has no
# history yet, that is one step of its Runge-Kutta start-up: rk4 with step 1.
ONE_STEP = Case("implicit Adams without step size (one rk4 step), adjoint", "rk4", "adjoint", 1.0)
METHODS = (
    ONE_STEP,
    Case("the same, direct", "rk4", "direct", 1.0),
    Case("dopri5 1e-3, adjoint", "dopri5", "adjoint"),
    Case("dopri5 1e-3, direct", "dopri5", "direct"),
    Case("implicit Adams, step 0.25, adjoint", "implicit_adams", "adjoint", 0.25),
    Case("implicit Adams, step 0.1, adjoint", "implicit_adams", "adjoint", 0.1),
    Case("adaptive Adams 1e-3, adjoint", "adams", "adjoint"),
)
# What else was changed about ONE_STEP, at the rates of its own search.
VARIANTS = tuple(
    dataclasses.replace(ONE_STEP, name=f"one rk4 step, adjoint; {name}", **changed)  # type: ignore[arg-type]
    for name, changed in {
        "no final ReLU": {"final_relu": False},
        "residual downsampling": {"downsampling": "residual"},
        "no momentum": {"momentum": 0.0},
        "gradient clipped to norm 1": {"clip": 1.0},
    }.items()
)
ADAM = dataclasses.replace(ONE_STEP, name="one rk4 step, adjoint; Adam, rate / 100", adam=True)


class Result(NamedTuple):
    """What a gradient comes with."""

    loss: Float[Array, ""]
    solution: Solution
    backward: Backward


def model(case: Case, solver: Any, seed: int) -> models.ODENet:
    """The network of a case."""
    found = models.build(
        "odenet",
        solver=solver,
        final_relu=case.final_relu,
        downsampling=case.downsampling,
        seed=seed,
    )
    assert isinstance(found, models.ODENet)
    return found


def gradient(
    case: Case, solver: Any, weights: nnx.State, images: Array, labels: Array
) -> tuple[Result, nnx.State]:
    """Loss and gradient of a batch, the state solved for by `solver`."""
    graph, _ = nnx.split(model(case, solver, 0), nnx.Param)

    def loss_of(weights, backward):
        output = nnx.merge(graph, weights)(images, backward)
        losses = optax.softmax_cross_entropy_with_integer_labels(output.logits, labels)
        return losses.mean(), output.solution

    with full_precision():
        (loss, solution), (slope, backward) = jax.value_and_grad(loss_of, (0, 1), has_aux=True)(
            weights, Backward.zeros()
        )
    return Result(loss, solution, backward), slope


def failed(result: Result, slope: nnx.State) -> str:
    """Why a training step cannot be taken; empty if it can."""
    if not bool(result.solution.ok):
        return "forward solve failed"
    if float(result.backward.failed) > 0:
        return "backward solve failed"
    if not math.isfinite(float(result.loss) + float(optax.tree.norm(slope, ord="inf"))):
        return "gradient not finite"
    return ""


def batch_stream(dataset: Dataset, seed: int, batch_size: int) -> Iterator:
    """Batches for ever, the same for every case."""
    epoch = 0
    while True:
        yield from dataset.epoch_batches(seed, epoch, batch_size, False)
        epoch += 1
