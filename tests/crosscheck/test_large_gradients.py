"""A gradient whose square float32 cannot hold is finite, and Adam goes on with it."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from experiments.harness.command import in_flags
from jax_node import learner as in_jax
from torch_node import learner as in_torch


class InJax(nnx.Module):
    def __init__(self):
        self.w = nnx.Param(jnp.array([1.0, -2.0]))


class InTorch(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))


def loss(model, batch, tally):
    w = model.w[...] if isinstance(model, InJax) else model.w
    value = (batch["slope"] * w).sum()
    return value, {"value": value}


@pytest.fixture(params=["jax", "torch"])
def learner(request):
    module, model = (in_jax, InJax()) if request.param == "jax" else (in_torch, InTorch())
    return module.Learner(model, loss, precision="float32", device="cpu")


def weights(learner):
    read = lambda model: model.w[...] * 1 if isinstance(model, InJax) else model.w * 1
    return learner.apply(read)


def test_adam_takes_steps_of_its_learning_rate(learner):
    slope = {"slope": np.array([1e25, -1e-3])}
    for _ in range(3):
        assert learner.train_step(slope, 0.125)["loss"] == pytest.approx(1e25, rel=1)
    # m / sqrt(v) = 1 at the first step, and while the gradient stays as it is; Adam's eps is 1e-8.
    assert weights(learner) == pytest.approx([1 - 0.375, -2 + 0.375], abs=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_before_anything_is_changed(learner, value):
    with pytest.raises(RuntimeError, match="not finite at training step 0") as error:
        learner.train_step({"slope": np.array([1.0, value])}, 0.5)
    assert in_flags(str(error.value)).endswith("lower --lr")
    assert weights(learner) == pytest.approx([1, -2])


def test_a_library_names_parameters_and_a_command_flags():
    said = "raise `max_steps`, take `solver='euler'`, `learning_rate` or `y0`"
    assert in_flags(said) == "raise --max-steps, take --solver euler, --lr or `y0`"
