"""Your own vector field, in JAX and in torch: do the two agree, forwards and in their gradients?"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import torch
from rich.console import Console
from torch import nn

from crosscheck import gradient_checks, gradients, jax_side, layers, torch_side, trajectories
from crosscheck.check import Check, verdict
from crosscheck.problem import Problem
from jax_node.solve import FIXED_STEP
from jax_node.solve import SolveError as JaxSolveError
from jax_node.solve import check as check_jax
from torch_node.solve import SolveError as TorchSolveError
from torch_node.solve import check as check_torch


@dataclass(frozen=True)
class Comparison:
    """All checks of one comparison."""

    checks: list[Check]

    @property
    def passed(self) -> bool:
        """Whether every check keeps its bound."""
        return not self.failures

    @property
    def failures(self) -> list[Check]:
        """The checks that exceed their bounds; each names tensor, index and both values."""
        return [check for check in self.checks if not check.passed]

    def __str__(self) -> str:
        return "\n".join([verdict(self.checks), *(check.describe() for check in self.failures)])

    def print(self, console: Console | None = None) -> None:
        """The table that `python -m crosscheck` prints."""
        from crosscheck import report  # which needs matplotlib

        report.print_checks(self.checks, console or Console())


def compare(
    field_jax: Callable[[Any, Any, Any], Any],
    field_torch: Callable[[Any, Any, Any], Any] | nn.Module,
    params: Mapping[str, Any],
    z0: Any,
    ts: Any,
    *,
    solvers: Sequence[str] = ("rk4", "dopri5"),
    step_size: float | None = None,
    rtol: float = 1e-6,
    axes: Sequence[int] | None = None,
    smooth: bool = True,
    name: str = "field",
) -> Comparison:
    """Compare the field itself, its trajectories and its gradients, in float64 on the CPU.

    Args:
        field_jax: `(t, z, params) -> dz/dt` with jax.numpy.
        field_torch: the same with torch; or an nn.Module called as `module(t, z)`. A module's
            parameters get the values of `params`, found by structure: `kernel` in Flax's layout is
            `weight` in torch's, `scale` is `weight` (see `crosscheck.weights`).
        params: arrays by name, as `field_jax` takes them; `{}` if there are none.
        z0: initial state, as `field_jax` takes it.
        ts: at least two observation times, increasing or decreasing. Between two times a fixed
            step is used that divides the interval.
        solvers: names that both frameworks have.
        step_size: of fixed-step solvers; by default the shortest interval of `ts` / 8. All
            intervals of `ts` must be multiples of it.
        rtol: rtol and atol of adaptive solvers.
        axes: permutation that takes a state from the layout of `field_jax` to that of
            `field_torch`, e.g. (0, 3, 1, 2) from NHWC to NCHW.
        smooth: pass False if the field has kinks (ReLU): bounds of adaptive solves are then wider.
        name: of the field in messages.

    Returns:
        A `Comparison`: `passed`, `failures`, `print()`.

    Raises:
        ValueError: a solver that one side lacks, times off the step grid, what is no array of
            finite real numbers, parameters that do not fit the module, or a field that does not
            return an array of z0's shape.
    """
    times, state = _numbers("ts", ts), _numbers("z0", z0)
    steps = np.sign(np.diff(np.atleast_1d(times)))  # whose products are never 0 by underflow
    if times.ndim != 1 or len(times) < 2 or not (steps * steps[0] > 0).all():
        raise ValueError(
            f"ts is {times.tolist()}; expected at least two times, all increasing or decreasing"
        )
    if not isinstance(params, Mapping):
        raise ValueError(f"params is {params!r}; expected arrays by name, {{}} if there are none")
    if axes is not None and sorted(axes) != list(range(state.ndim)):
        raise ValueError(f"axes is {axes}; expected an order of all {state.ndim} axes of z0")
    intervals = np.abs(np.diff(times))
    step = float(intervals.min() / 8 if step_size is None else step_size)
    problem = Problem(
        name,
        lambda t, z, params: field_jax(t, z, params),  # hashable, whatever the field is
        field_torch,
        {key: _numbers(f"params[{key!r}]", value) for key, value in params.items()},
        state,
        times,
        axes=None if axes is None else tuple(axes),
        smooth=smooth,
    )
    for solver in solvers:
        fixed = solver in FIXED_STEP
        for check in (check_jax, check_torch):
            check(solver, "direct", step if fixed else None)
        if fixed and np.abs(intervals / step - np.round(intervals / step)).max() > 1e-9:
            raise ValueError(
                f"the intervals of ts are not multiples of the step {step:g}; give a step_size "
                "that divides them"
            )
    if isinstance(field_torch, nn.Module):
        from crosscheck import weights

        shapes = {key: tuple(p.shape) for key, p in field_torch.named_parameters()}
        weights.check(problem.torch_params(), shapes)
    _check_outputs(problem, times[0])
    inside = times[0] + layers.TIMES * (times[-1] - times[0])  # there may be no value elsewhere
    found = layers.field_checks(problem, times=inside)
    for solver in solvers:
        control = step if solver in FIXED_STEP else rtol
        try:
            found += trajectories.checks(
                trajectories.solve_both(problem, solver, value=control, ts=times)
            )
            square = gradients.square(problem, solver, control, ts=times)
            found += gradient_checks.checks(square)
        except (JaxSolveError, TorchSolveError) as error:
            group, case = "trajectories", f"{name}, {solver}"
            found.append(
                Check(group, case, "jax", "torch", np.nan, 0.0, "solves end", quantity=f"{error}:")
            )
    return Comparison(found)


def _numbers(what: str, value: Any) -> np.ndarray:
    """A float64 array of finite real numbers, one at least. Raises ValueError."""
    given = value.detach().cpu() if isinstance(value, torch.Tensor) else value
    try:
        array = np.asarray(given)
        numbers = np.asarray(array.real, np.float64)
        if numbers.size and np.isfinite(numbers).all() and not np.iscomplexobj(array):
            return numbers
    except (TypeError, ValueError):
        pass  # no numbers
    shown = reprlib.repr(value)
    raise ValueError(f"{what} is {shown}; an array of finite real numbers expected")


def _check_outputs(problem: Problem, t: float) -> None:
    """Raise ValueError, naming the field, if one does not return a derivative of z0."""
    with jax_side.precision("float64"):
        out = jax.eval_shape(problem.jax, np.float64(t), problem.y0, dict(problem.params))
    shapes = {"field_jax": (out, problem.y0.shape)}
    params = {name: torch.tensor(value) for name, value in problem.torch_params().items()}
    state = torch.tensor(problem.to_torch_layout(problem.y0))
    function = torch_side.with_params(problem, params)
    with torch.no_grad():
        found = function(torch.tensor(t, dtype=torch.float64), state)
    shapes["field_torch"] = found, tuple(state.shape)
    for name, (out, shape) in shapes.items():
        kind = jax.ShapeDtypeStruct if name == "field_jax" else torch.Tensor
        dtype = str(out.dtype).removeprefix("torch.") if isinstance(out, kind) else repr(out)
        if not dtype.startswith(("float", "bfloat")) or tuple(out.shape) != shape:
            given = f"{dtype} of shape {list(out.shape)}" if isinstance(out, kind) else dtype
            raise ValueError(
                f"{name} returned {given}; expected floats of z0's shape, {list(shape)}"
            )
