"""Gradients by an adjoint method say so when they are asked for their own gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MESSAGE = (
    "the gradient of a solve by `adjoint='adjoint'` or `'handwritten'`, or of a time at a jump, "
    "cannot be differentiated again, since it leaves no graph; take `adjoint='direct'`, and times "
    "beside jumps, whose gradients can be differentiated as often as the field"
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
            return tuple(g if g is None else _Refuse.apply(g, *inputs) for g in gradients)

        ys.grad_fn.register_hook(guard)
    return ys


class _Refuse(torch.autograd.Function):
    """The identity of its first argument, in a graph with all of them."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *inputs: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise RuntimeError(MESSAGE)
