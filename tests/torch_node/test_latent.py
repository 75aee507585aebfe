"""The latent ODE in float64: the gradient in the observation times, and what is masked."""

import numpy as np
import pytest
import torch

from torch_node.latent import build, encode, loss


@pytest.fixture(scope="module")
def batch():
    generator = np.random.default_rng(0)
    arrays = {
        "times": np.sort(generator.uniform(0.2, 2, (2, 4)), axis=1),
        "values": generator.normal(size=(2, 4, 2)),
        "mask": np.ones((2, 4, 2)),
        "noise": generator.normal(size=(2, 3)),
        "kl": np.array(1.0),
    }
    arrays["mask"][0, 1, 0] = arrays["mask"][1, 2] = 0
    return {name: torch.from_numpy(a) for name, a in arrays.items()}


@pytest.fixture(scope="module")
def model():
    return build(2, latent=3, hidden=5, width=4, seed=1).double()


@pytest.fixture(scope="module")
def objective(model):
    return lambda batch: loss(model, batch, solver="rk4")[0]


def test_gradients_in_the_times_are_those_of_finite_differences(objective, batch):
    of_times = lambda times: objective({**batch, "times": times})
    assert torch.autograd.gradcheck(of_times, batch["times"].clone().requires_grad_())


@pytest.mark.usefixtures("_no_type_checks")
def test_times_that_are_not_those_of_the_values_are_refused(model, batch):
    """What was observed after the last of them was left out."""
    with pytest.raises(ValueError, match="`times` has shape"):
        encode(model, batch["times"][:, :3], batch["values"], batch["mask"])


def test_a_missing_value_may_be_nan(model, objective, batch):
    missing = torch.where(batch["mask"] == 0, torch.nan, batch["values"])
    gradients = []
    for values in (batch["values"], missing):
        gradients.append(
            torch.autograd.grad(objective({**batch, "values": values}), model.parameters())
        )
    for found, of_nan in zip(*gradients, strict=True):
        assert of_nan.numpy() == pytest.approx(found.numpy(), rel=1e-13, abs=1e-13)
    assert objective({**batch, "values": missing}) == objective(batch)


def test_what_is_masked_or_padded_changes_nothing(objective, batch):
    value = objective(batch).item()
    other = {**batch, "values": batch["values"] + 100 * (1 - batch["mask"])}
    assert objective(other).item() == pytest.approx(value, rel=1e-13)
    front = lambda a: torch.cat([torch.zeros_like(a[:, :2]), a], dim=1)
    padded = {name: front(batch[name]) for name in ("times", "values", "mask")}
    assert objective({**batch, **padded}).item() == pytest.approx(value, rel=1e-13)
