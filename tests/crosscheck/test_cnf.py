"""The flows in both frameworks: loss and gradients with both traces, densities, round trip."""

import inspect

import numpy as np
import pytest
import twins

from jax_node import cnf as in_jax
from torch_node import cnf as in_torch


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
    return twins.learners(in_jax, in_torch, 3, width=8, layers=3, trace=trace, steps=4)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_gradients_agree(batch, trace):
    # The last bias of the likelihood's field cannot change the trace, but changes the noise.
    twins.check_gradients((in_jax, in_torch), learners(trace), batch, trace=trace, steps=4)


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


@pytest.mark.parametrize("side", [0, 1], ids=["jax", "torch"])
def test_a_probe_of_another_shape_is_refused(side, batch):
    learner, part = learners("hutchinson")[side], (in_jax, in_torch)[side]
    density = inspect.unwrap(part.log_density)  # as a user has it, without the tests' type checks
    with pytest.raises(ValueError, match="`probe` has shape"):
        learner.apply(
            lambda model, x, probe: density(model.cnf, x, probe),
            x=batch["x"],
            probe=batch["probe"][:, :1],
        )


@pytest.mark.usefixtures("_no_type_checks")
@pytest.mark.parametrize("side", [0, 1], ids=["jax", "torch"])
@pytest.mark.parametrize("cut", [np.s_[:, :2], np.s_[:, [0, 1, 2, 0]], np.s_[0]])
def test_points_of_another_dimension_are_refused(side, cut, batch):
    """Halves of the discrete flow broadcast: it gave a density to points of 2 of its 3 numbers."""
    learner, part = learners("exact")[side], (in_jax, in_torch)[side]
    for ask in (
        lambda model, x: part.log_density(model.cnf, x),
        lambda model, x: part.discrete_log_density(model.coupling, x),
    ):
        with pytest.raises(ValueError, match=r"the points are .*\[batch, 3\]"):
            learner.apply(ask, x=batch["x"][cut])
    with pytest.raises(ValueError, match=r"`dim` is 1.* at least 2"):
        part.build(1, width=8, layers=2, seed=0)


@pytest.mark.usefixtures("_no_type_checks")
@pytest.mark.parametrize("side", [0, 1], ids=["jax", "torch"])
@pytest.mark.parametrize("name", ["noise", "t"])
def test_noise_or_a_time_for_the_whole_batch_is_refused(side, name, batch):
    learner, part = learners("exact")[side], (in_jax, in_torch)[side]
    given = {key: batch[key] for key in ("x", "noise", "t")} | {name: batch[name][:1]}
    with pytest.raises(ValueError, match=f"`{name}` has shape"):
        learner.apply(lambda model, **batch: part.matching_loss(model.matching, batch), **given)
