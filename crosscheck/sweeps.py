"""Error against tolerance: states and gradients of adaptive solves, from loose to tight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from crosscheck import gradients, jax_side, torch_side
from crosscheck.check import Check, difference
from crosscheck.fields import THREE
from crosscheck.problem import Problem, cotangent

TOLERANCES = tuple(10.0**-k for k in range(3, 11))
SIDES = {"jax": jax_side, "torch": torch_side}


@dataclass(frozen=True)
class Sweep:
    """Relative errors of `what` (`state` or `gradient`): `errors[method][i]` at `tolerances[i]`."""

    what: str
    problem: Problem
    solver: str
    tolerances: tuple[float, ...]
    errors: Mapping[str, np.ndarray]
    reference: str

    def slope(self, method: str) -> float:
        """Least-squares slope of log error over log tolerance."""
        logs = np.log10(np.maximum(self.errors[method], 1e-16))
        return float(np.polyfit(np.log10(self.tolerances), logs, 1)[0])


def states(problem: Problem, solver: str, tolerances: tuple[float, ...] = TOLERANCES) -> Sweep:
    """Solve at every tolerance; errors at the last time."""
    ts = problem.ts[[0, -1]]
    best = ("dopri8", 1e-13) if problem.smooth else ("dopri5", 1e-9)
    exact = torch_side.run(problem, best[0], "direct", best[1], ts=ts).ys[-1]
    errors = {}
    for name, side in SIDES.items():
        ends = [side.run(problem, solver, "direct", rtol, ts=ts).ys[-1] for rtol in tolerances]
        errors[name] = np.array([np.linalg.norm(end - exact) for end in ends])
        errors[name] /= np.linalg.norm(exact)
    reference = f"torch {best[0]} at {best[1]:.0e}"
    return Sweep("state", problem, solver, tolerances, errors, reference)


def of_gradients(
    problem: Problem,
    tolerances: tuple[float, ...] = TOLERANCES,
    adjoints: tuple[str, ...] | None = None,
) -> Sweep:
    """dopri5's gradient in y0 and parameters by every method (or `adjoints`) at each tolerance."""
    solver = "dopri5"
    exact = gradients.without_times(gradients.reference_gradient(problem, tuple(THREE)))
    loss = cotangent(problem, THREE)
    errors = {}
    for side, adjoint in gradients.methods(solver, adjoints):
        found = []
        for rtol in tolerances:
            run = SIDES[side].run(problem, solver, adjoint, rtol, ts=THREE, cotangent=loss)
            assert run.gradients is not None
            found.append(difference(gradients.without_times(run.gradients), exact).error)
        errors[f"{side} {adjoint}"] = np.array(found)
    return Sweep("gradient", problem, solver, tolerances, errors, "reference")


def checks(sweep: Sweep) -> list[Check]:
    """Every method's error is about in proportion to the tolerance."""
    least = 0.7 if sweep.problem.smooth else 0.4
    reason = "in proportion to rtol" if sweep.problem.smooth else "slower: ReLU has kinks"
    first, last = sweep.tolerances[0], sweep.tolerances[-1]
    return [
        Check(
            "error against tolerance",
            f"{sweep.what}, {sweep.problem.name}, {sweep.solver}, float64",
            method,
            sweep.reference,
            sweep.slope(method),
            least,
            reason,
            at_least=True,
            quantity=f"slope over rtol {first:.0e} ... {last:.0e} "
            f"(errors {errors[0]:.1e} ... {errors[-1]:.1e})",
        )
        for method, errors in sweep.errors.items()
    ]
