"""The latent ODE in both frameworks: loss, gradients, also in the observation times, training."""

import numpy as np
import pytest
import twins

from crosscheck.check import difference
from crosscheck.weights import of_torch
from experiments.latent.windows import pack
from jax_node import latent as in_jax
from torch_node import latent as in_torch


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
    return twins.learners(in_jax, in_torch, 2, latent=3, hidden=6, width=5, solver="rk4")


def test_gradients_agree_in_weights_values_and_times(batch):
    also = "times", "values", "noise", "kl"
    found = twins.check_gradients((in_jax, in_torch), learners(), batch, also, solver="rk4")
    assert len(found) > 30 + len(also)


def test_training_and_prediction_agree(batch):
    ours, theirs = learners()
    for _ in range(3):
        losses = [side.train_step(batch, 1e-2)["loss"] for side in (ours, theirs)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-7)  # Adam divides by sqrt(v) + 1e-8
    assert difference(twins.weights_of(ours), of_torch(theirs.model)).error < 1e-6
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


@pytest.mark.usefixtures("_no_type_checks")
@pytest.mark.parametrize("side", [0, 1], ids=["jax", "torch"])
@pytest.mark.parametrize(("name", "cut"), [("noise", np.s_[:1]), ("mask", np.s_[..., :1])])
def test_what_would_be_spread_is_refused(side, name, cut, batch):
    with pytest.raises(ValueError, match=f"`{name}` has shape"):
        learners()[side].train_step({**batch, name: batch[name][cut]}, 1e-2)
