"""Where a plausible number would be wrong: `solve` is right there, or refuses in a sentence."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
import torch
from closed_forms import REFUSED_DTYPES, SLOPES_AT

import torch_node.solve
from torch_node.irregular import solve_at
from torch_node.solve import ADAPTIVE, FIXED_STEP, SOLVERS, SolveError, solve

DECAY = lambda t, y: -y
JUMPING = [s for s in SOLVERS if "adams" not in s]


def numbers(*values, dtype=torch.float64, grad=False):
    return torch.tensor(values, dtype=dtype, requires_grad=grad)


def options(solver, adjoint="direct", **changes):
    steps = {"step_size": 0.1} if solver in FIXED_STEP else {"rtol": 1e-6, "atol": 1e-6}
    return {"solver": solver, "adjoint": adjoint, "params": (), **steps, **changes}


def test_examples():
    found = doctest.testmod(torch_node.solve)
    assert found.failed == 0 < found.attempted


@pytest.mark.usefixtures("_no_type_checks")
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    ("y0", "dtype"),
    [
        (torch.tensor([10, 20]), torch.float32),
        (torch.tensor([True]), torch.float32),
        ([10.0, 20], torch.float32),
        (10, torch.float32),
        (np.array([10.0, 20.0]), torch.float64),
    ],
)
def test_what_is_no_float_becomes_one(solver, y0, dtype):
    found = solve(DECAY, y0, [0, 1], **options(solver, rtol=1e-4, atol=1e-4))
    assert found.ys.dtype == dtype
    start = torch.as_tensor(y0, dtype=dtype)
    # Euler: (1 - h)^(1 / h) = e^-1 (1 - h / 2 + ...).
    torch.testing.assert_close(found.ys[-1], start * math.exp(-1), rtol=0.06, atol=0)


@pytest.mark.usefixtures("_no_type_checks")
@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        *(({"y0": torch.ones(1, dtype=getattr(torch, d))}, d) for d in REFUSED_DTYPES),
        ({"y0": "1"}, "`y0` is '1'"),
        ({"y0": None}, "`y0` is None"),
        ({"y0": torch.ones(0, 2)}, "holds no number"),
        ({"ts": [0.0, math.nan, 1.0]}, r"`ts\[1\]` is nan"),
        ({"ts": [0.0, math.inf]}, r"`ts\[1\]` is inf"),
        ({"ts": [0.0, 1.0, 0.5, 2.0]}, r"`ts\[1:3\]` is \[1.0, 0.5\]"),
        ({"ts": [0.0, 1.0, 1.0]}, "strictly increasing or strictly decreasing"),
        ({"ts": torch.tensor([1.7e9, 1.7e9 + 0.5])}, "or keep them in float64"),
        ({"ts": [0.0]}, "at least two times"),
        ({"ts": torch.zeros(2, 2)}, "in one vector"),
        ({"ts": None}, "`ts` is None"),
        ({"ts": ["a", "b"]}, r"`ts` is \['a', 'b'\]"),
        *(
            ({"ts": make([2**24 + 1, 2**24 + 11]), "y0": torch.ones(2)}, "is 12 apart, but was 10")
            for make in (list, np.array, torch.tensor)
        ),
        ({"rtol": -1e-3}, "`rtol` is -0.001"),
        ({"rtol": "tight"}, "`rtol` is 'tight'"),
        ({"atol": torch.ones(2)}, "one number expected"),
        ({"atol": math.nan}, "`atol` is nan"),
        ({"rtol": 0, "atol": 0}, "both 0"),
        *(({"max_steps": limit}, "a whole number of at least 1") for limit in (0, math.nan, 2.5)),
        ({"max_step": 0.0}, "`max_step` is 0.0"),
        ({"jump_t": [math.nan]}, "`jump_t` is"),
        ({"jump_t": "noon"}, "`jump_t` is 'noon'"),
        ({"jump_t": torch.ones(1, requires_grad=True)}, "gradients are not known"),
        ({"solver": "rk4", "step_size": 0.1, "max_step": 0.1}, "leave out `max_step`"),
        ({"solver": "implicit_adams", "step_size": 0.1, "jump_t": [0.5]}, "piece by piece"),
        ({"adjoint": "adjoint", "params": torch.ones(2)}, r"such as \(tensor,\)"),
        ({"field": lambda t, y: y[:1]}, r"shape \(1,\) at t = 0; .* shape \(2,\)"),
        ({"field": lambda t, y: 1.0}, "`field` returned 1.0"),
        ({"field": lambda t, y: y.mul_(-1)}, "changed the state that it was given, in place, at t"),
        ({"field": lambda t, y: torch.ones(2, dtype=torch.int64)}, "returned torch.int64"),
    ],
)
def test_what_cannot_be_solved_is_refused_in_a_sentence(changes, complaint):
    given = {"field": DECAY, "y0": numbers(1, 2), "ts": numbers(0, 1), **options("dopri5")}
    given |= changes
    if given["solver"] != "dopri5":
        del given["rtol"], given["atol"]
    with pytest.raises(ValueError, match=complaint) as error:
        solve(**given)
    assert "\n" not in str(error.value)
    assert "--" not in str(error.value)


@pytest.mark.parametrize(
    "ts",
    [np.array([0.0, 1.0])[::-1][::-1], np.array([0, 1], ">f8"), np.array([0, 1], np.longdouble)],
)
def test_arrays_of_any_layout_are_times_and_states(ts):
    for times, exact in ((ts, math.exp(-1)), (ts[::-1], math.exp(1))):
        found = solve(DECAY, ts[::-1], times, **options("dopri8", atol=1e-9)).ys[-1]
        # Some steps of an error of 1e-6 each.
        torch.testing.assert_close(found, exact * numbers(1, 0), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("adjoint", ["direct", "adjoint"])
@pytest.mark.parametrize(
    "norm",
    [
        lambda y: -y.abs().max(),  # of the adjoint no error was ever too large
        lambda y: y.abs(),
        lambda y: float(y.abs().max()),
        lambda y: None,
        lambda y: y.abs().max() + 0j,
    ],
)
def test_a_norm_that_is_no_size_is_refused(norm, adjoint):
    with pytest.raises(ValueError, match="`norm` returned .* one number >= 0 expected"):
        solve(DECAY, numbers(1, 2), numbers(0, 1), **options("dopri5", adjoint, norm=norm))


@pytest.mark.parametrize("size", [0.0, 0.5])
def test_a_norm_that_is_the_same_for_all_states_is_refused(size):
    """Every step would do: exp(-10) was found as 176 at tolerances of 1e-9."""
    norm = lambda y: size + 0 * y.sum()
    with pytest.raises(ValueError, match="`norm` is the same for all states"):
        solve(DECAY, numbers(1, 2), numbers(0, 1), **options("dopri5", norm=norm))


def test_times_a_rounding_of_rounding_apart():
    assert solve(DECAY, numbers(1), numbers(0, 1e-300), **options("dopri5")).ys[-1].item() == 1


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_field_may_fill_one_tensor_every_time(solver):
    filled = torch.empty(2, dtype=torch.float64)
    ours, theirs = (
        solve(field, numbers(1, 2), numbers(0, 1), **options(solver)).ys
        for field in (lambda t, y: filled.copy_(-y), lambda t, y: -y)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("adjoint", ["direct", "adjoint", "handwritten"])
@pytest.mark.parametrize("solver", ["dopri5", "rk4", "euler"])
def test_unix_times_keep_their_digits_beside_a_float32_state(solver, adjoint):
    """y' = a y (t - t0): y(t) = exp(a (t - t0)^2 / 2), whose clock float32 cannot tell."""
    if adjoint == "handwritten" and solver != "euler":
        pytest.skip("has its own Euler solver")
    y0, a = (numbers(v, dtype=torch.float32, grad=True) for v in (1.0, 0.5))
    ts = numbers(1.7e9, 1.7e9 + 0.5, 1.7e9 + 1, grad=True)
    step = {"step_size": 0.01} if solver in FIXED_STEP else {}
    settings = options(solver, adjoint, params=(a,), **step)
    found = solve(lambda t, y: a * y * (t - 1.7e9), y0, ts, **settings)
    dy0, dts, da = torch.autograd.grad(found.ys[-1].sum(), (y0, ts, a))
    y = math.exp(0.25)
    # Euler's error is h / 2 max|y''| < 2 h; else rounding in the state, and an interpolant's slope.
    bound = 0.02 if solver == "euler" else 2e-5
    assert found.ys.flatten().tolist() == pytest.approx([1, math.exp(0.0625), y], abs=bound)
    assert dts.dtype == torch.float64
    assert [*dy0, *dts, *da] == pytest.approx([y, 0, 0, 0.5 * y, 0.5 * y], abs=bound)


@pytest.mark.parametrize("adjoint", ["direct", "adjoint", "handwritten"])
def test_second_derivatives_are_right_or_refused(adjoint):
    """y' = a y^2: y(1) = y0 / (1 - a y0), so dy(1)/dy0 = (1 - a y0)^-2."""
    y0, a = numbers(0.3, grad=True), numbers(1.0, grad=True)
    settings = options("euler", adjoint, params=(a,), step_size=1e-3)
    solution = solve(lambda t, y: a * y**2, y0, numbers(0, 1), **settings)
    (first,) = torch.autograd.grad(solution.ys[-1].sum(), y0, create_graph=True)
    assert first.item() == pytest.approx(0.7**-2, abs=5e-3)  # Euler: a few h
    for input_, exact in ((y0, 2 * 0.7**-3), (a, 0.6 * 0.7**-3)):
        if adjoint == "direct":
            (second,) = torch.autograd.grad(first.sum(), input_, retain_graph=True)
            assert second.item() == pytest.approx(exact, abs=2e-2)
        else:
            with pytest.raises(RuntimeError, match="cannot be differentiated again"):
                torch.autograd.grad(first.sum(), input_, retain_graph=True)


@pytest.mark.parametrize("solver", ADAPTIVE)
def test_second_derivatives_in_a_time_are_right_or_refused(solver):
    """y' = sin(3 t) - y^2 has y'' = 3 cos(3 t) - 2 y y'; the polynomial of a step may not."""
    field = lambda t, y: torch.sin(3 * t) - y**2
    y0, ts = numbers(0.7, grad=True), numbers(0, 0.37, 1, grad=True)
    ys = solve(field, y0, ts, **options(solver, rtol=1e-5, atol=1e-5)).ys[:, 0]
    in_y0, in_ts = torch.autograd.grad(ys[2], (y0, ts), create_graph=True)
    (mixed,) = torch.autograd.grad(in_y0, ts, retain_graph=True)
    # dy(1)/dy0 = exp(-2 int y), which grows by -2 y(1) in the last time: to a step's tolerance.
    assert mixed[2].item() == pytest.approx(-2 * (ys[2] * in_y0).item(), abs=1e-5)
    if solver in ("bosh3", "adaptive_heun"):
        with pytest.raises(RuntimeError, match="a time by bosh3 or adaptive_heun cannot be"):
            torch.autograd.grad(in_ts[2], ts)
        return
    (found,) = torch.autograd.grad(in_ts[2], ts)
    exact = 3 * torch.cos(3 * ts[2]) - 2 * ys[2] * field(ts[2], ys[2])
    # The interpolant is of order 4, its second derivative of 2: tolerances to the power of 2 / 5.
    assert found[2].item() == pytest.approx(exact.item(), abs=10 * 1e-5**0.4)


@pytest.mark.parametrize("ts", [(0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("adjoint", ["direct", "adjoint"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_field_is_never_asked_outside(solver, adjoint, ts):
    """From 1000 the usual trial step goes to t = 10; the field has no value there."""
    seen = []

    def field(t, y):
        seen.append(t.item())
        return torch.sqrt(t * (1 - t)) + 0 * y

    y0 = numbers(1000.0, grad=True)
    solution = solve(field, y0, numbers(*ts), **options(solver, adjoint, max_steps=10_000))
    solution.ys[-1].sum().backward()
    assert 0 <= min(seen) <= max(seen) <= 1
    assert y0.grad.item() == 1
    # The area of half a disc; tolerances are relative to 1000, and Euler's step is 0.1.
    exact = 1000 + (ts[1] - ts[0]) * math.pi / 8
    assert solution.ys[-1].item() == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_field_that_is_not_finite_stops_the_solve_at_once_and_says_where(solver):
    calls = []

    def field(t, y):
        calls.append(t.item())
        return torch.where(t > 0.5, math.nan, 1.0) * y

    with pytest.raises(SolveError, match="the vector field is not finite at t = 0[.]") as error:
        solve(field, numbers(1.0), numbers(0, 1), **options(solver))
    named = float(str(error.value).rpartition("at t = ")[2].partition(";")[0])
    first = next(t for t in calls if t > 0.5)
    assert named == pytest.approx(first)
    assert len(calls) - calls.index(first) < 13  # no more than is left of a step


@pytest.mark.parametrize(
    ("field", "y0", "changes", "cause"),
    [
        (DECAY, math.nan, {}, "`y0` is not finite; "),
        (
            lambda t, y: y**2,
            1.0,
            {},
            "t = (0.99|1.00).*too short to change t.*or the solution grow",
        ),
        (DECAY, 1.0, {"max_steps": 2}, "the limit of 2 steps is reached; raise `max_steps`"),
        (lambda t, y: 1e300 * y, 1e300, {}, "not finite"),
    ],
)
def test_every_failure_has_its_cause(field, y0, changes, cause):
    with pytest.raises(SolveError, match=cause) as error:
        solve(field, numbers(y0), numbers(0, 3), **options("dopri5", **changes))
    assert "--" not in str(error.value)


def test_the_resolution_of_time_is_that_of_the_present_time():
    field = lambda t, y: 50 * (1 - y) * torch.exp(-t)
    y0, ts = (numbers(*v, dtype=torch.float32) for v in ((0.0,), (0.0, 1e5)))
    assert solve(field, y0, ts, **options("dopri5")).ys[-1].item() == pytest.approx(1, abs=1e-5)


def test_the_handwritten_adjoint_counts_its_steps_and_nothing_else():
    y0 = numbers(1.0, grad=True)
    for ts, extra in ((numbers(0, 1), 0), (numbers(0, 1, grad=True), 1)):
        solution = solve(DECAY, y0, ts, **options("euler", "handwritten", max_steps=10))
        solution.ys[-1].sum().backward()
        assert solution.nfe_backward == 10 + extra


PULSE = lambda t, y: torch.where((t >= 5) & (t < 5.1), 10.0, 0.0) + 0 * y  # of area 1


@pytest.mark.parametrize("adjoint", ["direct", "adjoint", "handwritten"])
@pytest.mark.parametrize("solver", JUMPING)
@pytest.mark.parametrize(
    "ts", [(0, 10), (10, 0), (0, 5, 5.1, 10), (10, 5.1, 5, 0), (5, 10), (0, 5.05, 10)]
)
def test_jumps_are_landed_on(solver, adjoint, ts):
    if adjoint == "handwritten" and solver != "euler":
        pytest.skip("has its own Euler solver")
    y0, jumps = numbers(0.0, grad=True), [5.1, 5.0, 5.0, 99.0]
    settings = options(solver, adjoint, jump_t=jumps)
    if solver in FIXED_STEP:
        settings["step_size"] = 0.7
    solution = solve(PULSE, y0, numbers(*ts), **settings)
    solution.ys[-1].sum().backward()
    area = -1 if ts[0] > ts[-1] else 1
    assert y0.grad.item() == 1
    # 5.1 - 5 is 0.1 but for rounding of 5.1.
    assert solution.ys[-1].item() == pytest.approx(area, abs=1e-13)


# A field that has no value at its jumps, which are where the solve begins and ends, and within.
@pytest.mark.parametrize("adjoint", ["direct", "adjoint", "handwritten"])
@pytest.mark.parametrize("solver", JUMPING)
@pytest.mark.parametrize("ts", [(0, 2), (2, 0), (1.7e9, 1.7e9 + 2), (-2, -1.5, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_jump_at_either_end_is_never_asked_for(solver, adjoint, ts, dtype):
    if adjoint == "handwritten" and solver != "euler":
        pytest.skip("has its own Euler solver")
    at, asked = numbers(ts[0], ts[-1]), []

    def field(t, y):
        asked.append(t.item())
        return torch.where((t == at).any(), torch.nan, 2.0) + 0 * y

    settings = options(solver, adjoint, jump_t=at)
    y0, times = numbers(1.0, dtype=dtype, grad=True), numbers(*ts)
    solution = solve(field, y0, times, **settings)
    solution.ys[-1].sum().backward()
    # What a step adds is rounded, and where it ends too, if the solver's clock is not from ts[0].
    clock = abs(ts[0]) if dtype == torch.float64 else 0
    close = 2 * solution.accepted * (5 * torch.finfo(dtype).eps + clock * 2**-52)
    assert solution.ys[-1].item() == pytest.approx(1 + 2 * (ts[-1] - ts[0]), abs=close)
    assert y0.grad.item() == 1
    assert min(ts) < min(asked) <= max(asked) < max(ts)


@pytest.mark.parametrize("adjoint", ["direct", "adjoint"])
@pytest.mark.parametrize("solver", JUMPING)
def test_a_jump_at_an_end_takes_no_derivative_away(solver, adjoint):
    def gradients(jumps):
        y0, ts = numbers(0.7, grad=True), numbers(0.25, 1, grad=True)
        settings = options(solver, adjoint, jump_t=jumps)
        solution = solve(lambda t, y: t**2 * y, y0, ts, **settings)
        return torch.stack(torch.autograd.grad(solution.ys[-1], (y0, ts))[1:])

    # A rounding over a tolerance of 1e-6, by which it moves the steps.
    torch.testing.assert_close(gradients([0.25, 1.0]), gradients(None), rtol=2.3e-10, atol=0)


# y' is 2, then -3, then 5, with no value at the jumps, and steps are exact.
SLOPES = lambda t, y: torch.where(t < 1, 2.0, torch.where(t < 2, -3.0, 5.0)) + 0 * y
HOLES = lambda t, y: torch.where((t == 1) | (t == 2), torch.nan, SLOPES(t, y))


@pytest.mark.parametrize("adjoint", ["direct", "adjoint", "handwritten"])
@pytest.mark.parametrize("solver", JUMPING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("ts", "slopes"), SLOPES_AT)
def test_gradients_of_times_over_jumps(solver, adjoint, ts, slopes, dtype):
    if adjoint == "handwritten" and solver != "euler":
        pytest.skip("has its own Euler solver")
    y0, times = numbers(1.0, dtype=dtype, grad=True), numbers(*ts, grad=True)
    settings = options(solver, adjoint, jump_t=[1.0, 2.0])
    solution = solve(HOLES, y0, times, **settings)
    weights = torch.arange(1, len(ts) + 1, dtype=dtype)
    found = torch.autograd.grad((weights * solution.ys[:, 0]).sum(), (y0, times))
    # y_i = y0 - f0 t0 + ... + f_i t_i
    expected = weights.double() * numbers(*slopes)
    expected[0] = -slopes[0] * weights[1:].sum()
    assert found[0].item() == pytest.approx(weights.sum().item(), rel=1e-5)
    # An interpolated state's is a rounding over the length of a step, which is 1e-3 or more.
    torch.testing.assert_close(found[1], expected, rtol=1e3 * torch.finfo(dtype).eps, atol=0)


def test_a_gradient_of_times_over_jumps_is_not_differentiated_again():
    y0, ts = numbers(1.0, grad=True), numbers(0, 2, grad=True)
    settings = options("dopri5", "adjoint", jump_t=[1.0])
    ys = solve(lambda t, y: SLOPES(t, y) * y, y0, ts, **settings).ys
    for inputs in (y0, ts):
        (once,) = torch.autograd.grad(ys[-1].sum(), inputs, create_graph=True)
        with pytest.raises(RuntimeError, match="cannot be differentiated again"):
            torch.autograd.grad(once.sum(), ts, allow_unused=True)


def test_a_step_that_ends_on_a_jump_by_itself_does_not_hide_the_next_one():
    field = lambda t, y: torch.where(t < 1, 1.0, torch.where(t < 2.5, -3.0, 2.0)) + 0 * y
    settings = options("dopri5", max_step=0.5, jump_t=[1.0, 2.5])
    solution = solve(field, numbers(0.0), numbers(0, 4), **settings)
    assert solution.ys[-1].item() == pytest.approx(1 - 4.5 + 3, abs=1e-13)
    assert solution.rejected == 0


@pytest.mark.parametrize("solver", ADAPTIVE)
def test_a_largest_step_sees_a_pulse(solver):
    for ts in ((0, 10), (0, 5.05, 10), (10, 0)):
        found = solve(PULSE, numbers(0.0), numbers(*ts), **options(solver, max_step=0.05))
        assert np.abs(np.diff(found.step_times)).max() <= 0.05 * (1 + 1e-9)
        # Two edges, each known to the tolerance, or a hundredth of a pulse, as errors are missed.
        assert abs(found.ys[-1].item()) == pytest.approx(1, abs=0.02)
    assert solve(PULSE, numbers(0.0), numbers(0, 10), **options(solver)).ys[-1].item() == 0


@pytest.mark.parametrize("adjoint", ["direct", "adjoint", "handwritten"])
def test_a_constant_field_without_parameters_has_a_gradient(adjoint):
    y0, ts = numbers(1.0, grad=True), numbers(0, 1, grad=True)
    solution = solve(lambda t, y: torch.full_like(y, 2), y0, ts, **options("euler", adjoint))
    dy0, dts = torch.autograd.grad(solution.ys[-1].sum(), (y0, ts))
    assert dy0.item() == 1
    assert dts.tolist() == pytest.approx([-2, 2])


def test_an_absolute_tolerance_of_zero_where_a_gradient_starts_at_zero():
    y0, a, idle = (numbers(v, grad=True) for v in (1.0, 5.0, 1.0))
    settings = options("dopri5", "adjoint", params=(a, idle), atol=0.0)
    solution = solve(lambda t, y: -a * y + 0 * idle, y0, numbers(0, 0.5), **settings)
    solution.ys[-1].sum().backward()
    assert a.grad.item() == pytest.approx(-0.5 * math.exp(-2.5), rel=1e-4)
    assert idle.grad.item() == 0


@pytest.mark.parametrize(("solver", "adjoint"), [("dopri5", "adjoint"), ("euler", "handwritten")])
@pytest.mark.parametrize("ts", [(0.0, 1.0), (1.0, 0.0)])
def test_callbacks_of_the_field_are_called(solver, adjoint, ts):
    told = {"callback_step": [], "callback_accept_step": [], "callback_step_adjoint": []}

    class Field:
        def __call__(self, t, y):
            return -y

    for name, times in told.items():
        if adjoint == "adjoint" or name != "callback_accept_step":
            note = lambda self, t, y, dt, times=times: times.append((t.item(), dt.item()))
            setattr(Field, name, note)
    y0 = numbers(1.0, grad=True)
    solution = solve(Field(), y0, numbers(*ts), **options(solver, adjoint))
    solution.ys[-1].sum().backward()
    assert len(told["callback_step"]) == solution.accepted + solution.rejected
    assert [t for t, _ in told["callback_step"]] == pytest.approx(solution.step_times[:-1])
    assert told["callback_step_adjoint"][0][0] == ts[1]
    assert all(0 <= t <= 1 and dt > 0 for times in told.values() for t, dt in times)
    if adjoint == "adjoint":
        assert len(told["callback_accept_step"]) == solution.accepted


def test_samples_at_their_own_times_are_refused_what_solve_refuses():
    ts = numbers(0, 1).reshape(1, 2)
    with pytest.raises(ValueError, match="`substeps` is 0"):
        solve_at(DECAY, numbers(1.0), ts, substeps=0)


@pytest.mark.usefixtures("_no_type_checks")
@pytest.mark.parametrize(
    ("y0", "ts", "field", "message"),
    [
        ([[1.0, 2.0]], [[0, 1]], DECAY, "`ts` is of torch.int64"),
        ([[1, 2]], [[0.0, 1.0]], DECAY, "`y0` is of torch.int64"),
        (numbers([1, 2], dtype=torch.bfloat16), [[0.0, 1.0]], DECAY, "`y0` is of torch.bfloat16"),
        ([[1.0, 2.0]], numbers([0, 1], dtype=torch.float16), DECAY, "`ts` is of torch.float16"),
        ([[1.0, 2.0]], [[0.0, 1.0]], lambda t, y: y.mul_(-1), "in place, at t = 0;"),
        ([[1.0, 2.0]], [[0.0, 1.0]], lambda t, y: y[:, :1], r"shape \(1, 1\) for .* \(1, 2\)"),
        ([[1.0, 2.0]], [0.0, 1.0], DECAY, r"`ts` is \[2\] for `y0` of \[1, 2\]"),
        ([[1.0, 2.0]], [[0.0, 1.0]] * 2, DECAY, r"`ts` is \[2, 2\] for `y0` of \[1, 2\]"),
        ([[1.0, 2.0]], [[]], DECAY, r"`ts` is \[1, 0\]"),
    ],
)
def test_samples_whose_numbers_would_be_cut_or_spread_are_refused(y0, ts, field, message):
    with pytest.raises(ValueError, match=message):
        solve_at(field, torch.as_tensor(y0), torch.as_tensor(ts), substeps=2)


def test_a_sample_is_never_asked_for_beyond_its_last_time():
    """Where `start + (end - start)` is beyond `end`, and the field has no value there."""
    start, end = numbers(-0.8), numbers(0.3)
    assert start + (end - start) > end
    field = lambda t, y: torch.sqrt(end - t)[:, None] + 0 * y
    ys = solve_at(field, numbers([0.0]), torch.stack([start, end], 1), substeps=8)
    # The square root limits the order at the end: within 1e-2 of 2/3 1.1^1.5.
    assert ys[0, 1].item() == pytest.approx(2 / 3 * 1.1**1.5, abs=1e-2)


@pytest.mark.parametrize("adjoint", ["adjoint", "handwritten"])
def test_a_parameter_that_is_named_twice_is_counted_once(adjoint):
    def gradient(times):
        a, y0 = numbers(0.5, grad=True), numbers(1.0, grad=True)
        settings = options("euler", adjoint, params=(a,) * times)
        solve(lambda t, y: a * y, y0, numbers(0, 1), **settings).ys[-1].sum().backward()
        return a.grad

    torch.testing.assert_close(gradient(2), gradient(1), rtol=0, atol=0)


@pytest.mark.parametrize("adjoint", ["adjoint", "handwritten"])
def test_parameters_that_an_adjoint_would_count_wrong_are_refused(adjoint):
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.until = 0.5  # is not read in the first step back
            self.a = numbers(0.5, 2.0, grad=True)  # is no nn.Parameter
            self.b = torch.nn.Parameter(numbers(1.0, 1.0))

        def forward(self, t, y):
            return self.a * y + t * self.b if t < self.until else t * self.b

    field, y0 = Scaled(), numbers(1.0, 2.0, grad=True)
    settings = options("euler", adjoint, params=None)
    unseen = solve(field, y0, numbers(0, 1), **settings)
    with pytest.raises(ValueError, match=r"reads a tensor of shape \(2,\) that requires"):
        unseen.ys.sum().backward()
    named = options("euler", adjoint, params=(field.a, field.b))
    solve(field, y0, numbers(0, 1), **named).ys.sum().backward()
    assert field.a.grad.abs().min() > 0
    field.a = 2 * field.b  # of which the module knows what it is computed from
    known = settings | {"adjoint": "adjoint"}  # which keeps that graph
    solve(field, y0, numbers(0, 1, grad=True), **known).ys.sum().backward()
    both = options("euler", adjoint, params=(field.a, field.b))
    with pytest.raises(ValueError, match="would be counted twice"):
        solve(field, y0, numbers(0, 1), **both)


def test_parameters_are_known_in_inference_mode():
    field = torch.nn.Linear(1, 1, dtype=torch.float64)
    with torch.inference_mode():
        ends = [
            solve(lambda t, y: field(y), numbers(1.0), numbers(0, 1), **settings).ys[-1].item()
            for settings in (
                options("euler"),
                options("euler", "adjoint", params=[*field.parameters()]),
            )
        ]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("solver", FIXED_STEP)
def test_steps_whose_ends_rounding_moves_are_refused(solver):
    """In float32 times about 1e6 are 1/16 apart: Adams methods took 0.5625 and 0.625 for 0.6."""
    ts = numbers(1e6, 1e6 + 20, dtype=torch.float32)
    too_short, enough = (0.6, 60.0) if "adams" in solver else (0.1, 0.6)
    field = lambda t, y: torch.cos((t - 1e6) / 5) + 0 * y
    settings = options(solver, step_size=too_short)
    with pytest.raises(ValueError, match="rounding to torch.float32 moves the ends of steps"):
        solve(field, numbers(0, dtype=torch.float32), ts, **settings)
    solve(field, numbers(0, dtype=torch.float32), ts, **settings | {"step_size": enough})
    # The solver's clock is from ts[0] on.
    assert (
        solve(field, numbers(0, dtype=torch.float32), ts.double(), **settings).ys.isfinite().all()
    )
