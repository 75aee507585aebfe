"""Your own vector field, in JAX and in torch: do the two agree, forwards and in their gradients?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from torch import nn

from crosscheck import gradient_checks, gradients, layers, trajectories
from crosscheck.check import Check
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
        if self.passed:
            return f"all {len(self.checks)} checks are within their bounds"
        lines = [check.describe() for check in self.failures]
        return "\n".join([f"{len(lines)} of {len(self.checks)} checks exceed their bounds", *lines])

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
        ValueError: a solver that one side lacks, times off the step grid, parameters that do not
            fit the module, or a field that returns nothing.
    """
    times = np.asarray(ts, np.float64)
    if times.ndim != 1 or len(times) < 2 or not (np.diff(times) * np.diff(times)[0] > 0).all():
        raise ValueError(
            f"ts is {times.tolist()}; expected at least two times, all increasing or decreasing"
        )
    intervals = np.abs(np.diff(times))
    step = float(intervals.min() / 8 if step_size is None else step_size)
    problem = Problem(
        name,
        _returning("field_jax", field_jax),  # hashable, whatever the field is
        field_torch
        if isinstance(field_torch, nn.Module)
        else _returning("field_torch", field_torch),
        {key: np.asarray(value, np.float64) for key, value in (params or {}).items()},
        np.asarray(z0, np.float64),
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


def _returning(name: str, field: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    def checked(t: Any, z: Any, params: Any) -> Any:
        slope = field(t, z, params)
        if slope is None:
            raise ValueError(f"`{name}` returned None: return dz/dt")
        return slope

    return checked
