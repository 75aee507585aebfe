"""What is compared: the quick selection and the full one, section by section."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from crosscheck import (
    breakdown,
    fields,
    gradients,
    layers,
    trained,
    training,
    trajectories,
    weights,
)
from crosscheck.check import Check
from crosscheck.problem import Problem
from jax_node.solve import FIXED_STEP

# The kinks of ReLU make an adaptive solve long: with dopri5 at 1e-6 the adjoint of the MNIST field
# takes thousands of evaluations.
CONV_TOLERANCE = 1e-4
CONV_TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5)


@dataclass
class Findings:
    """All checks, and the material of the figures."""

    checks: list[Check] = field(default_factory=list)
    pairs: list[trajectories.Pair] = field(default_factory=list)
    squares: list[gradients.Square] = field(default_factory=list)
    sweeps: list[trajectories.Sweep] = field(default_factory=list)
    gradient_sweeps: list[gradients.Sweep] = field(default_factory=list)
    breakdown: breakdown.Breakdown | None = None
    divergences: list[training.Divergence] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def failures(self) -> list[Check]:
        """The checks that exceed their bounds."""
        return [check for check in self.checks if not check.passed]


def run(quick: bool, say: Callable[[str], None]) -> Findings:
    """Run every section; `say` hears of each as it begins."""
    findings = Findings(settings={"quick": quick})

    @contextmanager
    def section(name: str) -> Iterator[None]:
        say(name)
        start = time.perf_counter()
        yield
        findings.seconds[name] = time.perf_counter() - start

    with section("weights"):
        findings.checks += weights.checks(all_models=not quick)
    with section("training for trained weights"):
        steps = 10 if quick else 60
        params = trained.model_weights(steps)
        findings.settings["trained weights"] = f"rknet after {steps} steps of training in torch"
        images = trained.batch(100, 2)[0]
    with section("layers"):
        findings.checks += layers.checks("odenet", params, images, "float64")
        if not quick:
            findings.checks += layers.checks("odenet", params, images, "float32")
            findings.checks += layers.checks("odenet", None, images, "float64", "residual")
            findings.checks += layers.checks("resnet6", None, images, "float64")
            findings.checks += layers.checks("resnet6", None, images, "float32")
    problems = [fields.linear(), fields.spiral(), fields.mlp()]
    conv = fields.conv(*layers.features("odenet", params, images))
    with section("vector field"):
        for problem in (*problems, conv):
            findings.checks += layers.field_checks(problem)
            if not quick or problem is conv:
                findings.checks += layers.field_checks(problem, "float32")
    with section("trajectories"):
        for problem, solver, dtype in _trajectories(quick, problems, conv):
            pair = trajectories.solve_both(problem, solver, trajectories.control(solver), dtype)
            findings.pairs.append(pair)
            findings.checks += trajectories.checks(pair)
    with section("gradients"):
        findings.checks += gradients.linear_checks(problems[0], fields.THREE)
        for problem, solver, dtype, adjoints in _gradients(quick, problems, conv):
            _gradient(findings, problem, solver, dtype, adjoints)
    with section("error against tolerance"):
        findings.gradient_sweeps.append(gradients.sweep(problems[2], quick=quick))
        if not quick:
            for problem in problems:
                for solver in trajectories.common_solvers():
                    if solver not in FIXED_STEP:
                        findings.sweeps.append(trajectories.sweep(problem, solver))
            findings.sweeps.append(trajectories.sweep(conv, "dopri5", CONV_TOLERANCES))
            findings.gradient_sweeps.append(gradients.sweep(problems[1]))
            findings.gradient_sweeps.append(gradients.sweep(conv, "dopri5", CONV_TOLERANCES))
        for swept in findings.sweeps:
            findings.checks += trajectories.sweep_checks(swept)
        for swept_gradient in findings.gradient_sweeps:
            findings.checks += gradients.sweep_checks(swept_gradient)
    if not quick:
        with section("where the adjoint breaks down"):
            findings.breakdown = breakdown.measure()
            findings.checks += breakdown.checks(findings.breakdown)
        with section("200 training steps"):
            findings.divergences = training.both_precisions(steps=200)
            findings.checks += training.checks(findings.divergences)
    return findings


def _trajectories(
    quick: bool, problems: list[Problem], conv: Problem
) -> Iterator[tuple[Problem, str, str]]:
    solvers = trajectories.common_solvers()
    if quick:
        yield from ((problems[2], solver, "float64") for solver in solvers)
        yield from ((conv, solver, "float64") for solver in ("rk4", "dopri5"))
        return
    for problem in (*problems, conv):
        for solver in solvers:
            yield problem, solver, "float64"
            yield problem, solver, "float32"


def _gradients(
    quick: bool, problems: list[Problem], conv: Problem
) -> Iterator[tuple[Problem, str, str, tuple[str, ...] | None]]:
    if quick:
        yield problems[2], "euler", "float64", None
        yield problems[2], "dopri5", "float64", ("direct", "adjoint")
        yield conv, "rk4", "float64", ("direct", "adjoint")
        return
    for problem in (*problems, conv):
        for solver in trajectories.common_solvers():
            if problem is not conv or solver in (*FIXED_STEP, "dopri5"):
                yield problem, solver, "float64", None
    for problem in (problems[2], conv):
        for solver in ("euler", "rk4", "dopri5"):
            yield problem, solver, "float32", None


def _gradient(
    findings: Findings,
    problem: Problem,
    solver: str,
    dtype: str,
    adjoints: tuple[str, ...] | None,
) -> None:
    large = problem.name == "conv"
    value = (1 / 4 if solver in FIXED_STEP else CONV_TOLERANCE) if large else None
    ts = fields.THREE_EQUAL if large else fields.THREE
    # Explicit Adams of order 11 has no steps at which it is both stable and inaccurate.
    halve = problem.smooth and solver in FIXED_STEP and dtype == "float64"
    halve = halve and solver != "explicit_adams"
    square = gradients.square(
        problem, solver, value, ts=ts, dtype=dtype, adjoints=adjoints, halve=halve
    )
    findings.squares.append(square)
    findings.checks += gradients.checks(square)
    if halve:
        exact = gradients.reference_gradient(problem)
        findings.checks += gradients.order_checks(square, exact)
