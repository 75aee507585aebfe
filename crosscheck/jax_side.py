"""Runs of a problem in JAX: compiled once for a field, solver and gradient method."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from crosscheck.problem import Problem, Run
from jax_node.adjoint import Backward
from jax_node.solve import FIXED_STEP, Solution, rms, solve
from jax_node.step_size import first_step


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """JAX's 64-bit types on for float64, off for float32, as a user of either has them."""
    with jax.enable_x64(name == "float64"), jax.default_matmul_precision("highest"):
        yield


def run(
    problem: Problem,
    solver: str,
    adjoint: str,
    control: float,
    *,
    ts: np.ndarray | None = None,
    cotangent: np.ndarray | None = None,
    dtype: str = "float64",
    max_steps: int = 2048,
) -> Run:
    """Solve `problem`, and differentiate sum(cotangent * ys) if a cotangent is given.

    `control` is the step size of a fixed-step solver, rtol and atol of an adaptive one. It is not
    compiled in, so that a row of tolerances compiles once.
    """
    ts = problem.ts if ts is None else ts
    if solver in FIXED_STEP:
        max_steps = max(max_steps, 2 + int(abs(ts[-1] - ts[0]) / control))
    with precision(dtype):
        cast = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)
        function = _compiled(problem.jax, solver, adjoint, cotangent is not None, max_steps)
        inputs = cast((problem.y0, ts, dict(problem.params)))
        solution, backward, gradient = function(
            *inputs, cast(cotangent), jnp.asarray(control, dtype)
        )
        solution.check()
    gradients = None
    if cotangent is not None:
        dy0, dts, dparams = jax.tree.map(np.asarray, gradient)
        gradients = {"y0": problem.to_torch_layout(dy0), "ts": dts, **problem.rename(dparams)}
    return Run(
        name=f"jax {adjoint}",
        ys=problem.to_torch_layout(np.asarray(solution.ys)),
        gradients=gradients,
        nfe_forward=int(solution.nfe),
        nfe_backward=int(backward),
        accepted=int(solution.accepted),
        rejected=int(solution.rejected),
    )


@functools.lru_cache(maxsize=64)
def _compiled(
    field: Callable, solver: str, adjoint: str, differentiate: bool, max_steps: int
) -> Callable:
    def forward(y0, ts, params, backward, control) -> tuple[jax.Array, Solution]:
        fixed = solver in FIXED_STEP
        options = {"step_size": control} if fixed else {"rtol": control, "atol": control}
        solution = solve(
            field,
            y0,
            ts,
            params,
            solver=solver,
            adjoint=adjoint,
            max_steps=max_steps,
            backward=backward,
            **options,
        )
        return solution.ys, solution

    def both(y0, ts, params, cotangent, control):
        zeros = Backward.zeros()
        if not differentiate:
            return forward(y0, ts, params, zeros, control)[1], 0, None
        _, pull, solution = jax.vjp(
            functools.partial(forward, control=control), y0, ts, params, zeros, has_aux=True
        )
        *gradient, backward = pull(cotangent)
        return solution, backward.nfe, tuple(gradient)

    return jax.jit(both)


def step_times(problem: Problem, solver: str, tolerance: float, ts: np.ndarray) -> np.ndarray:
    """ts[0] and the end of every accepted step of an adaptive solve in float64."""
    with precision("float64"):
        cast = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, "float64"), tree)
        inputs = cast((problem.y0, ts, dict(problem.params)))
        times = np.asarray(_stepper(problem.jax, solver)(*inputs, jnp.asarray(tolerance)))
    return times[np.isfinite(times)]


@functools.lru_cache(maxsize=64)
def _stepper(field: Callable, solver: str) -> Callable:
    # `solve` keeps no step times: what it does is done again, by the same parts.
    method: Any = {
        "dopri5": diffrax.Dopri5,
        "dopri8": diffrax.Dopri8,
        "bosh3": diffrax.Bosh3,
        "tsit5": diffrax.Tsit5,
    }[solver]()

    def times(y0, ts, params, tolerance):
        options = {"rtol": tolerance, "atol": tolerance, "norm": rms}
        order = method.order(diffrax.ODETerm(field))
        first, _ = first_step(field, ts[0], ts[-1], y0, params, order=order, **options)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            method,
            ts[0],
            ts[-1],
            first,
            y0,
            params,
            saveat=diffrax.SaveAt(t0=True, steps=True, fn=lambda t, y, args: None),
            stepsize_controller=diffrax.PIDController(**options),
            max_steps=1024,
        )
        return solution.ts

    return jax.jit(times)


def field(problem: Problem, times: np.ndarray, dtype: str = "float64") -> np.ndarray:
    """The vector field at y0 and each of `times`: `[times, *state]`, torch's layout."""
    with precision(dtype):
        cast = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)
        evaluate = jax.jit(jax.vmap(problem.jax, (0, None, None)))
        out = evaluate(cast(times), cast(problem.y0), cast(dict(problem.params)))
    return problem.to_torch_layout(np.asarray(out))
