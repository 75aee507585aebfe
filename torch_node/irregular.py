"""Solve for many samples at once, each observed at its own times; see jax_node/irregular.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torchdiffeq import odeint

from torch_node.validate import DTYPES, check_shape
from torch_node.watch import asked

Values = Float[Tensor, "*batch times channels"]

METHODS = ("euler", "midpoint", "rk4")


def known(values: Values, mask: Values) -> Values:
    """values, and 0 where mask is: what is not there may be NaN, and 0 times NaN is NaN.

    Raises ValueError for a mask of another shape.
    """
    check_shape("mask", mask, values.shape)
    return values.masked_fill(mask == 0, 0)


def solve_at(
    field: Callable[[Tensor, Tensor], Tensor],
    y0: Float[Tensor, " batch *state"],
    ts: Float[Tensor, "#batch times"],
    *,
    solver: str = "rk4",
    substeps: int = 1,
) -> Float[Tensor, " batch times *state"]:
    """The states of `dy/dt = field(t, y)`, `y(ts[:, 0]) = y0`, at each sample's own times.

    Args:
        field: maps times `[batch]` and states to derivatives, sample by sample.
        y0: initial states.
        ts: observation times; within a row never decreasing (or never increasing). One row serves
            all samples.
        solver: a name in METHODS.
        substeps: equal steps between two observations.

    Gradients are those of the computed states (discretise-then-optimise), in all arguments.
    Raises ValueError if the solver is not in METHODS, substeps is no whole number from 1 on, y0 or
    ts are no float32 or float64 (states may be complex), ts has not a row for each sample, or the
    field does not return the shape of the state, or changes the state that it is given.
    """
    if solver not in METHODS:
        raise ValueError(
            f"`solver` {solver!r} does not step from observation to observation; choose one of "
            f"{', '.join(METHODS)}"
        )
    if not isinstance(substeps, int | np.integer) or substeps < 1:
        raise ValueError(f"`substeps` is {substeps}; a whole number, at least 1, expected")
    for name, dtype in (("y0", y0.dtype.to_real()), ("ts", ts.dtype)):
        if dtype not in DTYPES:  # in bfloat16 a small step is none
            raise ValueError(f"`{name}` is of {dtype}; float32 or float64 expected")
    if ts.ndim != 2 or 0 in ts.shape or y0.ndim < 1 or len(ts) not in (1, len(y0)):
        raise ValueError(
            f"`ts` is {list(ts.shape)} for `y0` of {list(y0.shape)}; times [batch, times] for "
            "states [batch, ...] expected"
        )
    clock = torch.linspace(0, 1, substeps + 1, dtype=ts.dtype, device=ts.device)
    ys = [y0]
    for start, end in zip(ts[:, :-1].T, ts[:, 1:].T, strict=True):
        gap = end - start

        def scaled(
            s: Tensor, y: Tensor, start: Tensor = start, gap: Tensor = gap, end: Tensor = end
        ) -> Tensor:
            column = gap.reshape(-1, *[1] * (y.ndim - 1))
            # start + gap may be a rounding beyond the end, where the field need not be defined.
            dy = asked(field, end if s == 1 else start + s * gap, y)
            if dy.shape != y.shape:
                raise ValueError(
                    f"`field` returned shape {tuple(dy.shape)} for a state of {tuple(y.shape)}; "
                    "the same shape expected"
                )
            return column * dy

        ys.append(odeint(scaled, ys[-1], clock, method=solver)[-1])
    return torch.stack(ys, dim=1)
