"""The flows in both frameworks: loss and gradients with both traces, densities, round trip."""

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from crosscheck.check import difference
from crosscheck.weights import into_torch, of_jax, to_torch
from jax_node import cnf as in_jax
from torch_node import cnf as in_torch

ROUNDING = 1e-10  # float64 through 16 stages, without iteration or tolerance


@pytest.fixture(scope="module")
def batch():
    generator = np.random.default_rng(0)
    return {
        "x": generator.normal(size=(5, 3)),
        "noise": generator.normal(size=(5, 3)),
        "probe": generator.choice([-1.0, 1.0], (5, 3)),
        "t": generator.uniform(size=5),
    }


def learners(trace):
    arguments = {
        "width": 8, "layers": 3, "seed": 0, "trace": trace, "steps": 4, "precision": "float64",
        "device": "cpu",
    }  # fmt: skip
    ours, theirs = in_jax.learner(3, **arguments), in_torch.learner(3, **arguments)
    into_torch(theirs.model, to_torch(of_jax(nnx.merge(ours._graph, ours.state.weights))))
    return ours, theirs


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_gradients_agree(batch, trace):
    ours, theirs = learners(trace)
    arrays = {name: jax.numpy.asarray(a) for name, a in batch.items()}
    value, gradient = jax.jit(
        jax.value_and_grad(
            lambda w: in_jax.loss(nnx.merge(ours._graph, w), arrays, trace=trace, steps=4)[0]
        )
    )(ours.state.weights)
    tensors = {name: torch.from_numpy(a) for name, a in batch.items()}
    loss, _ = in_torch.loss(theirs.model, tensors, trace=trace, steps=4)
    loss.backward()
    assert float(value) == pytest.approx(loss.item(), rel=ROUNDING)
    left = to_torch(of_jax(nnx.merge(ours._graph, gradient)))
    # The last bias of the likelihood's field cannot change the trace, but changes the noise.
    right = {name: p.grad.numpy() for name, p in theirs.model.named_parameters()}
    assert difference(left, right).error < ROUNDING


def test_densities_samples_and_round_trip_agree(batch):
    ours, theirs = learners("exact")
    for a, b in zip(
        ours.apply(in_jax.evaluate, x=batch["x"]),
        theirs.apply(in_torch.evaluate, x=batch["x"]),
        strict=True,
    ):
        assert np.abs(a - b).max() < 1e-4  # dopri5 at 1e-5 in both, of other first steps
    back = theirs.apply(in_torch.round_trip, x=batch["x"])
    assert np.abs(back - batch["x"]).max() < 1e-4
