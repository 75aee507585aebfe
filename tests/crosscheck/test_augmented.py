"""Plain and augmented classifiers in both frameworks: loss, gradients, logits."""

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from crosscheck.check import difference
from crosscheck.weights import into_torch, of_jax, to_torch
from jax_node import augmented as in_jax
from torch_node import augmented as in_torch

ROUNDING = 1e-10  # float64 through 16 stages, without iteration or tolerance


@pytest.fixture(scope="module")
def learners():
    arguments = {
        "extra": 2, "width": 8, "steps": 4, "seed": 0, "precision": "float64", "device": "cpu"
    }  # fmt: skip
    ours, theirs = in_jax.learner(2, **arguments), in_torch.learner(2, **arguments)
    into_torch(theirs.model, to_torch(of_jax(nnx.merge(ours._graph, ours.state.weights))))
    return ours, theirs


@pytest.fixture(scope="module")
def batch():
    generator = np.random.default_rng(0)
    return {"x": generator.normal(size=(5, 2)), "label": np.array([0.0, 1, 1, 0, 1])}


def test_gradients_agree(learners, batch):
    ours, theirs = learners
    arrays = {name: jax.numpy.asarray(array) for name, array in batch.items()}
    value, gradient = jax.value_and_grad(
        lambda w: in_jax.loss(nnx.merge(ours._graph, w), arrays, steps=4)[0]
    )(ours.state.weights)
    tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
    loss, _ = in_torch.loss(theirs.model, tensors, steps=4)
    loss.backward()
    assert float(value) == pytest.approx(loss.item(), rel=ROUNDING)
    left = to_torch(of_jax(nnx.merge(ours._graph, gradient)))
    right = {name: p.grad.numpy() for name, p in theirs.model.named_parameters()}
    assert difference(left, right).error < ROUNDING


def test_logits_agree(learners, batch):
    ours, theirs = learners
    a = ours.apply(in_jax.evaluate, x=batch["x"])
    b = theirs.apply(in_torch.evaluate, x=batch["x"])
    for left, right in zip(a[:2], b[:2], strict=True):
        assert np.abs(left - right).max() < 1e-4  # dopri5 at 1e-5 in both, of other first steps
