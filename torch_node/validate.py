"""What `solve` refuses, each in one sentence, and what it makes of what it takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from torch_node.graph import computed_from_each_other
from torch_node.methods import ADAPTIVE, FIXED_STEP

SOLVERS = ADAPTIVE + FIXED_STEP
ADJOINTS = ("direct", "adjoint", "handwritten")
Given = Tensor | np.ndarray | Sequence[Any] | float | int
DTYPES = (torch.float32, torch.float64)


def check(solver: str, adjoint: str, step_size: float | None) -> None:
    """Raise ValueError, in one sentence, for a name or combination that this package lacks."""
    if solver not in SOLVERS:
        raise ValueError(f"`solver` {solver!r} is unknown to torch; choose one of {_list(SOLVERS)}")
    if adjoint not in ADJOINTS:
        raise ValueError(
            f"`adjoint` {adjoint!r} is unknown to torch; choose one of {_list(ADJOINTS)}"
        )
    if adjoint == "handwritten" and solver != "euler":
        raise ValueError(
            f"the handwritten adjoint has its own Euler solver, not {solver!r}; "
            "choose `solver='euler'`, or `adjoint='adjoint'`"
        )
    if solver in FIXED_STEP:
        if step_size is None:
            raise ValueError(f"{solver} takes fixed steps; give their size as `step_size`")
        _one_number("step_size", step_size)
        if not (math.isfinite(step_size) and step_size > 0):
            raise ValueError(f"`step_size` is {step_size}; a positive number expected")
    elif step_size is not None:
        raise ValueError(
            f"{solver} chooses its own steps; leave out `step_size`, or choose one of "
            f"{_list(FIXED_STEP)}"
        )


def check_limits(
    solver: str, rtol: float, atol: float, max_steps: int, max_step: float | None
) -> None:
    """Tolerances and limits of steps."""
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        _one_number(name, tolerance)
        if not 0 <= tolerance < math.inf:
            raise ValueError(f"`{name}` is {tolerance}; a number of at least 0 expected")
    if rtol == atol == 0 and solver in ADAPTIVE:
        raise ValueError("`rtol` and `atol` are both 0, which no step can keep; raise one of them")
    if isinstance(max_steps, bool) or not isinstance(max_steps, int | np.integer) or max_steps < 1:
        raise ValueError(f"`max_steps` is {max_steps!r}; a whole number of at least 1 expected")
    if max_step is not None:
        if solver in FIXED_STEP:
            raise ValueError(f"{solver} takes steps of `step_size`; leave out `max_step`")
        _one_number("max_step", max_step)
        if not max_step > 0:
            raise ValueError(f"`max_step` is {max_step}; a positive number expected")


def check_shape(name: str, tensor: Tensor, expected: Sequence[int]) -> None:
    """Raise ValueError for a tensor that would only fit by being spread."""
    if tensor.shape != tuple(expected):
        raise ValueError(f"`{name}` has shape {list(tensor.shape)}; {list(expected)} expected")


def as_tensor(name: str, value: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of what may be one: numpy's arrays too of any strides and byte order."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
        native = "f8" if value.dtype == np.longdouble else value.dtype.newbyteorder("=")
        value = np.ascontiguousarray(value, native)
    try:
        return torch.as_tensor(value, dtype=dtype)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"`{name}` is {value!r}; a tensor, or numbers to make one of, expected"
        ) from None


def as_state(y0: Given) -> Float[Tensor, "*state"]:
    """y0 as a tensor of float32 or float64; whole numbers get torch's default dtype."""
    state = as_tensor("y0", y0)
    if not (state.is_floating_point() or state.is_complex()):
        state = state.to(torch.get_default_dtype())
    if state.dtype not in DTYPES:
        raise ValueError(
            f"`y0` is of {state.dtype}, but a solve needs float32 or float64; pass y0.float() or "
            "y0.double() (of complex numbers the real and imaginary parts)"
        )
    if not state.numel():
        raise ValueError(f"`y0` of shape {tuple(state.shape)} holds no number")
    return state


def trainable(
    field: Callable[[Tensor, Tensor], Tensor], params: Iterable[Tensor] | None, adjoint: str
) -> tuple[Tensor, ...]:
    """The tensors whose gradients the adjoint has to find; none for `direct`."""
    if adjoint == "direct":
        return ()
    if params is None:
        if not isinstance(field, nn.Module):
            raise ValueError(
                f"the {adjoint!r} adjoint cannot see the parameters of a plain function; make the "
                "field an nn.Module, or give its parameters as `params` (or () if it has none)"
            )
        params = field.parameters()
    if isinstance(params, Tensor):
        raise ValueError("`params` is a tensor; a sequence of tensors expected, such as (tensor,)")
    theta = tuple({id(p): p for p in params if p.requires_grad}.values())  # each once
    if computed_from_each_other(theta):
        raise ValueError(
            "`params` has a tensor that was computed from another one of them, whose gradient "
            "would be counted twice; leave out the one that was computed"
        )
    return theta


def checked_norm(norm: Callable[[Tensor], Any], y0: Tensor) -> Callable[[Tensor], Tensor]:
    """The norm, which raises ValueError if it returns no size: below 0 all steps would do.

    As they would if it tells no state from zeros.
    """

    def measure(y: Tensor) -> Tensor:
        found = norm(y)
        real = isinstance(found, Tensor) and found.numel() == 1 and found.is_floating_point()
        if not real or found < 0:
            raise ValueError(f"`norm` returned {found!r}; a tensor of one number >= 0 expected")
        return found

    uneven = torch.arange(1, y0.numel() + 1).sqrt().reshape(y0.shape).to(y0)
    if measure(uneven) <= measure(torch.zeros_like(y0)):
        raise ValueError("`norm` is the same for all states; expected one that grows with them")
    return measure


def _one_number(name: str, value: Any) -> None:
    number = isinstance(value, int | float | np.number | np.ndarray | Tensor)
    if not number or np.ndim(value):
        raise ValueError(f"`{name}` is {value!r}; one number expected")


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
