from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from torch_node.solve import ADAPTIVE, FIXED_STEP, SOLVERS, SolveError, check, fixed_grid, solve

Y0 = 0.1


class Logistic(nn.Module):
    """y' = rate y (1 - y) cos t: nonlinear, and explicit in time. Counts its own calls."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
        self.calls = 0

    def forward(self, t, y):
        self.calls += 1
        return self.rate * y * (1 - y) * torch.cos(t)


def exact(t: float) -> float:
    return 1 / (1 + (1 / Y0 - 1) * math.exp(-2 * math.sin(t)))


def run(solver, ts=(0.0, 2.0), *, adjoint="direct", field=None, dtype=torch.float64, **settings):
    field = field or Logistic().to(dtype)
    y0 = torch.tensor([Y0], dtype=dtype, requires_grad=True)
    ts = torch.tensor(ts, dtype=dtype)
    return solve(field, y0, ts, solver=solver, adjoint=adjoint, **settings)


def error(solution, t: float) -> float:
    return abs(solution.ys[-1].item() - exact(t))


# Adams: the start-up and the first multistep step (order 3 explicit, 4 implicit, each one local
# error of one order more) decide the order of the whole.
ORDERS = {"euler": 1, "midpoint": 2, "rk4": 4, "explicit_adams": 4, "implicit_adams": 5}


@pytest.mark.parametrize("solver", FIXED_STEP)
def test_order_of_fixed_step_solvers(solver):
    order = ORDERS[solver]
    # error = C h^p (1 + O(h)), so the slope over a halving is p + O(h): 0.3 at h = 1/40.
    # implicit_adams: the tolerance, which ends the corrector's iteration, must be below the error.
    errors = [error(run(solver, step_size=2 / n, rtol=1e-13, atol=1e-13), 2.0) for n in (80, 160)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize(
    ("solver", "order", "tolerances"),
    [
        ("adaptive_heun", 2, (1e-4, 1e-6)),
        ("bosh3", 3, (1e-6, 1e-9)),
        ("dopri5", 5, (1e-7, 1e-11)),
        ("dopri8", 8, (1e-7, 1e-11)),
    ],
)
def test_order_of_adaptive_solvers(solver, order, tolerances):
    """Error against steps taken: with equal error per step, the error goes as steps^-order."""
    coarse, fine = (run(solver, rtol=tol, atol=tol) for tol in tolerances)
    slope = math.log(error(coarse, 2.0) / error(fine, 2.0)) / math.log(
        fine.accepted / coarse.accepted
    )
    # Steps differ in size and error constants with them: half an order below. Above, the error
    # may fall faster than the estimate that chooses the steps.
    assert order - 0.5 < slope < order + 3


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_time_and_both_directions(solver):
    settings = {"step_size": 0.02} if solver in FIXED_STEP else {"rtol": 1e-6, "atol": 1e-6}
    # Explicit Adams goes unstable where the step changes: equal intervals for it.
    ts = (0.0, 0.5, 1.0, 2.0) if solver == "explicit_adams" else (0.0, 0.305, 1.0, 2.0)
    there = run(solver, ts, **settings)
    # Euler's global error, the largest here, is (e^L - 1) / (2 L) max|y''| h < 4 h.
    bound = 8e-2 if solver == "euler" else 1e-3 if solver in FIXED_STEP else 1e-4
    for t, y in zip(ts, there.ys, strict=True):
        assert abs(y.item() - exact(t)) < bound
    y1 = torch.tensor([exact(2.0)], dtype=torch.float64)
    times = torch.tensor(ts, dtype=torch.float64).flip(0)
    back = solve(Logistic(), y1, times, solver=solver, adjoint="direct", **settings)
    for t, y in zip(ts[::-1], back.ys, strict=True):
        assert abs(y.item() - exact(t)) < bound
    assert back.step_times[0] == 2.0
    assert back.step_times[-1] == pytest.approx(0.0, abs=1e-12)
    assert back.step_times == sorted(back.step_times, reverse=True)


@pytest.mark.parametrize("solver", ADAPTIVE)
def test_adaptive_solvers_keep_their_accuracy_at_the_last_time_and_stay_inside(solver):
    """Not so in torchdiffeq as it comes: dopri8 is off by 1,000 times the tolerance here."""
    latest = 0.0

    def field(t, y):
        nonlocal latest
        latest = max(latest, t.item())
        return 2 * y * (1 - y) * torch.cos(t)

    tol = 1e-6 if solver == "adaptive_heun" else 1e-9
    ts = (0.0, 0.7, 2.0) if solver in ("dopri8", "bosh3") else (0.0, 2.0)
    solution = run(solver, ts, field=field, rtol=tol, atol=tol)
    assert latest <= 2.0
    for t, y in zip(ts, solution.ys, strict=True):
        # Global error: the tolerance per step, times steps, times growth; 100 covers bosh3's 200
        # steps with errors mostly below the tolerance.
        assert abs(y.item() - exact(t)) < 100 * tol


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("adjoint", ["direct", "adjoint", "handwritten"])
def test_nfe_is_the_number_of_calls(solver, adjoint):
    if adjoint == "handwritten" and solver != "euler":
        pytest.skip("has its own Euler solver")
    field = Logistic()
    settings = {"step_size": 0.25} if solver in FIXED_STEP else {}
    solution = run(solver, field=field, adjoint=adjoint, **settings)
    assert solution.nfe == field.calls > 0
    assert solution.nfe_backward == 0
    for _ in range(2):  # each pass is counted from zero
        before = field.calls
        solution.ys[-1].sum().backward(retain_graph=True)
        assert solution.nfe_backward == field.calls - before
        assert (solution.nfe_backward > 0) == (adjoint != "direct")
    assert solution.nfe + 2 * solution.nfe_backward == field.calls


def test_nfe_of_known_methods():
    stages = {"euler": 1, "midpoint": 2, "rk4": 4}
    for solver, per_step in stages.items():
        assert run(solver, step_size=0.25).nfe == 8 * per_step
    dopri5 = run("dopri5")
    # Six new evaluations a step (the last is the next one's first), two to choose the first step.
    assert dopri5.nfe == 2 + 6 * (dopri5.accepted + dopri5.rejected)
    # Two Runge-Kutta steps of four, then one evaluation a step.
    assert run("explicit_adams", step_size=0.25).nfe == 2 * 4 + 6


def test_rejected_steps_are_counted():
    def jump(t, y):
        return torch.where(t < 0.5, 0.0, 10.0) * torch.ones_like(y)

    solution = run("dopri5", (0.0, 1.0), field=jump)
    assert solution.rejected > 0
    assert solution.nfe == 2 + 6 * (solution.accepted + solution.rejected)
    assert len(solution.step_times) == solution.accepted + 1


@pytest.mark.parametrize("solver", FIXED_STEP)
def test_steps_are_counted_and_land_on_every_time(solver):
    solution = run(solver, (0.0, 0.3, 1.0), step_size=0.1)
    assert solution.accepted == 10
    assert solution.step_times == pytest.approx([k / 10 for k in range(11)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_grid(dtype):
    ts = torch.tensor([0.0, 0.3, 1.0], dtype=dtype)
    grid = fixed_grid(ts, 0.1)
    assert len(grid) == 11
    assert grid[3] == ts[1]
    assert grid[-1] == ts[2]
    assert len(fixed_grid(ts, 5.0)) == 3
    uneven = fixed_grid(ts, 0.2).diff()
    assert uneven.max() <= 0.2
    torch.testing.assert_close(fixed_grid(-ts, 0.1), -grid)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_the_users(solver, dtype):
    seen = set()

    def field(t, y):
        seen.update((t.dtype, y.dtype))
        return -y * t

    solution = run(
        solver, field=field, dtype=dtype, step_size=0.5 if solver in FIXED_STEP else None
    )
    assert solution.ys.dtype == dtype
    assert seen == {dtype}


def test_nonconvergence_of_the_corrector_is_counted(recwarn):
    stiff = lambda t, y: -60 * (y - torch.cos(t))
    solution = run("implicit_adams", field=stiff, step_size=0.1, rtol=1e-10, atol=1e-10)
    # |h df/dy| = 6, by which the corrector contracts times 3/8 > 1: only the first two steps, which
    # have no corrector, can converge.
    assert solution.nonconverged == solution.accepted - 2
    assert not [w for w in recwarn if "converge" in str(w.message)]
    assert run("implicit_adams", step_size=0.01, rtol=1e-6, atol=1e-6).nonconverged == 0


@pytest.mark.parametrize("adjoint", ["direct", "adjoint"])
def test_too_many_steps(adjoint):
    with pytest.raises(SolveError, match=r"t = \S+ with step size \S+ after 20 evaluations") as e:
        run("dopri5", (0.0, 50.0), adjoint=adjoint, rtol=1e-8, atol=1e-8, max_steps=3)
    assert "limit of 3 steps" in str(e.value)
    assert "raise `max_steps`" in str(e.value)


def test_too_many_fixed_steps_are_refused_before_the_first():
    field = Logistic()
    with pytest.raises(SolveError, match="needs 20 steps and the limit is 19"):
        run("euler", field=field, step_size=0.1, max_steps=19)
    assert field.calls == 0


def test_too_many_steps_in_the_backward_solve():
    class Growth(nn.Module):
        def forward(self, t, y):
            return 30 * torch.sin(30 * t) * y * (1 - y)

    solution = run("dopri5", field=Growth(), adjoint="adjoint", rtol=1e-3, atol=1e-3)
    solution = run(
        "dopri5", field=Growth(), adjoint="adjoint", rtol=1e-3, atol=1e-3,
        max_steps=solution.accepted + solution.rejected,
    )  # fmt: skip
    with pytest.raises(SolveError, match=r"backward \(adjoint\) solve stopped"):
        (1e6 * solution.ys[-1]).sum().backward()


@pytest.mark.parametrize("solver", SOLVERS)
def test_blow_up_is_an_error(solver):
    """y' = y^2 from 1 reaches infinity at t = 1."""
    settings = {"step_size": 0.05} if solver in FIXED_STEP else {}
    with pytest.raises(SolveError, match="is not finite|too short|limit of"):
        solve(
            lambda t, y: y**2,
            torch.ones(1, dtype=torch.float64),
            torch.tensor([0.0, 3.0], dtype=torch.float64),
            solver=solver,
            adjoint="direct",
            max_steps=2000,
            **settings,
        )


@pytest.mark.parametrize("solver", SOLVERS)
def test_nan_field_is_an_error(solver):
    settings = {"step_size": 0.05} if solver in FIXED_STEP else {}
    with pytest.raises(SolveError, match="not finite"):
        run(solver, field=lambda t, y: y * math.nan, **settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rk45", "direct", None), "'rk45' is unknown to torch; choose one of dopri5"),
        (("dopri5", "checkpoint", None), "'checkpoint' is unknown to torch; choose one of direct"),
        (("dopri5", "handwritten", None), "has its own Euler solver"),
        (("euler", "direct", None), "give their size as `step_size`"),
        (("implicit_adams", "direct", None), "give their size as `step_size`"),
        (("rk4", "direct", 0.0), "a positive number expected"),
        (("rk4", "direct", math.nan), "a positive number expected"),
        (("dopri5", "direct", 0.1), "leave out `step_size`"),
    ],
)
def test_bad_choices(arguments, message):
    with pytest.raises(ValueError, match=message):
        check(*arguments)


@pytest.mark.parametrize("ts", [[0.0], [0.0, 0.0], [0.0, 1.0, 0.5]])
def test_bad_times(ts):
    with pytest.raises(ValueError, match="`ts"):
        run("dopri5", ts)


def test_a_plain_function_must_name_its_parameters():
    with pytest.raises(ValueError, match="cannot see the parameters"):
        run("dopri5", field=lambda t, y: -y, adjoint="adjoint")
