"""Gradients of times over jumps: from the derivative at both ends, not integrated between them.

The adjoint of time (paper, equation 48) is the integral of -a df/dt, which a jump makes infinite: a
backward solve steps over that. But a later end shows a state moved by f dt, and a later beginning
one moved by -f dt, whatever is in between.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torch_node.once import once_differentiable
from torch_node.times import inside
from torch_node.watch import Field


def over_jumps(
    ts: Float[Tensor, " times"],
    jumps: Float[Tensor, " jumps"],
    step_size: float | None,
    adjoint: str,
) -> Bool[Tensor, " times"]:
    """Of which times the gradient is found here: all by an adjoint, if there are jumps inside.

    Backpropagation through fixed steps needs it at a jump only, where steps on either side end at
    the time that is asked for, which moves, and not at the jump, which does not.
    """
    inner = inside(jumps, ts)
    if not ts.requires_grad or not len(inner) or (adjoint == "direct" and step_size is None):
        return torch.zeros_like(ts, dtype=torch.bool)
    return torch.isin(ts.detach(), inner) | (adjoint != "direct")


def with_times(
    field: Field,
    ys: Float[Tensor, " times *state"],
    clock: Float[Tensor, " times"],
    ts: Float[Tensor, " times"],
    sign: int,
) -> Float[Tensor, " times *state"]:
    """`ys`, whose gradient reaches `ts` too, as that of a state which moves by `sign * field`.

    The field is asked in the backward pass, at the times of `clock`. Once.
    """
    return once_differentiable(_Moving.apply(field, ys, clock, ts, sign), ys, ts)


class _Moving(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, field: Field, ys: Tensor, clock: Tensor, ts: Tensor, sign: int) -> Tensor:
        ctx.field, ctx.sign = field, sign
        ctx.save_for_backward(ys, clock, ts)
        return ys.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        (grad,) = grad_outputs
        ys, clock, ts = ctx.saved_tensors
        with torch.no_grad():
            pairs = zip(grad, clock, ys, strict=True)
            powers = [torch.sum(g * ctx.field(t, y)) for g, t, y in pairs]
        return None, grad, None, ctx.sign * torch.stack(powers).to(ts.dtype), None
