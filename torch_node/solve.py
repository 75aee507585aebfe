"""Initial value problems by solver and adjoint name, through torchdiffeq, with true statistics.

What torchdiffeq 0.2.5 does, and what is made of it here:

- An adaptive solver steps past the last time and interpolates back. That evaluates the field
  outside [t0, t1], and the interpolants of dopri8 and bosh3 are of lower order than the methods:
  at rtol = atol = 1e-9 dopri8's result was off by 2e-6. Here every adaptive solver lands on the
  last time, at the same NFE or less, and these two on every time (option `step_t`).
- A fixed-step solver without `step_size` takes ONE step for each interval of ts; implicit_adams on
  [0, 1] is then one Runge-Kutta step. Here a step size is required.
- With `step_size`, times between grid points are interpolated linearly, whatever the order of the
  method, and a time on the grid gets a gradient of exactly zero. Here the grid is made of ts: the
  interval between two times is cut into ceil(|dt| / step_size) equal steps.
- The initial step size of adaptive solvers is part of the graph (later ones are not): the `direct`
  gradient has an extra term of the size of the error, which goes to zero with the tolerance.
- max_num_steps is counted for each interval of ts and, as underflow, ends in an AssertionError.
  Here `max_steps` counts accepted and rejected steps of one whole solve, and a failure is a
  SolveError.
- Adaptive solvers keep time in float64, whatever the dtype of the state; the field gets it in the
  dtype of the state.
- The adjoint's options are taken before decreasing times are negated, so that `step_t` has the
  wrong sign in the backward solve of a decreasing ts. Here they are passed apart.
- Adams coefficients assume equal steps: where intervals of ts are cut into different steps the
  order is lost, and `direct` gradients of times inside ts (exact for the computed states) are first
  order. The first two steps are Runge-Kutta; then the order rises with the history, from 3 to 11
  (explicit) or from 4 to 12 (implicit). Explicit Adams of order 11 is stable for h |df/dy| < 0.0035
  only: on y' = -10 y in [0, 1] its error is 1e15 in 40 steps and 5e62 in 320.
- adaptive_heun takes the derivative at its Euler predictor for that at the new state, and so needs
  one evaluation a step, not two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torchdiffeq
from jaxtyping import Float
from torch import Tensor, nn

from torch_node import adjoint as by_hand
from torch_node.adjoint import step_count
from torch_node.watch import Field, Pass, Watched, counting_nonconvergence
from torch_node.watch import SolveError as SolveError

ADAPTIVE = ("dopri5", "dopri8", "bosh3", "adaptive_heun")
FIXED_STEP = ("euler", "midpoint", "rk4", "explicit_adams", "implicit_adams")
SOLVERS = ADAPTIVE + FIXED_STEP
ADJOINTS = ("direct", "adjoint", "handwritten")
POOR_INTERPOLANT = ("dopri8", "bosh3")
Norm = Callable[[Tensor], Tensor]


def check(solver: str, adjoint: str, step_size: float | None) -> None:
    """Raise ValueError, in one sentence, for a name or combination that this package lacks."""
    if solver not in SOLVERS:
        raise ValueError(f"solver {solver!r} is unknown to torch; choose one of {_list(SOLVERS)}")
    if adjoint not in ADJOINTS:
        raise ValueError(
            f"adjoint {adjoint!r} is unknown to torch; choose one of {_list(ADJOINTS)}"
        )
    if adjoint == "handwritten" and solver != "euler":
        raise ValueError(
            f"the handwritten adjoint has its own Euler solver, not {solver!r}; "
            "choose --solver euler, or --adjoint adjoint"
        )
    if solver in FIXED_STEP:
        if step_size is None:
            raise ValueError(f"{solver} takes fixed steps; give their size with --step-size")
        if not (math.isfinite(step_size) and step_size > 0):
            raise ValueError(f"step size {step_size} is not a positive number")
    elif step_size is not None:
        raise ValueError(
            f"{solver} chooses its own steps; leave out --step-size, or choose one of "
            f"{_list(FIXED_STEP)}"
        )


@dataclass
class Solution:
    """The states at ts, and what they cost.

    Attributes:
        ys: states, [times, *state]; ys[0] is y0.
        nfe_forward: evaluations of the vector field in the forward solve.
        accepted: steps taken.
        rejected: steps tried and not taken.
        nonconverged: steps in which implicit_adams' functional iteration did not converge
            (torchdiffeq then goes on with its last iterate, and forgets its oldest derivative).
        step_times: ts[0] and the end of every accepted step.
    """

    ys: Float[Tensor, " times *state"]
    nfe_forward: int
    accepted: int
    rejected: int
    nonconverged: int
    step_times: list[float]
    _backward: Pass

    @property
    def nfe_backward(self) -> int:
        """Evaluations of the vector field in the latest backward pass (0 before it, or `direct`).

        The adjoint's include one for each time in ts but the first, if ts requires a gradient.
        """
        return self._backward.nfe


def fixed_grid(ts: Float[Tensor, " times"], step_size: float) -> Float[Tensor, " points"]:
    """Every time of ts, and between neighbours the points of equal steps of at most step_size.

    Differentiable in ts.
    """
    pieces = []
    for ta, tb in zip(ts[:-1], ts[1:], strict=True):
        steps = step_count(ta.item(), tb.item(), step_size)
        pieces.append(
            ta + (tb - ta) * torch.arange(steps, dtype=ts.dtype, device=ts.device) / steps
        )
    return torch.cat([*pieces, ts[-1:]])


def solve(
    field: Field,
    y0: Float[Tensor, "*state"],
    ts: Float[Tensor, " times"],
    *,
    params: Sequence[Tensor] | None = None,
    solver: str,
    adjoint: str,
    rtol: float = 1e-3,
    atol: float = 1e-3,
    step_size: float | None = None,
    max_steps: int = 4096,
    norm: Norm | None = None,
) -> Solution:
    """Solve dy/dt = field(t, y), y(ts[0]) = y0, for y at every time of ts.

    Differentiable with respect to y0, ts and the parameters of the field, by `adjoint`:
    "direct" backpropagates through the solver's steps (all are stored), "adjoint" solves
    torchdiffeq's augmented system backwards with the same solver and tolerances, "handwritten" is
    adjoint.py with Euler steps of at most `step_size`.

    Args:
        field: maps a scalar time and a state to the state's derivative. Called with the time in
            the dtype of y0.
        y0: initial state, of any shape, floating.
        ts: at least two times, strictly increasing or decreasing, of a floating dtype.
        params: tensors, other than y0 and ts, whose gradients are wanted ("adjoint" and
            "handwritten" cannot see them otherwise); by default the parameters of `field` if it is
            an nn.Module. Pass () if there are none. "direct" needs none of this.
        solver: one of SOLVERS.
        adjoint: one of ADJOINTS.
        rtol, atol: tolerances of adaptive solvers. For implicit_adams they end the corrector's
            iteration, at most four times a step, and control nothing else.
        step_size: largest step of a fixed-step solver; each interval of ts is cut into
            ceil(|dt| / step_size) equal steps. None for adaptive solvers.
        max_steps: most steps, accepted and rejected, of the forward solve, and as many of a
            backward solve.
        norm: of the state, in which errors are measured; by default its RMS. Backwards `adjoint`
            takes the largest of this norm of the state, of its adjoint, and the RMS of the rest.

    Raises:
        ValueError: an unknown name, a missing or superfluous step size, unusable ts.
        SolveError: more than max_steps, step size underflow, non-finite state; also from within
            `backward()`.
    """
    check(solver, adjoint, step_size)
    _check_times(ts)
    watched = Watched(field, solver, solver in ADAPTIVE, ts[0].item(), ts[-1].item(), max_steps)
    theta = _trainable(field, params, adjoint)
    if step_size is not None:
        _check_step_count(watched, ts, step_size)

    options = _options(solver, ts, step_size)
    if norm is not None and solver in ADAPTIVE:
        options["norm"] = norm  # torchdiffeq takes it from there for its adjoint
    with counting_nonconvergence(solver) as nonconverged:
        if adjoint == "handwritten":
            assert step_size is not None
            ys = by_hand.odeint_adjoint(_step_by_step(watched, step_size), y0, ts, theta, step_size)
        elif adjoint == "adjoint":
            ys = torchdiffeq.odeint_adjoint(
                watched,
                y0,
                ts,
                rtol=rtol,
                atol=atol,
                method=solver,
                options=options,
                adjoint_options=_adjoint_options(ts, step_size),
                adjoint_params=theta,
            )
        else:
            ys = torchdiffeq.odeint(
                watched,
                y0,
                ts,
                rtol=rtol,
                atol=atol,
                method=solver,
                options=options,
            )
    if not ys.isfinite().all():
        raise watched.not_finite(ts[-1], ts.new_tensor(step_size or math.nan))
    if ys.requires_grad:
        ys.register_hook(watched.start_backward)
    forward = watched.forward
    return Solution(
        ys=ys,
        nfe_forward=forward.nfe,
        accepted=forward.accepted,
        rejected=forward.rejected,
        nonconverged=nonconverged[0],
        step_times=watched.step_times,
        _backward=watched.backward,
    )


def _options(solver: str, ts: Tensor, step_size: float | None) -> dict[str, Any]:
    if step_size is not None:
        return {"grid_constructor": lambda field, y0, t: fixed_grid(t, step_size)}
    landings = ts[1:] if solver in POOR_INTERPOLANT else ts[-1:]
    return {"step_t": landings.detach()}


def _adjoint_options(ts: Tensor, step_size: float | None) -> dict[str, Any]:
    if step_size is not None:
        return {"grid_constructor": lambda field, y0, t: fixed_grid(t, step_size)}
    # One backward solve an interval, each of which lands on its end. torchdiffeq has by then turned
    # decreasing times into increasing ones by their sign.
    return {"step_t": ts.detach() if ts[-1] > ts[0] else -ts.detach()}


def _step_by_step(watched: Watched, step_size: float) -> Field:
    """The field for adjoint.py, whose every call begins an Euler step."""

    def field(t: Tensor, y: Tensor) -> Tensor:
        watched.callback_step(t, y, t.new_tensor(step_size))
        return watched(t, y)

    return field


def _trainable(field: Field, params: Sequence[Tensor] | None, adjoint: str) -> tuple[Tensor, ...]:
    if adjoint == "direct":
        return ()
    if params is None:
        if not isinstance(field, nn.Module):
            raise ValueError(
                f"the {adjoint!r} adjoint cannot see the parameters of a plain function; make the "
                "field an nn.Module, or give its parameters as params (or () if it has none)"
            )
        params = tuple(field.parameters())
    return tuple(p for p in params if p.requires_grad)


def _check_times(ts: Tensor) -> None:
    if ts.ndim != 1 or len(ts) < 2 or not ts.is_floating_point():
        raise ValueError(
            f"ts is {ts.dtype} of shape {tuple(ts.shape)}; expected at least two times as one "
            "floating vector"
        )
    steps = ts.detach().diff()
    if not (bool((steps > 0).all()) or bool((steps < 0).all())):
        raise ValueError("ts must be strictly increasing or strictly decreasing")


def _check_step_count(watched: Watched, ts: Tensor, step_size: float) -> None:
    times = ts.tolist()
    steps = sum(step_count(a, b, step_size) for a, b in zip(times[:-1], times[1:], strict=True))
    if steps > watched.max_steps:
        raise watched.error(
            ts[0],
            ts.new_tensor(step_size),
            f"it needs {steps} steps and the limit is {watched.max_steps}",
            "raise --max-steps or enlarge --step-size",
        )


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
