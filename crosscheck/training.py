"""200 training steps in both frameworks from the same weights on the same batches.

RK-Net with rk4 in 4 steps: both sides then compute the same function, so that all that is between
them is rounding. Training amplifies it; the same run in float64 shows by how much it began.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import nnx

from crosscheck import jax_side, trained, weights
from crosscheck.check import Check, Tensors
from jax_node import checkpoint
from jax_node import classify as jax_classify
from torch_node import classify as torch_classify
from torch_node.learner import Learner as TorchLearner

BATCH = 16
RATE = 0.05


@dataclass(frozen=True)
class Divergence:
    """Loss by step on each side, and the relative distance of the weights after it."""

    precision: str
    losses: dict[str, np.ndarray]
    distance: np.ndarray


def diverge(precision: str, steps: int) -> Divergence:
    """Train both learners side by side."""
    options = {**trained.LEARNER, "precision": precision}
    losses: dict[str, list[float]] = {"jax": [], "torch": []}
    found = []
    with jax_side.precision(precision):
        sides = twins(options)
        for step in range(steps):
            for name, learner in sides.items():
                made = learner.train_step(trained.batch(step, BATCH), RATE)
                losses[name].append(made["loss"])
            found.append(distance(*map(numbers, sides.values())))
    return Divergence(
        precision, {name: np.array(values) for name, values in losses.items()}, np.array(found)
    )


def twins(options: Mapping[str, Any]) -> dict[str, Any]:
    """Both frameworks' learners, by name, with the same weights: those that torch draws."""
    ours, theirs = jax_classify.learner(**options), torch_classify.learner(**options)
    start = weights.to_jax(weights.of_torch(theirs.model))
    state = weights.fill(nnx.merge_state(ours.state.weights, ours.state.running), start)
    drawn, running = nnx.split_state(state, nnx.Param, nnx.BatchStat)
    ours.state = ours.state._replace(weights=drawn, running=running)
    return {"jax": ours, "torch": theirs}


def numbers(learner: Any) -> dict[str, np.ndarray]:
    """Weights and running statistics by torch's names."""
    if isinstance(learner, TorchLearner):
        return weights.of_torch(learner.model)
    state = nnx.merge_state(learner.state.weights, learner.state.running)
    flat = checkpoint.flatten("", state)
    return weights.to_torch({name.removeprefix("."): np.asarray(w) for name, w in flat.items()})


def distance(left: Tensors, right: Tensors) -> float:
    """The relative distance of all tensors together."""
    apart = sum(float(np.sum((left[name].astype(float) - right[name]) ** 2)) for name in right)
    size = sum(float(np.sum(right[name].astype(float) ** 2)) for name in right)
    return float(np.sqrt(apart / size))


def checks(found: list[Divergence]) -> list[Check]:
    """The first step to rounding; the rest in proportion to it."""
    single, double = found
    last = len(double.distance)
    reason = "one gradient step: rounding of the gradient times the learning rate"
    amplified = "1e-16 amplified by training as much as 1e-8 is in float32, with room"
    lines = [
        Check(
            "training",
            f"rknet, batch {BATCH}, {run.precision}, after step {step}",
            "jax",
            "torch",
            float(run.distance[step - 1]),
            limit,
            why,
            quantity="relative distance of all weights",
        )
        for run, step, limit, why in (
            (single, 1, 1e-4, reason),
            (double, 1, 1e-12, reason),
            (double, last, 1e-5, amplified),
        )
    ]
    lines.append(
        Check(
            "training",
            f"rknet, batch {BATCH}, after step {last}",
            "distance in float32",
            "distance in float64",
            float(single.distance[-1] / double.distance[-1]),
            1e4,
            "eps32 / eps64 = 5e8: if float64 did not shrink the distance, it was no rounding",
            at_least=True,
            quantity="ratio",
        )
    )
    return lines
