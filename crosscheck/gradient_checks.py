"""Which gradients must agree with which, how closely, and why.

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

import numpy as np

from crosscheck import reference
from crosscheck.check import Check, compare_tensors, difference
from crosscheck.fields import THREE
from crosscheck.gradients import EXACT, Square, only_times, reference_gradient, without_times
from crosscheck.problem import EPS, Problem, cotangent
from crosscheck.trajectories import fixed_bound
from jax_node.solve import FIXED_STEP

DISCRETISE = ("jax direct", "jax checkpoint", "torch direct")
OPTIMISE = ("jax adjoint", "torch adjoint", "torch handwritten")


def checks(square: Square) -> list[Check]:
    """All that is known of a square: which it is, its solver and precision say."""
    if square.dtype == "float32":
        return single_checks(square)
    if square.solver not in FIXED_STEP:
        return adaptive_checks(square)
    found = []
    bound, reason = fixed_bound(square.problem, square.ts)
    for family in (DISCRETISE + (EXACT,), OPTIMISE):
        present = [m for m in family if m in square.runs or (m == EXACT and square.exact)]
        for a, b in itertools.combinations(present, 2):
            left, right = square.common(a, b)
            sides = {a: left, b: right}
            found.append(compare_tensors(square.section, square.label, sides, bound, reason))
    found += _time_checks(square)
    return found + order_checks(square) if square.refined else found


def _time_checks(square: Square) -> list[Check]:
    found = []

    def check(a: str, b: str, part: slice, what: str, reason: str) -> None:
        if all(m in square.runs or (m == EXACT and square.exact) for m in (a, b)):
            if EXACT in (a, b) and "ts" not in (square.exact or {}):
                return
            sides = {m: {what: square.of(m)["ts"][part]} for m in (a, b)}
            bound = fixed_bound(square.problem, square.ts)[0]
            found.append(compare_tensors(square.section, square.label, sides, bound, reason))

    check("torch direct", EXACT, slice(None), "ts", "both grids are made of the times")
    check("torch adjoint", "torch handwritten", slice(None), "ts", "the same formulas and steps")
    check("jax adjoint", "torch adjoint", slice(1, None), "ts[1:]", "a(t_i) f(t_i, y_i) on both")
    return found


def order_checks(square: Square) -> list[Check]:
    """From step / 2 to step / 4 errors shrink by 2^p: for y0 and parameters, and for the times.

    (Longer steps are too long for Adams, whose order is seen once the start is behind.)
    """
    exact = reference_gradient(square.problem, tuple(square.ts))
    expected = {"euler": 1, "midpoint": 2, "rk4": 4, "implicit_adams": 4}
    found = []
    half, quarter = square.refined
    for method in square.runs:
        for part, pick in (("y0 and parameters", without_times), ("times", only_times)):
            order: float = expected[square.solver]
            reason = f"order {order:g} of the method, less 0.5 at this step"
            if part == "times" and method in ("jax direct", "jax checkpoint"):
                # The slope of the interpolant at a step's end: linear for Euler and midpoint,
                # cubic Hermite, with the last evaluation for its slope, otherwise.
                order = 2 if square.solver == "rk4" else 1
                reason = f"order {order:g} of the interpolant's slope, less 0.5 at this step"
            elif part == "times" and (square.solver, method) == ("implicit_adams", "torch direct"):
                order = 1
                reason = "order 1, less 0.5: moving a time makes unequal steps, which Adams ignores"
            coarse, fine = half[method].gradients, quarter[method].gradients
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
                    quantity=f"order from step / 2 to step / 4 (errors {errors[0]:.1e}, "
                    f"{errors[1]:.1e})",
                )
            )
    return found


def adaptive_checks(square: Square) -> list[Check]:
    """Gradients within the errors of the two solves.

    By `direct` and `checkpoint` JAX takes the same steps. Others have errors, each its own:
    measured by solving again at another tolerance.
    """
    found = []
    pairs = [
        ("jax direct", "jax checkpoint"),
        ("jax direct", "torch direct"),
        ("jax adjoint", "torch adjoint"),
        ("torch adjoint", "torch direct"),
    ]
    for a, b in pairs:
        if a not in square.runs or b not in square.runs:
            continue
        for what, pick in (("", without_times), (", times", only_times)):
            sides = {m: pick(square.of(m)) for m in (a, b)}
            bound, why = rounding_bound(square)
            # Of times even JAX's two differ by an error's worth where a step was rejected.
            if what or b != "jax checkpoint":
                errors = [square.error(m, pick) for m in (a, b)]
                bound += 4 * sum(errors)
                why = f"4 x the errors of both, {errors[0]:.1e} and {errors[1]:.1e}, and rounding"
            found.append(compare_tensors(square.section, square.label + what, sides, bound, why))
    return found


def rounding_bound(square: Square) -> tuple[float, str]:
    """How far rounding may move an adaptive gradient.

    Rounding, eps times the condition, moves an estimated error, and so the steps, by its share in
    it: at worst 1e-16 over 1e-8. (Kinks amplify that: there the error of the solve is allowed.)

    Of two right gradients g and h of errors e and f, |g - h| <= e + f. An error is measured by its
    change e' to another tolerance, where it is a factor r smaller: e <= e' / (1 - 1 / r). With
    kinks and a tenth of the tolerance r may be 1.5, so e <= 3 e'; the rest to 4 is for what chance
    leaves of it.
    """
    if not square.problem.smooth:
        return square.control, "rtol: rounding moves the steps near the kinks of ReLU"
    return 1e-8 * max(
        1, square.condition
    ), f"1e-8 x condition {square.condition:.2g}: the same steps"


def single_checks(square: Square) -> list[Check]:
    """Float32: families in themselves, by a bound from eps and the number of operations."""
    problem = square.problem
    steps = max(run.accepted for run in square.runs.values())
    bound = 100 * problem.stable * EPS["float32"] * np.sqrt(problem.operations * steps)
    reason = (
        f"100 eps sqrt({problem.operations} terms x {steps} steps) x {problem.stable:g}; "
        "100 for the gradient's own condition"
    )
    if square.solver not in FIXED_STEP:
        bound, reason = bound + 100 * square.control, reason + " + 100 rtol"
    found = []
    for family in (DISCRETISE, OPTIMISE):
        present = [m for m in family if m in square.runs]
        for a, b in itertools.combinations(present, 2):
            sides = {m: without_times(square.of(m)) for m in (a, b)}
            found.append(compare_tensors(square.section, square.label, sides, bound, reason))
    return found


def linear_checks(problem: Problem) -> list[Check]:
    """The linear field's gradient by matrix exponentials, against the reference used elsewhere."""
    ts = THREE
    loss = cotangent(problem, ts)
    return [
        compare_tensors(
            "gradients",
            "linear, exact",
            {
                "matrix exponential": reference.linear_gradients(problem, ts, loss),
                "complex step, 1,280 rk4 steps": reference_gradient(problem, tuple(ts)),
            },
            1e-11,
            "the step's fourth power, 1e-12, is what is left",
        )
    ]
