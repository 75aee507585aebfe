"""States and gradients of every solver by every method, both ways, against closed forms.

A new solver is tested by being in `SOLVERS` and having an order here.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from closed_forms import DECAY, PROBLEMS

from torch_node.solve import ADAPTIVE, FIXED_STEP, SOLVERS, solve

# Of implicit Adams in few steps that of the first step with a history.
ORDER = {
    "euler": 1, "midpoint": 2, "rk4": 4, "implicit_adams": 4,
    "adaptive_heun": 2, "bosh3": 3, "dopri5": 5, "dopri8": 8,
}  # fmt: skip
# Errors grow by e^(|df/dy| T), of which the largest is that of `logistic`: e^(2 x 2).
GROWTH = 60
TOLERANCE = {"adaptive_heun": 1e-4, "bosh3": 1e-6, "dopri5": 1e-9, "dopri8": 1e-9}
STABLE = [solver for solver in FIXED_STEP if solver != "explicit_adams"]
CASES = [
    (solver, adjoint)
    for solver in SOLVERS
    for adjoint in ("direct", "adjoint", "handwritten")
    if adjoint != "handwritten" or solver == "euler"
]


def results(problem, backwards, solver=None, dtype=torch.float64, **settings):
    """States, and the gradients in y0, ts and a of a loss on all of them; exact without solver."""
    number = lambda x: torch.tensor(x, dtype=dtype, requires_grad=True)
    ts = number(problem.ts[::-1] if backwards else problem.ts)
    y0, a = number(problem.y0), number(problem.a)
    if solver is None:
        ys = torch.stack([problem.exact(torch, t, ts[0], y0, a) for t in ts])
    else:
        field = lambda t, y: problem.field(torch, t, y, a)
        ys = solve(field, y0, ts, params=(a,), solver=solver, **settings).ys
    weights = torch.linspace(-1, 1.5, ys.numel(), dtype=dtype).reshape(ys.shape)
    return ys.detach(), *torch.autograd.grad((weights * ys.sin()).sum(), (y0, ts, a))


def errors(found, exact):
    """Of states, and gradients in y0, ts and a, each relative to the largest entry, at least 1."""
    return [
        ((a.double() - b).abs().max() / b.abs().max().clamp(min=1)).item()
        for a, b in zip(found, exact, strict=True)
    ]


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("solver", "adjoint"), [c for c in CASES if c[0] in ADAPTIVE])
def test_adaptive(solver, adjoint, backwards):
    tolerance = TOLERANCE[solver]
    for problem in PROBLEMS:
        settings = {"adjoint": adjoint, "rtol": tolerance, "atol": tolerance}
        found = results(problem, backwards, solver, **settings)
        states, dy0, dts, da = errors(found, results(problem, backwards))
        assert max(states, dy0, da) < GROWTH * tolerance, problem.name
        assert dts < GROWTH * of_times(solver, adjoint, tolerance), problem.name


def of_times(solver, adjoint, tolerance):
    """By `direct` a time's gradient is the slope of an interpolant, of an order less."""
    return tolerance ** (1 - 1 / ORDER[solver] if adjoint == "direct" else 1)


@pytest.mark.filterwarnings("ignore:Functional iteration")  # torchdiffeq's, in the backward solve
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("solver", "adjoint"), [c for c in CASES if c[0] in STABLE])
def test_fixed_step(solver, adjoint, backwards):
    """Errors, summed over the problems, fall by 2^order over a halving of the step, less a half.

    All steps divide all intervals: Adams wants equal ones.
    """
    h = 1 / 32 if solver == "implicit_adams" else 1 / 16
    settings = {"adjoint": adjoint, "rtol": 1e-13, "atol": 1e-13}
    totals = torch.zeros(2, 4)
    for problem in PROBLEMS:
        exact = results(problem, backwards)
        for total, step in zip(totals, (h, h / 2), strict=True):
            found = results(problem, backwards, solver, step_size=step, **settings)
            total += torch.tensor(errors(found, exact))
    orders = (totals[0] / totals[1]).log2()
    if adjoint == "direct" and solver == "implicit_adams":
        # A time that moves makes unequal steps, of which Adams knows nothing: C h, C < 2 |y''|.
        orders[2] = 9 if totals[1, 2] < 8 * h else 0
    assert (orders > ORDER[solver] - 0.5).all(), (orders, totals)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("adjoint", ["direct", "adjoint"])
def test_explicit_adams(adjoint, backwards):
    """Explicit Adams of order 11 is unstable for h |df/dy| > 0.0034: no time for that to show."""
    for problem in PROBLEMS:
        problem = dataclasses.replace(problem, ts=tuple(t / 8 for t in problem.ts))
        found = results(problem, backwards, "explicit_adams", adjoint=adjoint, step_size=1 / 32)
        states, dy0, dts, da = errors(found, results(problem, backwards))
        # Of order 3 in h |df/dy| < 1 / 16; nothing has time to grow.
        assert max(states, dy0, da, dts if adjoint == "adjoint" else 0) < (1 / 16) ** 3, problem


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("solver", "adjoint"), CASES)
def test_float32_is_float64_but_for_rounding(solver, adjoint, backwards):
    step_size = 1 / 8 if solver in FIXED_STEP else None
    settings = {"adjoint": adjoint, "step_size": step_size, "rtol": 1e-4, "atol": 1e-4}
    single, double = (
        results(DECAY, backwards, solver, dtype, **settings)
        for dtype in (torch.float32, torch.float64)
    )
    assert {part.dtype for part in single} == {torch.float32}
    *rest, dts, da = errors(single, double)
    if step_size:  # eight steps of a dozen operations
        assert max(*rest, dts, da) < 100 * torch.finfo(torch.float32).eps
    else:  # rounding may move a step
        assert max(*rest, da) < 1e-4
        assert dts < of_times(solver, adjoint, 1e-4)
