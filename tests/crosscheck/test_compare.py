"""`compare` and `assert_same` for a user's own field."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from crosscheck import compare
from crosscheck.testing import assert_same

PARAMS = {"linear.kernel": np.array([[0.3, -1.0], [1.2, -0.2]]), "linear.bias": np.array([0.1, 0])}
Z0 = np.array([[1.0, 0.5], [0.2, -0.3]])
TS = np.array([0.0, 0.5, 1.0])


class Twin(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, t, z):
        return torch.tanh(self.linear(z)) * torch.cos(t)


def in_jax(t, z, params):
    return jnp.tanh(z @ params["linear.kernel"] + params["linear.bias"]) * jnp.cos(t)


def test_a_module_and_a_function_agree():
    found = compare(in_jax, Twin(), PARAMS, Z0, TS, solvers=("midpoint", "dopri5"))
    assert str(found) == f"all {len(found.checks)} checks are within their bounds"
    assert {check.group for check in found.checks} == {"vector field", "trajectories", "gradients"}


def test_a_wrong_field_fails_with_place_and_values():
    wrong = lambda t, z, params: in_jax(t, z, params) * (1 + 1e-9 * t)
    with pytest.raises(AssertionError, match=r"t=1\[\d, \d\]: jax has .*, torch has "):
        assert_same(wrong, Twin(), PARAMS, Z0, TS, solvers=("euler",))


def test_a_gradient_that_is_cut_is_found():
    def detached(t, z, params):
        return torch.tanh(z @ params["w"]) + params["b"].detach()

    whole = lambda t, z, params: jnp.tanh(z @ params["w"]) + params["b"]
    params = {"w": PARAMS["linear.kernel"], "b": PARAMS["linear.bias"]}
    found = compare(whole, detached, params, Z0, TS, solvers=("euler",))
    assert found.failures
    assert {check.worst.tensor for check in found.failures} == {"b"}


def test_layouts_may_differ():
    # The state is [features, batch] in JAX and [batch, features] in torch.
    turned = lambda t, z, params: in_jax(t, z.T, params).T
    assert_same(turned, Twin(), PARAMS, Z0.T, TS, solvers=("euler",), axes=(1, 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"solvers": ("leapfrog",)}, "leapfrog.*choose one of"),
        ({"step_size": 0.3}, "not multiples of the step 0.3"),
        ({"ts": [0.0, 1.0, 0.5]}, "all increasing or decreasing"),
        ({"params": {"linear.bias": np.zeros(2)}}, r"lack linear\.weight"),
        ({"field_jax": lambda t, z, params: None}, "`field_jax` returned None"),
        ({"field_torch": lambda t, z, params: None}, "`field_torch` returned None"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    given = {"field_jax": in_jax, "field_torch": Twin(), "params": PARAMS, "z0": Z0, "ts": TS}
    with pytest.raises(ValueError, match=message):
        compare(**given | {"solvers": ("euler",)} | change)
