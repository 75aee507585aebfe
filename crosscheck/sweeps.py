"""Error against tolerance or step size: states and gradients, from loose to tight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from crosscheck import gradients, torch_side
from crosscheck.check import Check, difference
from crosscheck.fields import THREE
from crosscheck.problem import Problem, cotangent
from jax_node.solve import FIXED_STEP

TOLERANCES = tuple(10.0**-k for k in range(3, 11))


@dataclass(frozen=True)
class Sweep:
    """Relative errors of `what` (`state` or `gradient`): `errors[method][i]` at `tolerances[i]`,
    which are step sizes if the solver takes these.

    `work[method][i]` are the evaluations of the field in the direction that the error comes from.
    """

    what: str
    problem: Problem
    solver: str
    tolerances: tuple[float, ...]
    errors: Mapping[str, np.ndarray]
    work: Mapping[str, np.ndarray]
    reference: str

    def slope(self, method: str) -> float:
        """Least-squares slope of log error over log tolerance."""
        logs = np.log10(np.maximum(self.errors[method], 1e-16))
        return float(np.polyfit(np.log10(self.tolerances), logs, 1)[0])

    def order(self, method: str) -> float:
        """The same over evaluations: p in error ~ 1 / work^p."""
        logs = np.log10(self.errors[method])
        return -float(np.polyfit(np.log10(self.work[method]), logs, 1)[0])


def states(problem: Problem, solver: str, tolerances: tuple[float, ...] = TOLERANCES) -> Sweep:
    """Solve at every tolerance; errors at the last time."""
    ts = problem.ts[[0, -1]]
    best = ("dopri8", 1e-13) if problem.smooth else ("dopri5", 1e-9)
    exact = torch_side.run(problem, best[0], "direct", best[1], ts=ts).ys[-1]
    errors, work = {}, {}
    for name, side in gradients.SIDES.items():
        runs = [side.run(problem, solver, "direct", rtol, ts=ts) for rtol in tolerances]
        errors[name] = np.array([np.linalg.norm(run.ys[-1] - exact) for run in runs])
        errors[name] /= np.linalg.norm(exact)
        work[name] = np.array([run.nfe_forward for run in runs])
    reference = f"torch {best[0]} at {best[1]:.0e}"
    return Sweep("state", problem, solver, tolerances, errors, work, reference)


def of_gradients(
    problem: Problem,
    tolerances: tuple[float, ...] = TOLERANCES,
    adjoints: tuple[str, ...] | None = None,
    solver: str = "dopri5",
) -> Sweep:
    """The gradient in y0 and parameters by every method (or `adjoints`) at each tolerance."""
    exact = gradients.without_times(gradients.reference_gradient(problem, tuple(THREE)))
    loss = cotangent(problem, THREE)
    errors, work = {}, {}
    for side, adjoint in gradients.methods(solver, adjoints):
        runs = [
            gradients.SIDES[side].run(problem, solver, adjoint, rtol, ts=THREE, cotangent=loss)
            for rtol in tolerances
        ]
        name = f"{side} {adjoint}"
        errors[name] = np.array(
            [difference(gradients.without_times(run.gradients or {}), exact).error for run in runs]
        )
        work[name] = np.array(
            [run.nfe_backward if adjoint == "adjoint" else run.nfe_forward for run in runs]
        )
    return Sweep("gradient", problem, solver, tolerances, errors, work, "reference")


def checks(sweep: Sweep) -> list[Check]:
    """Every method's error is about in proportion to rtol; with kinks, to a power of the step.

    A step h across a kink of the field errs by h^2 in the state and by h in its derivatives,
    whatever the order of the method, and no estimate of the state's error sees the latter. So the
    order is 2 for states and 1 for gradients, and rtol says little.
    """
    first, last = sweep.tolerances[0], sweep.tolerances[-1]
    kind = "step" if sweep.solver in FIXED_STEP else "rtol"
    order = 2 if sweep.what == "state" else 1
    found = []
    for method, errors in sweep.errors.items():
        ends = f"(errors {errors[0]:.1e} ... {errors[-1]:.1e})"
        over = f"{kind} {first:.2g} ... {last:.2g}"
        if sweep.problem.smooth:
            value, least, reason = sweep.slope(method), 0.7, "in proportion to rtol"
            quantity = f"slope over {over} {ends}"
        else:
            value, least = sweep.order(method), order - 0.5
            reason = f"order {order} at the kinks of ReLU, less 0.5"
            nfe = sweep.work[method]
            quantity = f"order over NFE {nfe[0]} ... {nfe[-1]}, {over} {ends}"
        found.append(
            Check(
                "error against tolerance",
                f"{sweep.what}, {sweep.problem.name}, {sweep.solver}, float64",
                method,
                sweep.reference,
                value,
                least,
                reason,
                at_least=True,
                quantity=quantity,
            )
        )
    return found
