"""What `benchmark.py` measures: one row of `CONTESTS` a contest, whose sides do the same work.

A side is named after who computes and how the gradient is taken: `jax direct`, `torch adjoint`;
`on 2` is with the batch on two devices, on a CPU its cores; `compiled` is torch under
torch.compile, `torchode` another solver library for torch, `scipy` its `solve_ivp`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import jax_node.classify
import jax_node.learner
import torch_node.classify
from crosscheck import weights
from experiments.classify.resolve import learner_options
from experiments.images import sources
from experiments.speed import small_mlp, two_states
from jax_node import models, solve

# Does the work of a side once: `nfe_forward`, `nfe_backward`, `steps`, `rejected`; what a side
# cannot tell is absent.
Call = Callable[[], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Contest:
    """Work that several sides do in turns.

    `flags` are those of `mnist.py`; where there are none, `work(side, gradient=train)` makes the
    call of a side. `train` says whether gradients are taken. Memory, and compiling with a warm
    cache, are measured in `quick` contests only; `--quick` measures only those, and the first three
    sides of each.
    """

    name: str
    flags: str
    sides: tuple[str, ...]
    train: bool = True
    quick: bool = False
    work: Callable[..., Call] | None = None


_PLAIN = ("jax", "torch", "jax on 2", "compiled")
_STEPS = (
    "jax direct",
    "torch direct",
    "jax direct on 2",
    "jax checkpoint",
    "jax adjoint",
    "jax adjoint on 2",
    "torch adjoint",
)
_DOPRI5 = "--model odenet --solver dopri5"
_SMALL = small_mlp.make_call

CONTESTS = (
    Contest("ODE-Net, training step", _DOPRI5, (*_STEPS, "compiled direct"), quick=True),
    Contest("ODE-Net, inference", _DOPRI5, _PLAIN, train=False, quick=True),
    Contest("ResNet-6, training step", "--model resnet6", _PLAIN, quick=True),
    Contest("Small MLP, solve and gradient", "", small_mlp.SIDES, quick=True, work=_SMALL),
    Contest("Small MLP, solve", "", small_mlp.SIDES_WITHOUT_GRADIENT, train=False, work=_SMALL),
    Contest("Two states, solve", "", two_states.SIDES, train=False, work=two_states.make_call),
    Contest("ResNet-6, inference", "--model resnet6", _PLAIN, train=False),
    Contest("RK-Net, training step", "--model rknet", _STEPS),
    Contest("RK-Net, inference", "--model rknet", _PLAIN, train=False),
    Contest("ResNet-1, training step", "--model resnet1", _PLAIN),
    Contest("ResNet-1, inference", "--model resnet1", _PLAIN, train=False),
    Contest(
        "ODE-Net, Euler step 0.1, training step",
        "--model odenet --solver euler --step-size 0.1",
        (*_STEPS, "torch handwritten"),
    ),
    Contest(
        "ODE-Net, explicit Adams step 0.1, training step",
        "--model odenet --solver explicit_adams --step-size 0.1",
        _STEPS,
    ),
    Contest(
        "ODE-Net, implicit Adams step 0.1, training step",
        "--model odenet --solver implicit_adams --step-size 0.1",
        _STEPS,
    ),
    Contest(
        "ODE-Net, adaptive Adams, training step", "--model odenet --solver adams", ("jax adjoint",)
    ),
)


def missing(side: str) -> str | None:
    """Why a side cannot be measured here, in words, or None."""
    if side.startswith("torchode") and importlib.util.find_spec("torchode") is None:
        return "torchode is not installed (pip install torchode)"
    if side.endswith(" on 2") and jax.device_count() < 2:
        return "there is one device only"
    return None


def make_call(contest: Contest, side: str, batch_size: int) -> Call:
    """The work of one side of a contest."""
    if contest.work:
        return contest.work(side, gradient=contest.train)
    side, on_two, _ = side.partition(" on 2")
    framework, _, gradient = side.partition(" ")
    options = contest.flags.split() + (["--adjoint", gradient] if gradient else [])
    learner = make_learner(framework, options + (["--devices", "2"] if on_two else []))
    batch = digits(batch_size)
    if not contest.train:
        return lambda: learner.evaluate(**batch)
    # A learning rate of zero leaves the weights, and with them the NFE, as they are.
    return lambda: finished(learner, learner.train_step(batch, 0.0))


def make_learner(framework: str, flags: list[str], **changes: Any) -> Any:
    """A learner whose weights are those that JAX draws from seed 0, in either framework."""
    side = "jax" if framework == "jax" else "torch"
    # A solve that needs more steps than these is not what is meant to be measured.
    options = learner_options(["--framework", side, "--max-steps", "64", *flags]) | changes
    if side == "jax":
        return jax_node.classify.learner(**options)
    drawn = models.build(options["model"], solver=solve.solve, seed=0)
    twin = torch_node.classify.learner(**options)
    weights.into_torch(twin.model, weights.to_torch(weights.of_jax(drawn)))
    if framework == "compiled":
        # What a solver does between evaluations cannot be compiled; the field can.
        (twin.model.get_submodule("field") if options["solver"] else twin.model).compile()
    return twin


def digits(batch_size: int) -> dict[str, np.ndarray]:
    """The first `images` of the embedded training set, and their `labels`."""
    dataset = sources.load("mnist", "embedded", limit_train=batch_size)
    return {"images": dataset.train_images, "labels": dataset.train_labels}


def finished(learner: Any, result: dict[str, float]) -> dict[str, float]:
    """`result`, once the new weights of a JAX learner are computed too."""
    if isinstance(learner, jax_node.learner.Learner):
        jax.block_until_ready(learner.state)
    return result
