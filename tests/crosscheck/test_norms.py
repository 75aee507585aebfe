"""Every normalisation trains alike in both frameworks; a fault planted in one is found."""

import pytest

import jax_node.normalise
from crosscheck import layers, norms, trained


def failing(checks):
    return [check.describe() for check in checks if not check.passed]


@pytest.mark.parametrize(
    "case", [norms.CASES[0], *(pytest.param(c, marks=pytest.mark.slow) for c in norms.CASES[1:])]
)
def test_three_steps_agree(case):
    found = norms.checks([case])
    assert len(found) == (4 if case[1] == "batch" else 3)
    assert failing(found) == []


@pytest.mark.parametrize("norm", ["group1", "group64", "batch"])
def test_layers_agree(norm):
    name, downsampling = ("resnet1", "residual") if norm == "batch" else ("odenet", "conv")
    images = trained.batch(0, 2)["images"]
    found = layers.checks(name, None, images, "float64", downsampling, norm)
    assert len(found) > 12
    assert failing(found) == []


def test_a_variance_that_is_not_unbiased_is_found(monkeypatch):
    """In the running statistics: what is trained with the batch's own does not see it."""
    observe = jax_node.normalise.BatchNorm._observe

    def biased(self, x):
        before = self.var[...]
        mean, variance = observe(self, x)
        self.var[...] = 0.9 * before + 0.1 * variance
        return mean, variance

    monkeypatch.setattr(jax_node.normalise.BatchNorm, "_observe", biased)
    found = failing(norms.checks([("resnet1", "batch")]))
    assert len(found) == 2
    assert "running statistics" in found[0]
    assert "running_var" in found[0]
    assert "logits in evaluation" in found[1]
