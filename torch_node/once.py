"""Gradients that cannot be differentiated again say so when they are asked for their gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MESSAGE = (
    "the gradient of a solve by `adjoint='adjoint'` or `'handwritten'`, or of a time at a jump, "
    "cannot be differentiated again, since it leaves no graph; take `adjoint='direct'`, and times "
    "beside jumps, whose gradients can be differentiated as often as the field"
)

TIMES = (
    "the gradient of a time by bosh3 or adaptive_heun cannot be differentiated again, since the "
    "polynomial through a step, which these give, does not bend as the solution does; take "
    "`solver='dopri5'`, or one of fixed steps"
)


def once_differentiable(ys: Tensor, *inputs: Tensor) -> Tensor:
    """ys, an output of an autograd.Function of these inputs; raises when differentiated twice.

    torch's decorator of that name is no help: nothing leads from its gradients back to the inputs,
    so that autograd passes them by, as if they were constant.
    """
    if ys.grad_fn is not None:

        def guard(gradients: Any, _: Any) -> Any:
            if not torch.is_grad_enabled():  # no create_graph
                return None
            refused = lambda g: g if g is None else _Refuse.apply(MESSAGE, g, *inputs)
            return tuple(map(refused, gradients))

        ys.grad_fn.register_hook(guard)
    return ys


def differentiable_times(ts: Tensor, solver: str) -> Tensor:
    """ts; where interpolation has no second derivative, its gradient raises if differentiated."""
    if not ts.requires_grad or solver not in ("bosh3", "adaptive_heun"):
        return ts
    guarded = ts.view_as(ts)
    refused = lambda g: _Refuse.apply(TIMES, g, ts) if torch.is_grad_enabled() else None
    guarded.register_hook(refused)
    return guarded


class _Refuse(torch.autograd.Function):
    """The identity of its second argument, in a graph with all of them; differentiated, raises."""

    @staticmethod
    def forward(ctx: Any, message: str, gradient: Tensor, *inputs: Tensor) -> Tensor:
        ctx.message = message
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise RuntimeError(ctx.message)
