"""Solve an initial value problem by names: solver, gradient method, tolerances in; NFE out.

What torchdiffeq 0.2.5 does, and what is made of it here (more in methods.py):

- An adaptive solver steps past the last time and interpolates back. That evaluates the field
  outside [t0, t1], and the interpolants of dopri8 and bosh3 are of lower order than the methods:
  at rtol = atol = 1e-9 dopri8's result was off by 2e-6. Here every adaptive solver lands on the
  last time, at the same NFE or less, and these two on every time (option `step_t`).
- A fixed-step solver without `step_size` takes ONE step for each interval of ts; implicit_adams on
  [0, 1] is then one Runge-Kutta step. Here a step size is required.
- With `step_size`, times between grid points are interpolated linearly, whatever the order of the
  method, and a time on the grid gets a gradient of exactly zero. Here the grid is made of ts: the
  interval between two times is cut into ceil(|dt| / step_size) equal steps.
- max_num_steps is counted for each interval of ts and, as underflow, ends in an AssertionError.
  Here `max_steps` counts accepted and rejected steps of one whole solve, and a failure is a
  SolveError.
- Adaptive solvers keep time in float64, but their stages in the dtype of the state. Here times
  wider than the state are counted from ts[0], and the field gets them in full.
- The adjoint's options are taken before decreasing times are negated, so that `step_t` has the
  wrong sign in the backward solve of a decreasing ts. Here they are passed apart.
- Adams coefficients assume equal steps: where intervals of ts are cut into different steps the
  order is lost, and `direct` gradients of more than two times (exact for the computed states) are
  of low order. The first two steps are Runge-Kutta; then the order rises with the history, from 3
  to 11 (explicit) or from 4 to 12 (implicit). Explicit Adams of order 11 is stable for h |df/dy| <
  0.0034 only: on y' = -10 y in [0, 1] its error is 1e15 in 40 steps and 5e62 in 320.
- adaptive_heun takes the derivative at its Euler predictor for that at the new state, and so needs
  one evaluation a step, not two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchdiffeq
from torch import Tensor

from torch_node import adjoint as by_hand
from torch_node import moving
from torch_node.adjoint import step_count
from torch_node.methods import ADAPTIVE as ADAPTIVE
from torch_node.methods import mended
from torch_node.once import differentiable_times, once_differentiable
from torch_node.solution import Solution as Solution
from torch_node.step_size import fixed_grid
from torch_node.times import (
    as_times,
    between_jumps,
    check_resolved,
    inside,
    jumps_between,
    solver_clock,
    with_jumps,
    without,
)
from torch_node.validate import ADJOINTS as ADJOINTS
from torch_node.validate import FIXED_STEP as FIXED_STEP
from torch_node.validate import SOLVERS as SOLVERS
from torch_node.validate import Given, as_state, check, check_limits, checked_norm, trainable
from torch_node.watch import Field, Watched, counting_nonconvergence
from torch_node.watch import SolveError as SolveError

POOR_INTERPOLANT = ("dopri8", "bosh3")
Norm = Callable[[Tensor], Tensor]


def solve(
    field: Field,
    y0: Given,
    ts: Given,
    *,
    params: Sequence[Tensor] | None = None,
    solver: str,
    adjoint: str,
    rtol: float = 1e-3,
    atol: float = 1e-3,
    step_size: float | None = None,
    max_steps: int = 4096,
    max_step: float | None = None,
    jump_t: Tensor | Sequence[float] | None = None,
    norm: Norm | None = None,
) -> Solution:
    """Solve dy/dt = field(t, y), y(ts[0]) = y0, for the state at every time in ts.

    >>> ts = torch.linspace(0, 1, 3, dtype=torch.float64)
    >>> y0 = torch.ones(1, dtype=torch.float64, requires_grad=True)
    >>> solution = solve(
    ...     lambda t, y: -y, y0, ts, solver="dopri5", adjoint="direct", rtol=1e-8, atol=1e-8
    ... )
    >>> [f"{y.item():.6f}" for y in solution.ys]  # exp(-t)
    ['1.000000', '0.606531', '0.367879']
    >>> solution.ys[-1].sum().backward()
    >>> f"{y0.grad.item():.6f}"  # dy(1)/dy0 = exp(-1)
    '0.367879'

    The adjoint method, for a field with parameters, in fixed steps, backwards in time:

    >>> field = torch.nn.Linear(2, 2)
    >>> solution = solve(
    ...     lambda t, y: field(y), torch.ones(3, 2), torch.tensor([1.0, 0.0]),
    ...     params=list(field.parameters()), solver="rk4", adjoint="adjoint", step_size=0.25,
    ... )
    >>> solution.ys[-1].square().sum().backward()
    >>> field.weight.grad.shape, solution.nfe, solution.nfe_backward
    (torch.Size([2, 2]), 16, 16)

    Gradients reach y0, ts and the parameters of the field, by `adjoint`:

    - "direct" backpropagates through the solver's steps (all are stored). It can be differentiated
      as often as the field, and nothing need be named in `params`.
    - "adjoint" solves torchdiffeq's augmented system backwards with the same solver and tolerances.
    - "handwritten" is adjoint.py, with Euler steps of at most `step_size`.

    The last two can be differentiated once, as "direct" by a time at a jump, or by any time with
    bosh3 and adaptive_heun; then they raise. All are reverse-mode (torch's forward mode and
    transforms raise its own errors). The size of steps is not differentiated. "direct" adds up
    gradients of parameters in their dtype, where bfloat16 loses many steps, the others in the
    state's. States and times are float32 or float64; the field gets a time in the wider of the two,
    never outside of ts.

    Args:
        field: maps a scalar time and a state to the state's derivative, a tensor of y0's shape, the
            same whenever it is asked: through dropout an adjoint's gradient is of another field,
            and running averages of a BatchNorm in train() move with its backward solve too. If it
            has `callback_step(t, y, dt)` or another of torchdiffeq's callbacks, they are called.
        y0: initial state, a tensor `[*state]` of any shape. Whole numbers become floats.
        ts: at least two times `[times]`, strictly increasing or decreasing.
        params: tensors, other than y0 and ts, whose gradients are wanted ("adjoint" and
            "handwritten" cannot see them otherwise); by default the parameters of `field` if it is
            an nn.Module, which may then read no other; () if there are none. "direct" needs none.
        solver: one of SOLVERS.
        adjoint: one of ADJOINTS.
        rtol, atol: tolerances of adaptive solvers. For implicit_adams they end the corrector's
            iteration, at most four times a step, and control nothing else.
        step_size: largest step of a fixed-step solver; each interval of ts is cut into
            ceil(|dt| / step_size) equal steps. None for adaptive solvers.
        max_steps: most steps, accepted and rejected, of the forward solve, and as many of a
            backward solve.
        max_step: longest step of an adaptive solver, for fields with short events that it would
            step over.
        jump_t: times at which the field jumps. A step ends there, and the next begins on the other
            side, with an evaluation of its own; the field is asked between the first and the last
            time only. A state at a jump moves with its time as it did on the way. Not for Adams.
        norm: of the state, in which errors are measured; by default its RMS. Backwards `adjoint`
            takes the largest of this norm of the state, of its adjoint, and the RMS of the rest.

    Raises:
        ValueError: what cannot be solved as given, naming the parameter.
        SolveError: more than max_steps, a step too short to change t, a field or state that is not
            finite; also from within `backward()`.
    """
    check(solver, adjoint, step_size)
    check_limits(solver, rtol, atol, max_steps, max_step)
    y0 = as_state(y0)
    if norm is not None and solver in ADAPTIVE:
        norm = checked_norm(norm, y0.detach())
    ts = as_times(ts, y0)
    jumps = jumps_between(solver, jump_t, ts)
    asked_for, moved = ts, moving.over_jumps(ts, jumps, step_size, adjoint)
    ts = differentiable_times(torch.where(moved, ts.detach(), ts), solver)
    clock, origin, theta = solver_clock(y0, ts, trainable(field, params, adjoint))
    watched = Watched(
        field,
        y0,
        ts.to(clock.dtype),
        origin,
        ends=between_jumps(ts.to(clock.dtype), jumps.to(clock.dtype)),
        jumps=jumps if origin is None else jumps - ts[0].detach(),
        solver=solver,
        adaptive=solver in ADAPTIVE,
        max_steps=max_steps,
        reversed_back=adjoint == "adjoint" and bool(ts[-1] < ts[0]),
        times_wanted=ts.requires_grad,
        theta=None if adjoint == "direct" or params is not None else theta,
    )
    jumps = inside(jumps, ts)
    if step_size is not None:
        check_resolved(solver, step_size, clock)
        _check_step_count(watched, ts, jumps, step_size)
    if origin is not None:
        jumps = jumps - (ts[0] if adjoint == "direct" else ts[0].detach())

    start = y0
    if moved[0]:
        start = moving.with_times(watched, y0[None], clock[:1], asked_for[:1], -1)[0]
    with counting_nonconvergence(solver) as nonconverged:
        if adjoint == "handwritten":
            assert step_size is not None
            times, wanted = with_jumps(clock, jumps)
            states = by_hand.odeint_adjoint(watched, start, times, theta, step_size)
            ys = states[wanted]
        else:
            ys = states = _by_torchdiffeq(
                watched, start, clock, jumps, solver=solver, rtol=rtol, atol=atol,
                step_size=step_size, max_step=max_step, norm=norm,
                theta=theta if adjoint == "adjoint" else None,
            )  # fmt: skip
            if adjoint == "adjoint":
                ys = once_differentiable(ys, start, ts, *theta)
    if moved.any():
        ys, later = torch.cat([y0[None], ys[1:]]), moved & (clock != clock[0])
        ys[later] = moving.with_times(watched, ys[later], clock[later], asked_for[later], 1)
    if not ys.isfinite().all():
        raise watched.not_finite(clock[-1], "state")
    watched.asked.clear()
    watched.states = states.detach()
    if ys.requires_grad:
        ys.register_hook(watched.start_backward)
    return Solution(
        ys=ys,
        nfe=watched.forward.nfe,
        accepted=watched.forward.accepted,
        rejected=watched.forward.rejected,
        nonconverged=nonconverged[0],
        step_times=watched.step_times,
        _backward=watched.backward,
    )


def _by_torchdiffeq(
    watched: Watched,
    start: Tensor,
    clock: Tensor,
    jumps: Tensor,
    *,
    theta: tuple[Tensor, ...] | None,
    solver: str,
    rtol: float,
    atol: float,
    step_size: float | None,
    max_step: float | None,
    norm: Norm | None,
) -> Tensor:
    """States at the times of `clock`, by the adjoint for `theta`; through the steps for None."""
    common: dict[str, Any] = {
        "rtol": rtol,
        "atol": max(atol, torch.finfo(start.dtype).tiny),  # 0 / 0 is no error
        "method": mended(solver),
        "options": _options(solver, clock, jumps, step_size, max_step, norm),
    }
    if theta is None:
        return torchdiffeq.odeint(watched, start, clock, **common)
    # Backwards it solves interval by interval, in times that a sign made increase.
    sign = 1 if clock[-1] > clock[0] else -1
    back = _options(solver, sign * clock, sign * jumps, step_size, max_step, None)
    if solver in ADAPTIVE:
        back["step_t"] = without(sign * clock, sign * jumps)
    return torchdiffeq.odeint_adjoint(
        watched, start, clock, adjoint_options=back, adjoint_params=theta, **common
    )


def _options(
    solver: str,
    clock: Tensor,
    jumps: Tensor,
    step_size: float | None,
    max_step: float | None,
    norm: Norm | None,
) -> dict[str, Any]:
    """torchdiffeq's options of one solver."""
    if step_size is not None:
        grid = lambda field, y0, t: fixed_grid(with_jumps(t, jumps)[0], step_size)
        return {"grid_constructor": grid, "perturb": len(jumps) > 0}
    landings = clock[1:] if solver in POOR_INTERPOLANT else clock[-1:]
    options: dict[str, Any] = {"step_t": without(landings, jumps), "jump_t": jumps}
    if max_step is not None:
        options["max_step"] = max_step
    if norm is not None:
        options["norm"] = norm  # torchdiffeq takes it from there for its adjoint
    return options


def _check_step_count(watched: Watched, ts: Tensor, jumps: Tensor, step_size: float) -> None:
    times = with_jumps(ts.detach(), jumps)[0].tolist()
    steps = sum(step_count(a, b, step_size) for a, b in zip(times[:-1], times[1:], strict=True))
    if steps > watched.max_steps:
        watched.tried = step_size
        raise watched.error(
            ts[0],
            f"it needs {steps} steps and the limit is {watched.max_steps}",
            "raise `max_steps` or enlarge `step_size`",
        )
