"""Work and precision: what each solver pays for an error, on the problems of `problems.py`.

An error is that at t1, the largest over the components of |y - reference| / (1 + |reference|), as
rtol = atol measure it. Work is the number of evaluations of the vector field: counted call by call
for torchdiffeq and scipy; in JAX, where a call is traced once, by the solve itself (a test holds
these to calls of the host).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate
import torch

import jax_node.solve
import torch_node.solve
from experiments.solving.problems import InitialValue

JAX = ("adams", "dopri5", "tsit5", "dopri8")
SCIPY = ("vode", "lsoda", "dop853")
TORCH = ("dopri5", "dopri8", "implicit_adams")
METHODS = (
    *(f"jax {name}" for name in JAX),
    *(f"scipy {name}" for name in SCIPY),
    *(f"torch {name}" for name in TORCH),
)
FIXED_STEPS = tuple(2**k for k in range(5, 12))  # of torch's implicit_adams over the interval
MAX_STEPS = 10**6
FLOOR = 1e-14  # an error below may be one of rounding

# A solve at a tolerance (or with a number of steps): the state at t1 and the evaluations.
Solve = Callable[[float], tuple[Any, int]]


class SolveFailedError(ArithmeticError):
    """A solver gave up."""


def cell(
    problem: InitialValue,
    exact: np.ndarray,
    method: str,
    tolerances: Sequence[float],
    among: tuple[InitialValue, ...],
) -> dict[str, Any]:
    """Errors and NFE of a method on a problem whose `exact` end is known; None where it failed.

    JAX compiles a method once for all the problems `among` which this is one.
    """
    library, name = method.split()
    if library == "jax":
        solve = by_jax(problem, name, among)
    else:
        solve = {"scipy": by_scipy, "torch": by_torch}[library](problem, name)
    fixed = name == "implicit_adams"
    errors: list[float | None] = []
    nfe: list[int | None] = []
    settings = FIXED_STEPS if fixed else tuple(tolerances)
    for setting in settings:
        try:
            y, calls = solve(setting)
            wrong = error(y, exact)
        except (SolveFailedError, torch_node.solve.SolveError):
            wrong, calls = math.nan, 0
        errors.append(wrong if math.isfinite(wrong) else None)
        nfe.append(calls if math.isfinite(wrong) else None)
    key = "steps" if fixed else "tolerances"
    return {
        "problem": problem.name,
        "group": problem.group,
        "method": method,
        key: list(settings),
        "errors": errors,
        "nfe": nfe,
    }


def error(y: Any, exact: np.ndarray) -> float:
    """The largest over the components, as the module's docstring has it."""
    return float(np.max(np.abs(np.asarray(y) - exact) / (1 + np.abs(exact))))


def by_jax(problem: InitialValue, name: str, among: tuple[InitialValue, ...]) -> Solve:
    """`jax_node.solve`, compiled once for all the problems `among` and all tolerances.

    Every state is padded by zeros to one size. That adds no error but lowers the RMS norm in which
    an error is held to the tolerance, by a known factor; the tolerance is lowered by it too.
    """
    size = max(len(one.y0) for one in among)
    length = len(problem.y0)
    y0 = np.pad(problem.y0, (0, size - length))

    def run(tolerance: float) -> tuple[Any, int]:
        padded = tolerance * math.sqrt(length / size)
        solution = _compiled(name, among)(among.index(problem), y0, problem.t1, padded)
        if not solution.ok:
            raise SolveFailedError
        return solution.ys[-1][:length], int(solution.nfe)

    return run


@functools.cache
def _compiled(name: str, among: tuple[InitialValue, ...]) -> Callable:
    size = max(len(one.y0) for one in among)

    def padded(problem: InitialValue) -> Callable:
        length = len(problem.y0)
        return lambda t, y: jnp.pad(problem.field(jnp, t, y[:length]), (0, size - length))

    fields = [padded(problem) for problem in among]

    @jax.jit
    def solve(index, y0, t1, tolerance):
        field = lambda t, y, index: jax.lax.switch(index, fields, t, y)
        return jax_node.solve.solve(
            field, y0, jnp.stack([jnp.zeros_like(t1), t1]), index, solver=name, rtol=tolerance,
            atol=tolerance, max_steps=MAX_STEPS,
        )  # fmt: skip

    return lambda *arguments: solve(*map(jnp.asarray, arguments))


def by_torch(problem: InitialValue, name: str) -> Solve:
    """`torch_node.solve`, whose count is of calls; the setting is a number of steps if fixed."""
    y0 = torch.tensor(problem.y0)
    ts = torch.tensor([0.0, problem.t1], dtype=torch.float64)

    def run(setting: float) -> tuple[Any, int]:
        fixed = name == "implicit_adams"
        tolerance = 1e-12 if fixed else setting  # of the corrector's iteration
        with torch.no_grad():
            solution = torch_node.solve.solve(
                lambda t, y: problem.field(torch, t, y), y0, ts, params=(), solver=name,
                adjoint="direct", rtol=tolerance, atol=tolerance,
                step_size=problem.t1 / setting if fixed else None, max_steps=MAX_STEPS,
            )  # fmt: skip
        return solution.ys[-1].numpy(), solution.nfe

    return run


def by_scipy(problem: InitialValue, name: str) -> Solve:
    """VODE's Adams method, LSODA (which may change to BDF), or DOP853."""

    def run(tolerance: float) -> tuple[Any, int]:
        calls = 0

        def field(t, y):
            nonlocal calls
            calls += 1
            return problem.field(np, t, y)

        if name == "vode":
            ode = scipy.integrate.ode(field).set_initial_value(problem.y0)
            ode.set_integrator(
                "vode", method="adams", rtol=tolerance, atol=tolerance, nsteps=MAX_STEPS
            )
            y, ok = ode.integrate(problem.t1), ode.successful()
        else:
            found = scipy.integrate.solve_ivp(
                field, (0, problem.t1), problem.y0, name.upper(), rtol=tolerance, atol=tolerance
            )
            y, ok = found.y[:, -1], found.success
        if not ok:
            raise SolveFailedError
        return y, calls

    return run


def ratios(
    ours: dict[str, Any], theirs: dict[str, Any], within: tuple[float, float] = (0, 1)
) -> list[float]:
    """Our NFE over theirs at equal error, at each of our tolerances `within` two.

    Theirs is interpolated, log NFE against log error; errors outside theirs are left out.
    """
    points = sorted(
        (math.log(e), math.log(n))
        for e, n in zip(theirs["errors"], theirs["nfe"], strict=True)
        if e is not None and e > FLOOR
    )
    if not points:
        return []
    x, y = zip(*points, strict=True)
    return [
        n / math.exp(np.interp(math.log(e), x, y))
        for e, n, tolerance in zip(ours["errors"], ours["nfe"], ours["tolerances"], strict=True)
        if within[0] <= tolerance <= within[1]
        and e is not None
        and e > FLOOR
        and x[0] <= math.log(e) <= x[-1]
    ]


def slope(cell: dict[str, Any]) -> float:
    """The exponent p of error ~ tolerance^p, by least squares over all tolerances; 1 is ideal."""
    points = [
        (math.log(t), math.log(e))
        for t, e in zip(cell["tolerances"], cell["errors"], strict=True)
        if e is not None and e > FLOOR
    ]
    if len(points) < 3:
        return math.nan
    x, y = np.array(points).T
    return float(np.polyfit(x, y, 1)[0])
