"""The times of a solve: those asked for, those at which the field jumps, and the solver's clock."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from torch_node.validate import DTYPES, Given, as_tensor

Times = Float[Tensor, " times"]
RESOLVED = 1e-3  # the part of an interval of ts that rounding may move


def as_times(ts: Given, y0: Tensor) -> Times:
    """ts as a tensor on y0's device: two finite times or more, strictly in or decreasing.

    What has no floating dtype of its own gets that of y0. Raises ValueError.
    """
    exact = as_tensor("ts", ts, _dtype(ts))
    times = exact if isinstance(ts, Tensor | np.ndarray) else exact.to(y0.dtype)
    times = times if times.is_floating_point() else times.to(y0.dtype)
    if times.ndim != 1 or len(times) < 2 or times.dtype not in DTYPES:
        raise ValueError(
            f"`ts` is {times.dtype} of shape {tuple(times.shape)}; at least two times in one "
            "vector of float32 or float64 expected"
        )
    values = times.tolist()
    for i, t in enumerate(values):
        if not math.isfinite(t):
            raise ValueError(f"`ts[{i}]` is {t}; a finite number expected")
    steps = [b - a for a, b in zip(values[:-1], values[1:], strict=True)]
    given = exact.detach().double().diff().tolist()
    for i, step in enumerate(steps):
        if not step or (step > 0) != (steps[0] > 0):
            raise ValueError(
                f"`ts[{i}:{i + 2}]` is {values[i : i + 2]} in {times.dtype}, but times must be "
                "strictly increasing or strictly decreasing; sort them and drop those that are "
                "there twice, or keep them in float64"
            )
        if abs(step - given[i]) > RESOLVED * abs(given[i]):
            raise ValueError(
                f"`ts[{i}:{i + 2}]` in {times.dtype} is {step:.6g} apart, but was {given[i]:.6g}; "
                "count time from another origin, or give `ts` as a tensor of float64"
            )
    return times.to(y0.device)


def jumps_between(
    solver: str, jump_t: Tensor | Sequence[float] | None, ts: Times
) -> Float[Tensor, " jumps"]:
    """The jump times from the first to the last of ts, each once. Raises ValueError."""
    if jump_t is None:
        return ts.new_empty(0)
    if "adams" in solver:
        raise ValueError(
            f"{solver} goes on with derivatives from before a jump; leave out `jump_t` and solve "
            "piece by piece, or choose another solver"
        )
    jumps = as_tensor("jump_t", jump_t, _dtype(jump_t)).to(ts)
    if jumps.requires_grad or jumps.ndim != 1 or jumps.isnan().any():
        raise ValueError(
            f"`jump_t` is {jump_t}; a vector of times expected, of which gradients are not known"
        )
    low, high = ts.detach()[[0, -1]].sort().values
    return jumps[(jumps >= low) & (jumps <= high)].unique()


def between_jumps(ts: Times, jumps: Float[Tensor, " jumps"]) -> tuple[float, float]:
    """The first and the last of ts, each moved towards the other by a rounding if it is a jump."""

    def inwards(t: Tensor, other: Tensor) -> float:
        if not (jumps == t).any():
            return t.item()
        tiny = torch.finfo(t.dtype).tiny  # numbers below it may be taken for 0
        return (torch.nextafter(t, other) if t else torch.copysign(t + tiny, other)).item()

    start, end = ts.detach()[[0, -1]]
    return inwards(start, end), inwards(end, start)


def solver_clock(
    y0: Tensor, ts: Times, theta: tuple[Tensor, ...]
) -> tuple[Times, Float[Tensor, ""] | None, tuple[Tensor, ...]]:
    """Times for the solver, the time at which they are 0 (None if they are ts), and parameters.

    torchdiffeq has stages in the state's dtype. Where that would cut ts, it gets times from ts[0]
    on; and since the field then depends on ts[0], the shift is a parameter: 0, with a gradient.
    """
    if torch.finfo(ts.dtype).eps >= torch.finfo(y0.dtype).eps:
        return ts.to(y0.dtype), None, theta
    shift = (ts[0] - ts[0].detach()).to(y0.dtype)
    if not shift.requires_grad:
        return ts - ts[0], ts[0], theta
    return ts - ts[0], ts[0].detach() + shift, (*theta, shift)


def check_resolved(solver: str, step_size: float, clock: Times) -> None:
    """Raise ValueError for steps whose ends rounding moves too far.

    Adams methods take them for equal, and their coefficients grow with the order.
    """
    spacing = torch.finfo(clock.dtype).eps * clock.detach().abs().max().item()
    if not step_size > spacing * (0.5 / RESOLVED if "adams" in solver else 4):
        raise ValueError(
            f"`step_size` is {step_size:.6g}, and rounding to {clock.dtype} moves the ends of "
            f"steps by {spacing / 2:.2g}, too far for {solver}; count time from another origin, or "
            "give `ts` as a tensor of float64"
        )


def with_jumps(times: Times, jumps: Float[Tensor, " jumps"]) -> tuple[Tensor, Tensor]:
    """The times with the jumps inside of them, in their order, and where the times are in it."""
    added = inside(jumps, times)
    both = torch.cat([times, added[~torch.isin(added.detach(), times.detach())]])
    order = both.detach().argsort(descending=bool(times[0] > times[-1]))
    return both[order], order.argsort()[: len(times)]


def without(times: Times, jumps: Float[Tensor, " jumps"]) -> Tensor:
    """The times that are no jumps."""
    return times.detach()[~torch.isin(times.detach(), jumps.detach())]


def inside(jumps: Tensor, times: Tensor) -> Tensor:
    """The jumps between the first and the last time, without these."""
    low, high = times.detach()[[0, -1]].sort().values
    return jumps[(jumps > low) & (jumps < high)]


def _dtype(ts: Given) -> torch.dtype | None:
    """Python's numbers are as exact as float64."""
    return None if isinstance(ts, Tensor | np.ndarray) else torch.float64
