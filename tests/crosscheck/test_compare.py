"""`compare` and `assert_same` for a user's own field."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from crosscheck import compare, fields, trajectories
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


def test_a_wrong_field_fails_with_place_and_values():
    wrong = lambda t, z, params: in_jax(t, z, params) * (1 + 1e-9 * t)
    with pytest.raises(AssertionError, match=r"t=1\[\d, \d\]: jax has .*, torch has "):
        assert_same(wrong, Twin(), PARAMS, Z0, TS, solvers=())


def test_a_gradient_that_is_cut_is_found():
    def detached(t, z, params):
        return torch.tanh(z @ params["w"]) + params["b"].detach()

    whole = lambda t, z, params: jnp.tanh(z @ params["w"]) + params["b"]
    params = {"w": PARAMS["linear.kernel"], "b": PARAMS["linear.bias"]}
    found = compare(whole, detached, params, Z0, TS, solvers=("euler",))
    assert found.failures
    assert {check.worst.tensor for check in found.failures} == {"b"}


class Scaled(nn.Module):
    """Parameters of its own that bear the names of Flax's layers, beside a layer."""

    def __init__(self):
        super().__init__()
        self.scale, self.kernel = (nn.Parameter(torch.zeros(2)) for _ in range(2))
        self.linear = nn.Linear(2, 2)

    def forward(self, t, z):
        return self.linear(z * self.scale) + self.kernel


def test_layouts_may_differ_and_a_module_s_own_parameter_may_be_called_scale():
    def turned(t, z, p):
        """The state is [features, batch] here and [batch, features] in torch."""
        return ((z.T * p["scale"]) @ p["linear.kernel"] + p["linear.bias"] + p["kernel"]).T

    params = PARAMS | {"scale": np.array([0.5, 2.0]), "kernel": np.array([0.1, -0.1])}
    assert_same(turned, Scaled(), params, Z0.T, TS, solvers=("euler",), axes=(1, 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"solvers": ("leapfrog",)}, "leapfrog.*choose one of"),
        ({"step_size": 0.3}, "not multiples of the step 0.3"),
        ({"ts": [0.0, 1.0, 0.5]}, "all increasing or decreasing"),
        ({"params": {"linear.bias": np.zeros(2)}}, r"lack linear\.weight"),
        ({"ts": [0.0, np.inf]}, "ts is .* finite real numbers"),
        ({"ts": 1.0}, "ts is 1.0; expected at least two times"),
        ({"z0": Z0 * 1j}, "z0 is .* real numbers"),
        ({"z0": Z0 * np.nan}, "z0 is .* finite real numbers"),
        ({"z0": None}, "z0 is None"),
        ({"z0": Z0[:0]}, "z0 is "),
        ({"params": None}, "params is None"),
        ({"params": {"a": {"b": 1.0}}}, r"params\['a'\] is {'b': 1.0}"),
        ({"params": {**PARAMS, "linear.bias": np.zeros(2) * 1j}}, "bias'] is .* real numbers"),
        ({"params": {**PARAMS, "linear.kernel": np.zeros(4)}}, r"kernel as \[4\]; \[\*, in, out\]"),
        ({"params": {**PARAMS, "linear.weight": np.zeros((2, 2))}}, r"linear\.weight twice"),
        ({"axes": (0,)}, "an order of all 2 axes"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    arguments = {"params": PARAMS, "z0": Z0, "ts": TS, "solvers": ("euler",)} | change
    with pytest.raises(ValueError, match=message):
        compare(in_jax, Twin(), **arguments)


ONES = torch.ones(2, 2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("in_jax", "in_torch", "message"),
    [
        (lambda t, z, p: None, lambda t, z, p: z, "field_jax returned None"),
        (lambda t, z, p: [z], lambda t, z, p: z, r"field_jax returned \["),
        (
            lambda t, z, p: z.sum(),
            lambda t, z, p: z.sum(),
            r"field_jax .* \[\]; expected .*\[2, 2\]",
        ),
        (lambda t, z, p: z * 1j, lambda t, z, p: z * 1j, "field_jax returned complex128"),
        (lambda t, z, p: z, lambda t, z, p: None, "field_torch returned None"),
        (lambda t, z, p: z, lambda t, z, p: z[0], r"field_torch returned float64 of shape \[2\]"),
        (lambda t, z, p: z, lambda t, z, p: ONES.int(), "field_torch returned int32"),
    ],
)
def test_what_is_no_derivative_is_refused_and_named(in_jax, in_torch, message):
    with pytest.raises(ValueError, match=message):
        compare(in_jax, in_torch, {}, Z0, TS)


@pytest.mark.parametrize("torch_too", [True, False])
def test_a_field_that_is_not_finite_does_not_pass(torch_too):
    in_jax = lambda t, z, p: z * (jnp.nan if torch_too else 1.0)
    found = compare(in_jax, lambda t, z, p: z * torch.nan, {}, Z0, TS, solvers=())
    assert not found.passed


def test_more_steps_than_usual_are_no_fault():
    pair = trajectories.solve_both(fields.mlp(), "euler", value=2.0**-12, ts=np.array([0.0, 1.0]))
    assert pair.jax.accepted == 4096
    assert all(check.passed for check in trajectories.checks(pair))
