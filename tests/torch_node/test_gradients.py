"""Gradients in y0, every time and all parameters, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from torch_node.solve import FIXED_STEP, SOLVERS, solve

INCREASING = (0.0, 0.5, 0.9, 2.0)
DECREASING = (2.0, 1.4, 1.0, 0.0)


class Field(nn.Module):
    """A small nonlinear field that depends on time twice over."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
        self.inner, self.shift = nn.Parameter(draw(3, 3)), nn.Parameter(draw(3))
        self.outer = nn.Parameter(draw(3, 3))

    def forward(self, t, y):
        return torch.tanh(y @ self.inner + self.shift + t) @ self.outer * torch.cos(t)


def inputs(times):
    y0 = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    ts = torch.tensor(times, dtype=torch.float64, requires_grad=True)
    return y0, ts


def loss(ys):
    """Depends on every component at every time, the first included."""
    weights = torch.linspace(-1, 1.5, ys.numel(), dtype=ys.dtype).reshape(ys.shape)
    return (weights * torch.sin(ys)).sum()


def gradient(times, **settings):
    """d loss / d (y0, ts, parameters) as one vector."""
    field, (y0, ts) = Field(), inputs(times)
    solution = solve(field, y0, ts, max_steps=100_000, **settings)
    grads = torch.autograd.grad(loss(solution.ys), (y0, ts, *field.parameters()))
    return torch.cat([g.reshape(-1) for g in grads])


def finite_differences(times, **settings):
    """Central differences of the computed loss: error O(eps^2) + rounding / eps ~ 1e-10."""
    field, (y0, ts) = Field(), inputs(times)
    eps, slopes = 1e-5, []
    with torch.no_grad():
        for tensor in (y0, ts, *field.parameters()):
            for entry in range(tensor.numel()):
                values = []
                for sign in (1, -1):
                    tensor.view(-1)[entry] += sign * eps
                    values.append(loss(solve(field, y0, ts, **settings).ys).item())
                    tensor.view(-1)[entry] -= sign * eps
                slopes.append((values[0] - values[1]) / (2 * eps))
    return torch.tensor(slopes, dtype=torch.float64)


def difference(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("times", [INCREASING, DECREASING])
@pytest.mark.parametrize("solver", FIXED_STEP)
def test_direct_is_the_gradient_of_the_computed_loss(solver, times):
    """Exact on a grid made of ts, whatever the step (which divides no interval of ts)."""
    settings = {"solver": solver, "adjoint": "direct", "step_size": 0.37}
    # Finite differences are the less accurate side: eps^2 = 1e-10 times a third derivative that
    # unstable explicit Adams lets grow to some hundreds.
    assert difference(gradient(times, **settings), finite_differences(times, **settings)) < 1e-7


@pytest.mark.parametrize("times", [INCREASING, DECREASING])
@pytest.mark.parametrize("adjoint", ["direct", "adjoint"])
@pytest.mark.parametrize("solver", ["dopri5", "dopri8"])
def test_adaptive_gradients_against_finite_differences(solver, adjoint, times):
    tight = {"solver": solver, "rtol": 1e-10, "atol": 1e-10}
    found = gradient(times, adjoint=adjoint, **tight)
    # The computed loss is within ~1e-10 of the true one and jumps by as much when a step appears,
    # so that its differences over 2e-5 are good to 1e-5; a time's gradient by `direct` is the
    # slope of an interpolant, one order less accurate than the state.
    assert difference(found, finite_differences(times, adjoint="direct", **tight)) < 2e-5


@pytest.mark.parametrize("times", [INCREASING, DECREASING])
def test_handwritten_against_finite_differences(times):
    """Richardson: twice the gradient at h / 2 minus that at h has an error of O(h^2)."""
    exact = finite_differences(times, solver="dopri8", adjoint="direct", rtol=1e-12, atol=1e-12)
    settings = {"solver": "euler", "adjoint": "handwritten"}
    coarse, fine, finest = (gradient(times, step_size=h, **settings) for h in (0.02, 0.01, 0.005))
    # Order 1 by itself, with a constant below 5 (the eigenvalues of df/dy reach 3) ...
    assert difference(finest, exact) < 5 * 0.005
    # ... and 2 extrapolated.
    assert difference(2 * finest - fine, exact) < 5**2 * 0.005**2
    assert math.log2(
        difference(2 * fine - coarse, exact) / difference(2 * finest - fine, exact)
    ) == pytest.approx(2, abs=0.4)


@pytest.mark.parametrize("solver", ["dopri5", "dopri8", "bosh3"])
def test_adjoint_approaches_direct_with_the_tolerance(solver):
    tolerances = (1e-3, 1e-5, 1e-7)
    differences = [
        difference(*(
            gradient((0.0, 2.0), solver=solver, adjoint=adjoint, rtol=tol, atol=tol)
            for adjoint in ("adjoint", "direct")
        ))
        for tol in tolerances
    ]  # fmt: skip
    assert differences[0] > differences[1] > differences[2]
    # Both have errors proportional to the tolerance, with constants below 100.
    for tol, found in zip(tolerances, differences, strict=True):
        assert found < 100 * tol


@pytest.mark.filterwarnings("ignore:Functional iteration")  # torchdiffeq's, in the backward solve
@pytest.mark.parametrize("solver", FIXED_STEP)
def test_adjoint_approaches_direct_with_the_step(solver):
    """One interval: Adams coefficients want equal steps."""
    if solver == "explicit_adams":
        pytest.skip("unstable at its order of 11 (see solve.py); its direct gradient is tested")
    order = {"euler": 1, "midpoint": 2}.get(solver, 4)
    pairs = [
        [
            gradient(
                (0.0, 2.0), solver=solver, adjoint=adjoint, step_size=h, rtol=1e-10, atol=1e-10
            )
            for adjoint in ("adjoint", "direct")
        ]
        for h in (0.05, 0.025)
    ]
    coarse, fine = (difference(*pair) for pair in pairs)
    # Two approximations of the same order; implicit Adams may do better than its 4.
    assert math.log2(coarse / fine) > order - 0.4


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("adjoint", ["direct", "adjoint"])
def test_float32(solver, adjoint):
    field = Field().float()
    y0, ts = (x.detach().float().requires_grad_() for x in inputs((0.0, 1.0)))
    step_size = 0.1 if solver in FIXED_STEP else None
    solution = solve(field, y0, ts, solver=solver, adjoint=adjoint, step_size=step_size)
    grads = torch.autograd.grad(loss(solution.ys), (y0, ts, *field.parameters()))
    assert {g.dtype for g in grads} == {torch.float32}
