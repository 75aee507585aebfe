"""The dynamics model in both frameworks: loss, gradients and a step of training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import twins

from crosscheck.check import difference
from crosscheck.weights import of_torch
from experiments.trajectories import shooting
from experiments.trajectories.systems import SYSTEMS, sample
from jax_node import dynamics as in_jax
from torch_node import dynamics as in_torch

OPTIONS = {"solver": "rk4", "substeps": 2, "gap_weight": 0.7}


@pytest.fixture(scope="module")
def problem():
    series = sample(
        SYSTEMS["lorenz"], trajectories=3, observations=12, noise=0.05, missing=0.2,
        irregular=True, seed=1,
    )  # fmt: skip
    return shooting.prepare(series, 5, log=False)


def learners(problem):
    return twins.learners(in_jax, in_torch, problem.starts, width=8, depth=2, **OPTIONS)


def test_gradients_agree(problem):
    pair = learners(problem)
    found = twins.check_gradients((in_jax, in_torch), pair, problem.batch, **OPTIONS)
    assert len(found) > 10


def test_training_and_prediction_agree(problem):
    ours, theirs = learners(problem)
    for _ in range(3):
        losses = [side.train_step(problem.batch, 1e-2)["loss"] for side in (ours, theirs)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-7)  # Adam divides by sqrt(v) + 1e-8
    assert difference(twins.weights_of(ours), of_torch(theirs.model)).error < 1e-6
    y0, ts = problem.starts[:3], np.linspace(0, 1, 5)
    for name in ("trajectory", "recurrent"):
        a = ours.apply(getattr(in_jax, name), y0=y0, ts=ts)
        b = theirs.apply(getattr(in_torch, name), y0=y0, ts=ts)
        assert np.abs(a - b).max() < 1e-4  # dopri5 at 1e-6 in both, of other first steps


def test_a_missing_value_may_be_nan():
    values = np.array([[[1.0], [np.nan], [3.0]]])
    batch = {"values": values, "mask": 1.0 - np.isnan(values), "next": np.array([0])}
    ours = {k: jnp.asarray(v) for k, v in batch.items()}
    data = lambda ys: in_jax.shooting_losses(ys, jnp.ones((1, 1)), ours)[0]
    loss, gradient = jax.value_and_grad(data)(jnp.zeros((1, 3, 1)))
    assert loss == (1 + 9) / 2
    assert gradient.ravel().tolist() == [-1, 0, -3]
    ys = torch.zeros(1, 3, 1, dtype=torch.float64, requires_grad=True)
    theirs = {k: torch.from_numpy(v) for k, v in batch.items()}
    data, _ = in_torch.shooting_losses(ys, torch.ones(1, 1, dtype=torch.float64), theirs)
    data.backward()
    assert data.item() == loss
    assert ys.grad.ravel().tolist() == [-1, 0, -3]


@pytest.mark.parametrize("none", [2, -1])
def test_a_successor_that_does_not_exist_gives_no_number(none):
    starts = np.ones((2, 1))
    batch = {"values": np.ones((2, 3, 1)), "mask": np.ones((2, 3, 1)), "next": np.array([1, none])}
    gap = in_jax.shooting_losses(
        jnp.ones((2, 3, 1)), jnp.asarray(starts), jax.tree.map(jnp.asarray, batch)
    )[1]
    assert np.isnan(gap)
    with pytest.raises(IndexError):
        in_torch.shooting_losses(
            torch.ones(2, 3, 1),
            torch.tensor(starts),
            {k: torch.tensor(v) for k, v in batch.items()},
        )


@pytest.mark.usefixtures("_no_type_checks")
@pytest.mark.parametrize(
    ("name", "shape"), [("mask", (2, 3, 1)), ("values", (2, 1, 2)), ("next", (1,))]
)
def test_what_would_be_spread_is_refused(name, shape):
    """A mask for all numbers of a state at once counted the states, and not the numbers."""
    batch = {"values": np.ones((2, 3, 2)), "mask": np.ones((2, 3, 2)), "next": np.array([1, 1])}
    batch[name] = np.ones(shape, batch[name].dtype)
    for losses, array in (
        (in_jax.shooting_losses, jnp.asarray),
        (in_torch.shooting_losses, torch.from_numpy),
    ):
        given = {key: array(value) for key, value in batch.items()}
        with pytest.raises(ValueError, match=f"`{'mask' if name == 'values' else name}` has shape"):
            losses(array(np.ones((2, 3, 2))), array(np.ones((2, 2))), given)
