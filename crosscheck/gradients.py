"""Gradients by every method of both frameworks, pair by pair, against what is exact.

Two families. *Discretise-then-optimise* (diffrax direct and checkpoint, torchdiffeq direct) and the
complex-step derivative differentiate the computed numbers: on the same grid they agree to rounding.
*Optimise-then-discretise* (the adjoints: diffrax, torchdiffeq, by hand) solve another equation:
they agree to rounding with each other, and with the first family as far as the solver is accurate.

Times are their own case. torch_node's grid is made of the observation times and stretches with
them; diffrax's steps start at t0 with a constant length, and states in between are interpolated. So
the two compute different functions of the times, whose derivatives agree with the true one and
each other only as h goes to zero. The adjoints use a(t_i) f(t_i, y_i) on both sides, except at t0,
where torchdiffeq integrates it and jax_node reads it off.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from crosscheck import jax_side, reference, torch_side
from crosscheck.check import Check, Tensors, compare_tensors, difference
from crosscheck.fields import THREE
from crosscheck.problem import EPS, Problem, Run, cotangent
from crosscheck.trajectories import TOLERANCES, control, label, slope
from jax_node import solve as jax_solve

DISCRETISE = ("jax direct", "jax checkpoint", "torch direct")
OPTIMISE = ("jax adjoint", "torch adjoint", "torch handwritten")
EXACT = "complex step"
SIDES = {"jax": jax_side, "torch": torch_side}


@dataclass(frozen=True)
class Square:
    """Gradients of one solve by every method: `runs[method]`; `exact` is the complex step's."""

    problem: Problem
    solver: str
    control: float
    dtype: str
    ts: np.ndarray
    runs: Mapping[str, Run]
    exact: Tensors | None = None
    halved: Mapping[str, Run] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What was solved."""
        return label(self.problem, self.solver, self.control, self.dtype)

    def of(self, method: str) -> Tensors:
        """The gradient by a method."""
        if method == EXACT:
            assert self.exact is not None
            return self.exact
        found = self.runs[method].gradients
        assert found is not None
        return found

    def matrix(self) -> tuple[list[str], np.ndarray]:
        """Methods, and the relative differences (y0 and parameters) of every two of them."""
        names = [*self.runs, *([EXACT] if self.exact is not None else [])]
        table = np.zeros((len(names), len(names)))
        for (i, a), (j, b) in itertools.combinations(enumerate(names), 2):
            table[i, j] = table[j, i] = difference(*self.common(a, b)).error
        return names, table

    def common(self, a: str, b: str) -> tuple[Tensors, Tensors]:
        """y0 and parameters by two methods; along directions if one is known there only."""
        pair = [without_times(self.of(name)) for name in (a, b)]
        if self.exact is not None and EXACT in (a, b) and "y0" not in self.exact:
            pair = [
                g if name == EXACT else reference.along(g, self.problem)
                for g, name in zip(pair, (a, b), strict=True)
            ]
        return pair[0], pair[1]


def methods(solver: str, adjoints: tuple[str, ...] | None = None) -> list[tuple[str, str]]:
    """(framework, gradient) pairs for a solver: those both frameworks offer, all by default."""
    pairs = [("jax", name) for name in ("direct", "checkpoint", "adjoint")]
    pairs += [("torch", name) for name in ("direct", "adjoint")]
    if solver == "euler":
        pairs.append(("torch", "handwritten"))
    return [pair for pair in pairs if adjoints is None or pair[1] in adjoints]


def square(
    problem: Problem,
    solver: str,
    value: float | None = None,
    *,
    ts: np.ndarray = THREE,
    dtype: str = "float64",
    adjoints: tuple[str, ...] | None = None,
    halve: bool = False,
) -> Square:
    """Every method's gradient of sum(c * ys) with fixed random c; `halve` repeats at step / 2."""
    value = control(solver) if value is None else value
    loss = cotangent(problem, ts)

    def runs(value: float) -> dict[str, Run]:
        found = [
            SIDES[side].run(problem, solver, adjoint, value, ts=ts, cotangent=loss, dtype=dtype)
            for side, adjoint in methods(solver, adjoints)
        ]
        return {run.name: run for run in found}

    exact: Tensors | None = None
    if problem.numpy is not None and solver in reference.TABLEAUX and dtype == "float64":
        derivative = reference.gradients if problem.smooth else reference.slopes
        exact = derivative(problem, solver, value, ts, loss)
    return Square(
        problem,
        solver,
        value,
        dtype,
        ts,
        runs(value),
        exact,
        runs(value / 2) if halve else {},
    )


def checks(square: Square) -> list[Check]:
    """Within a family every pair to rounding; the times where the two compute the same thing."""
    if square.dtype == "float64":
        fixed = square.solver in jax_solve.FIXED_STEP
        bound, reason = 1e-10, "the same discretisation in float64"
        if square.solver == "explicit_adams":
            bound, reason = 1e-8, "order 11 is unstable at this step, and amplifies rounding"
        if not fixed:
            return adaptive_checks(square)
    else:
        return single_checks(square)
    found = []
    for family in (DISCRETISE + (EXACT,), OPTIMISE):
        present = [m for m in family if m in square.runs or (m == EXACT and square.exact)]
        for a, b in itertools.combinations(present, 2):
            left, right = square.common(a, b)
            sides = {a: left, b: right}
            found.append(compare_tensors("gradients", square.label, sides, bound, reason))
    found += _time_checks(square, bound)
    return found


def _time_checks(square: Square, bound: float) -> list[Check]:
    found = []

    def check(a: str, b: str, part: slice, what: str, reason: str) -> None:
        if all(m in square.runs or (m == EXACT and square.exact) for m in (a, b)):
            if EXACT in (a, b) and "ts" not in (square.exact or {}):
                return
            sides = {m: {what: square.of(m)["ts"][part]} for m in (a, b)}
            found.append(compare_tensors("gradients", square.label, sides, bound, reason))

    check("torch direct", EXACT, slice(None), "ts", "both grids are made of the times")
    check("torch adjoint", "torch handwritten", slice(None), "ts", "the same formulas and steps")
    check("jax adjoint", "torch adjoint", slice(1, None), "ts[1:]", "a(t_i) f(t_i, y_i) on both")
    return found


def order_checks(square: Square, exact: Tensors) -> list[Check]:
    """At half the step errors shrink by 2^p, for y0 and parameters and for the times apart."""
    expected = {"euler": 1, "midpoint": 2, "rk4": 4, "implicit_adams": 4}
    found = []
    for method, run in square.runs.items():
        for part, pick in (("y0 and parameters", without_times), ("times", only_times)):
            order: float = expected[square.solver]
            reason = f"order {order:g} of the method, less 0.5 at this step"
            if part == "times" and method in ("jax direct", "jax checkpoint"):
                # The slope of the interpolant at a step's end: linear for Euler and midpoint,
                # cubic Hermite, with the last evaluation for its slope, otherwise.
                order = 2 if square.solver == "rk4" else 1
                reason = f"order {order:g} of the interpolant's slope, less 0.5 at this step"
            coarse, fine = run.gradients, square.halved[method].gradients
            assert coarse is not None
            assert fine is not None
            errors = [difference(pick(g), pick(exact)).error for g in (coarse, fine)]
            observed = float(np.log2(errors[0] / max(errors[1], 1e-16)))
            found.append(
                Check(
                    "order of gradients",
                    f"{square.label}, {part}",
                    method,
                    "reference",
                    observed,
                    order - 0.5,
                    reason,
                    at_least=True,
                    quantity=f"order from step to step / 2 (errors {errors[0]:.1e}, "
                    f"{errors[1]:.1e})",
                )
            )
    return found


def adaptive_checks(square: Square) -> list[Check]:
    """The same steps, so the same gradients, but for torchdiffeq's own path through the first step.

    torchdiffeq differentiates its choice of the first step size; diffrax does not. The extra term
    is of the size of the error. Between families the error against the solver's tolerance counts.
    """
    found = []
    tolerance = square.control
    rounding = 1e-8 if square.problem.smooth else tolerance
    pairs = [
        ("jax direct", "jax checkpoint", rounding, "the same steps, stored or recomputed"),
        (
            "jax direct",
            "torch direct",
            100 * tolerance,
            "100 rtol: torchdiffeq differentiates its first step size, of the error's size",
        ),
        (
            "jax adjoint",
            "torch adjoint",
            100 * tolerance,
            "100 rtol: error norms of the augmented states differ",
        ),
        ("torch adjoint", "torch direct", 100 * tolerance, "100 rtol: two discretisations"),
    ]
    for a, b, bound, reason in pairs:
        if a in square.runs and b in square.runs:
            for what, pick in (("", without_times), (", times", only_times)):
                sides = {m: pick(square.of(m)) for m in (a, b)}
                limit = max(bound, 100 * tolerance) if what else bound
                found.append(
                    compare_tensors("gradients", square.label + what, sides, limit, reason)
                )
    return found


def single_checks(square: Square) -> list[Check]:
    """Float32: families in themselves, by a bound from eps and the number of operations."""
    problem = square.problem
    steps = max(run.accepted for run in square.runs.values())
    bound = 100 * problem.stable * EPS["float32"] * np.sqrt(problem.operations * steps)
    reason = (
        f"100 eps sqrt({problem.operations} terms x {steps} steps) x {problem.stable:g}; "
        "100 for the gradient's own condition"
    )
    if square.solver not in jax_solve.FIXED_STEP:
        bound, reason = bound + 100 * square.control, reason + " + 100 rtol"
    found = []
    for family in (DISCRETISE, OPTIMISE):
        present = [m for m in family if m in square.runs]
        for a, b in itertools.combinations(present, 2):
            sides = {m: without_times(square.of(m)) for m in (a, b)}
            found.append(compare_tensors("gradients", square.label, sides, bound, reason))
    return found


def reference_gradient(problem: Problem, ts: np.ndarray = THREE) -> Tensors:
    """The true gradient: complex step through 1,280 rk4 steps, or dopri5 at 1e-8 if not smooth.

    (A solver of higher order, or a tighter tolerance, would only look for kinks for longer.)
    """
    loss = cotangent(problem, ts)
    if problem.numpy is not None and problem.smooth:
        return reference.gradients(problem, "rk4", float(ts[-1] - ts[0]) / 1280, ts, loss)
    run = torch_side.run(problem, "dopri5", "direct", 1e-8, ts=ts, cotangent=loss)
    assert run.gradients is not None
    return run.gradients


def linear_checks(problem: Problem, ts: np.ndarray) -> list[Check]:
    """The linear field's gradient by matrix exponentials, against the reference used elsewhere."""
    loss = cotangent(problem, ts)
    return [
        compare_tensors(
            "gradients",
            "linear, exact",
            {
                "matrix exponential": reference.linear_gradients(problem, ts, loss),
                "complex step, 1,280 rk4 steps": reference_gradient(problem, ts),
            },
            1e-11,
            "the step's fourth power, 1e-12, is what is left",
        )
    ]


@dataclass(frozen=True)
class Sweep:
    """Errors of the gradient against tolerance: `errors[method][i]` at `tolerances[i]`."""

    problem: Problem
    solver: str
    tolerances: tuple[float, ...]
    errors: Mapping[str, np.ndarray]

    @property
    def label(self) -> str:
        """What was solved."""
        return f"{self.problem.name}, {self.solver}, float64"


def sweep(
    problem: Problem,
    solver: str = "dopri5",
    tolerances: tuple[float, ...] = TOLERANCES,
    *,
    quick: bool = False,
) -> Sweep:
    """Every method's error in y0 and parameters at each tolerance, against the reference."""
    exact = without_times(reference_gradient(problem))
    loss = cotangent(problem, THREE)
    errors: dict[str, list[float]] = {}
    for side, adjoint in methods(solver, ("direct", "adjoint") if quick else None):
        for tolerance in tolerances:
            run = SIDES[side].run(problem, solver, adjoint, tolerance, ts=THREE, cotangent=loss)
            assert run.gradients is not None
            error = difference(without_times(run.gradients), exact).error
            errors.setdefault(run.name, []).append(error)
    return Sweep(problem, solver, tolerances, {n: np.array(e) for n, e in errors.items()})


def sweep_checks(sweep: Sweep) -> list[Check]:
    """Errors of every method shrink with the tolerance."""
    least = 0.7 if sweep.problem.smooth else 0.4
    reason = "in proportion to rtol" if sweep.problem.smooth else "slower: ReLU has kinks"
    return [
        Check(
            "tolerance",
            f"gradient, {sweep.label}",
            method,
            "reference",
            slope(errors, sweep.tolerances),
            least,
            reason,
            at_least=True,
            quantity=f"slope over rtol {sweep.tolerances[0]:.0e} ... {sweep.tolerances[-1]:.0e} "
            f"(errors {errors[0]:.1e} ... {errors[-1]:.1e})",
        )
        for method, errors in sweep.errors.items()
    ]


def without_times(gradient: Tensors) -> Tensors:
    """A gradient's y0 and parameters."""
    return {name: value for name, value in gradient.items() if name != "ts"}


def only_times(gradient: Tensors) -> Tensors:
    """A gradient's observation times."""
    return {"ts": gradient["ts"]}
