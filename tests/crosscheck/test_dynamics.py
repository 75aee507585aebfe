"""The dynamics model in both frameworks: loss, gradients and a step of training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from crosscheck.check import difference
from crosscheck.weights import into_torch, of_jax, of_torch, to_torch
from experiments.trajectories import shooting
from experiments.trajectories.systems import SYSTEMS, sample
from jax_node import dynamics as in_jax
from torch_node import dynamics as in_torch

# Float64 rounding through 20 solver stages and 11 recurrent steps; no iteration, no tolerance.
ROUNDING = 1e-10
OPTIONS = {"solver": "rk4", "substeps": 2, "gap_weight": 0.7}


@pytest.fixture(scope="module")
def problem():
    series = sample(
        SYSTEMS["lorenz"], trajectories=3, observations=12, noise=0.05, missing=0.2,
        irregular=True, seed=1,
    )  # fmt: skip
    return shooting.prepare(series, 5, log=False)


def learners(problem):
    arguments = {
        "width": 8, "depth": 2, "seed": 0, "precision": "float64", "device": "cpu", **OPTIONS
    }  # fmt: skip
    ours = in_jax.learner(problem.starts, **arguments)
    theirs = in_torch.learner(problem.starts, **arguments)
    into_torch(theirs.model, to_torch(of_jax(model_of(ours))))
    return ours, theirs


def model_of(learner):
    return nnx.merge(learner._graph, learner.state.weights)


def test_gradients_agree(problem):
    ours, theirs = learners(problem)
    graph, weights = nnx.split(model_of(ours))
    batch = jax.tree.map(jnp.asarray, problem.batch)
    value, gradient = jax.value_and_grad(
        lambda w: in_jax.loss(nnx.merge(graph, w), batch, **OPTIONS)[0]
    )(weights)
    batch = {name: torch.from_numpy(array) for name, array in problem.batch.items()}
    loss, _ = in_torch.loss(theirs.model, batch, **OPTIONS)
    loss.backward()
    assert float(value) == pytest.approx(loss.item(), rel=ROUNDING)
    left = to_torch(of_jax(nnx.merge(graph, gradient)))
    right = {name: p.grad.numpy() for name, p in theirs.model.named_parameters()}
    assert len(left) > 10
    assert difference(left, right).error < ROUNDING


def test_training_and_prediction_agree(problem):
    ours, theirs = learners(problem)
    for _ in range(3):
        losses = [side.train_step(problem.batch, 1e-2)["loss"] for side in (ours, theirs)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-7)  # Adam divides by sqrt(v) + 1e-8
    assert difference(to_torch(of_jax(model_of(ours))), of_torch(theirs.model)).error < 1e-6
    y0, ts = problem.starts[:3], np.linspace(0, 1, 5)
    for name in ("trajectory", "recurrent"):
        a = ours.apply(getattr(in_jax, name), y0=y0, ts=ts)
        b = theirs.apply(getattr(in_torch, name), y0=y0, ts=ts)
        assert np.abs(a - b).max() < 1e-4  # dopri5 at 1e-6 in both, of other first steps
