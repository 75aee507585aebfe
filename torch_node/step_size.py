"""Step sizes: the first of an adaptive solve, and the grid of fixed ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from torch_node.adjoint import step_count


@torch.no_grad()
def first_step(
    func: Callable[[Tensor, Tensor], Tensor],
    t0: Float[Tensor, ""],
    t1: Float[Tensor, ""],
    y0: Tensor,
    f0: Tensor,
    *,
    order: int,
    rtol: Float[Tensor, "..."],
    atol: Float[Tensor, "..."],
    norm: Callable[[Tensor], Tensor],
) -> Float[Tensor, ""]:
    """A step size whose error the tolerances allow, by one evaluation besides f0 = func(t0, y0).

    Hairer, Norsett and Wanner, *Solving ODEs I*, II.4, "Starting step size": an explicit Euler
    step estimates the second derivative, and h^order max(|y'|, |y''|) = 0.01. t0 < t1, and the
    Euler step goes no further than t1. No gradient passes through it.
    """
    scale = atol + rtol * y0.abs()
    measure = lambda y: float(norm(y / scale))
    length = (t1 - t0).item()
    size, slope = measure(y0), measure(f0)
    h0 = min(1e-6 if size < 1e-5 or slope < 1e-5 else 0.01 * size / slope, length)
    curvature = measure(func(t0 + h0, y0 + h0 * f0) - f0) / h0 if h0 > 0 else math.nan
    largest = max(slope, curvature)
    h1 = max(1e-6, h0 * 1e-3) if largest <= 1e-15 else (0.01 / largest) ** (1 / order)
    h = min(100 * h0, h1, length)
    if not h > 0:  # a tolerance of zero, or an Euler step that met no number
        h = 1e-6 * length
    resolution = 10 * torch.finfo(t0.dtype).eps * abs(t0.item())
    return torch.full_like(t0, min(max(h, resolution), length))


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
