"""Plain and augmented classifiers in both frameworks: loss, gradients, logits."""

import numpy as np
import pytest
import torch
import twins

from jax_node import augmented as in_jax
from torch_node import augmented as in_torch


@pytest.fixture(scope="module")
def learners():
    return twins.learners(in_jax, in_torch, 2, extra=2, width=8, steps=4)


@pytest.fixture(scope="module")
def batch():
    generator = np.random.default_rng(0)
    return {"x": generator.normal(size=(5, 2)), "label": np.array([0.0, 1, 1, 0, 1])}


def test_gradients_agree(learners, batch):
    twins.check_gradients((in_jax, in_torch), learners, batch, steps=4)


def test_logits_agree(learners, batch):
    ours, theirs = learners
    a = ours.apply(in_jax.evaluate, x=batch["x"])
    b = theirs.apply(in_torch.evaluate, x=batch["x"])
    for left, right in zip(a[:2], b[:2], strict=True):
        assert np.abs(left - right).max() < 1e-4  # dopri5 at 1e-5 in both, of other first steps


@pytest.mark.usefixtures("_no_type_checks")
@pytest.mark.parametrize("side", [0, 1], ids=["jax", "torch"])
def test_labels_that_would_be_spread_are_refused(side, learners, batch):
    """A column of labels was compared with every logit."""
    with pytest.raises(ValueError, match=r"5, 1\]"):
        learners[side].train_step({**batch, "label": batch["label"][:, None]}, 1e-2)


@pytest.mark.usefixtures("_no_type_checks")
@pytest.mark.parametrize("kind", [np.int64, np.uint8, bool])
def test_labels_may_be_whole_numbers_in_torch_as_in_jax(kind, batch):
    tensors = {name: torch.tensor(values).float() for name, values in batch.items()}
    model = in_torch.Pair(2, 1, 4)
    of = lambda label: in_torch.loss(model, {**tensors, "label": label}, steps=4)
    expected, _ = of(tensors["label"])
    found, _ = of(torch.from_numpy(batch["label"].astype(kind)))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
