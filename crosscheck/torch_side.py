"""Runs of a problem in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crosscheck.problem import Problem, Run
from torch_node.solve import FIXED_STEP, solve


def run(
    problem: Problem,
    solver: str,
    adjoint: str,
    control: float,
    *,
    ts: np.ndarray | None = None,
    cotangent: np.ndarray | None = None,
    dtype: str = "float64",
    max_steps: int = 100_000,
) -> Run:
    """The twin of `jax_side.run`."""
    wanted = cotangent is not None
    tensor = lambda a: torch.tensor(np.asarray(a), dtype=getattr(torch, dtype))
    y0 = tensor(problem.to_torch_layout(problem.y0)).requires_grad_(wanted)
    times = tensor(problem.ts if ts is None else ts).requires_grad_(wanted)
    params = {
        name: tensor(value).requires_grad_(wanted) for name, value in problem.torch_params().items()
    }
    fixed = solver in FIXED_STEP
    options: dict[str, Any] = (
        {"step_size": control} if fixed else {"rtol": control, "atol": control}
    )
    solution = solve(
        with_params(problem, params),
        y0,
        times,
        params=list(params.values()),
        solver=solver,
        adjoint=adjoint,
        max_steps=max_steps,
        **options,
    )
    gradients = None
    if cotangent is not None:
        found = torch.autograd.grad(
            solution.ys,
            [y0, times, *params.values()],
            grad_outputs=tensor(problem.to_torch_layout(cotangent)),
            allow_unused=True,
            materialize_grads=True,
        )
        names = ["y0", "ts", *params]
        gradients = {name: g.numpy() for name, g in zip(names, found, strict=True)}
    return Run(
        name=f"torch {adjoint}",
        ys=solution.ys.detach().numpy(),
        gradients=gradients,
        nfe_forward=solution.nfe,
        nfe_backward=solution.nfe_backward,
        accepted=solution.accepted,
        rejected=solution.rejected,
        step_times=np.array(solution.step_times),
    )


def with_params(problem: Problem, params: dict[str, Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The field of `(t, y)` with these parameters."""
    function = problem.torch
    if isinstance(function, nn.Module):
        module = function
        return lambda t, y: torch.func.functional_call(module, params, (t, y))
    return lambda t, y: function(t, y, params)


def field(problem: Problem, times: np.ndarray, dtype: str = "float64") -> np.ndarray:
    """The vector field at y0 and each of `times`: `[times, *state]`."""
    tensor = lambda a: torch.tensor(np.asarray(a), dtype=getattr(torch, dtype))
    params = {name: tensor(value) for name, value in problem.torch_params().items()}
    function = with_params(problem, params)
    y0 = tensor(problem.to_torch_layout(problem.y0))
    with torch.no_grad():
        return torch.stack([function(t, y0) for t in tensor(times)]).numpy()
