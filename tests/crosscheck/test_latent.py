"""The latent ODE in both frameworks: loss, gradients, also in the observation times, training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from crosscheck.check import difference
from crosscheck.weights import into_torch, of_jax, of_torch, to_torch
from experiments.latent.windows import pack
from jax_node import latent as in_jax
from torch_node import latent as in_torch

# Float64 rounding through 9 observations of 4 stages each; no iteration, no tolerance.
ROUNDING = 1e-10
SIZES = {"latent": 3, "hidden": 6, "width": 5, "seed": 0}


@pytest.fixture(scope="module")
def batch():
    """Four series of two channels and 4 to 9 observations, one value in five missing."""
    generator = np.random.default_rng(0)
    rows = []
    for count in (9, 4, 7, 9):
        values = generator.normal(size=(count, 2))
        values[generator.uniform(size=values.shape) < 0.2] = np.nan
        rows.append((np.sort(generator.uniform(0.1, 3, count)), values))
    noise = generator.normal(size=(4, 3))
    return {**pack(rows).arrays(), "noise": noise, "kl": np.array(0.7)}


def learners():
    arguments = {**SIZES, "solver": "rk4", "precision": "float64", "device": "cpu"}
    ours, theirs = in_jax.learner(2, **arguments), in_torch.learner(2, **arguments)
    into_torch(theirs.model, to_torch(of_jax(model_of(ours))))
    return ours, theirs


def model_of(learner):
    return nnx.merge(learner._graph, learner.state.weights)


def test_gradients_agree_in_weights_values_and_times(batch):
    ours, theirs = learners()
    arrays = {name: jnp.asarray(a) for name, a in batch.items()}
    objective = lambda w, b: in_jax.loss(nnx.merge(ours._graph, w), b, solver="rk4")[0]
    value, (gradient, in_batch) = jax.jit(jax.value_and_grad(objective, argnums=(0, 1)))(
        ours.state.weights, arrays
    )
    tensors = {name: torch.from_numpy(a).requires_grad_() for name, a in batch.items()}
    loss, _ = in_torch.loss(theirs.model, tensors, solver="rk4")
    loss.backward()
    assert float(value) == pytest.approx(loss.item(), rel=ROUNDING)
    left = to_torch(of_jax(nnx.merge(ours._graph, gradient)))
    right = {name: p.grad.numpy() for name, p in theirs.model.named_parameters()}
    assert len(left) > 30
    assert difference(left, right).error < ROUNDING
    names = "times", "values", "noise", "kl"
    left = {name: np.asarray(in_batch[name]) for name in names}
    right = {name: tensors[name].grad.numpy() for name in names}
    assert difference(left, right).error < ROUNDING


def test_training_and_prediction_agree(batch):
    ours, theirs = learners()
    for _ in range(3):
        losses = [side.train_step(batch, 1e-2)["loss"] for side in (ours, theirs)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-7)  # Adam divides by sqrt(v) + 1e-8
    assert difference(to_torch(of_jax(model_of(ours))), of_torch(theirs.model)).error < 1e-6
    observed = {name: batch[name] for name in ("times", "values", "mask")}
    ask = np.tile(np.linspace(3.1, 4, 5), (4, 1))
    questions = {
        "encode": observed,
        "decode": {"z0": batch["noise"], "z0_ode_rnn": batch["noise"], "ask": ask},
        "forecast": {**observed, "ask": ask},
        "noise": {},
    }
    for name, arguments in questions.items():
        a = ours.apply(getattr(in_jax, name), **arguments)
        b = theirs.apply(getattr(in_torch, name), **arguments)
        for x, y in zip(np.atleast_1d(a), np.atleast_1d(b), strict=True):
            assert np.abs(x - y).max() < 1e-6  # the weights differ by as much
