"""Gradients of one solve by every method of both frameworks, and the true gradient."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from crosscheck import jax_side, reference, torch_side
from crosscheck.check import Tensors, difference
from crosscheck.fields import THREE
from crosscheck.problem import Problem, Run, condition, cotangent
from crosscheck.trajectories import control, label, section
from jax_node.solve import FIXED_STEP as FIXED_STEP_SOLVERS

EXACT = "complex step"
SIDES = {"jax": jax_side, "torch": torch_side}


@dataclass(frozen=True)
class Square:
    """Gradients of one solve by every method: `runs[method]`; `exact` is the complex step's.

    `refined` has the runs at half and at a quarter of the step, if wanted; `other` those of an
    adaptive solver at another tolerance, from which `error` is read.
    """

    problem: Problem
    solver: str
    control: float
    dtype: str
    ts: np.ndarray
    runs: Mapping[str, Run]
    exact: Tensors | None = None
    refined: tuple[Mapping[str, Run], ...] = ()
    other: Mapping[str, Run] | None = None

    def error(self, method: str, pick: Callable[[Tensors], Tensors]) -> float:
        """By how much what is picked of an adaptive gradient moves with the tolerance."""
        assert self.other is not None
        moved = self.other[method].gradients
        assert moved is not None
        return difference(pick(self.of(method)), pick(moved)).error

    @property
    def label(self) -> str:
        """What was solved."""
        return label(self.problem, self.solver, self.control, self.dtype)

    @property
    def section(self) -> str:
        """Where the report has it."""
        return section("gradients", self.solver)

    def of(self, method: str) -> Tensors:
        """The gradient by a method."""
        if method == EXACT:
            assert self.exact is not None
            return self.exact
        found = self.runs[method].gradients
        assert found is not None
        return found

    @functools.cached_property
    def condition(self) -> float:
        """The condition of torch's direct gradient in float64."""
        loss = cotangent(self.problem, self.ts)

        def gradient(problem: Problem) -> Tensors:
            run = torch_side.run(
                problem, self.solver, "direct", self.control, ts=self.ts, cotangent=loss
            )
            assert run.gradients is not None
            return run.gradients

        return condition(self.problem, gradient)

    def matrix(self) -> tuple[list[str], np.ndarray]:
        """Methods, family by family, and the differences (y0 and parameters) of every two."""
        names = [*self.runs, *([EXACT] if self.exact is not None else [])]
        names.sort(key=lambda name: "adjoint" in name or "handwritten" in name)
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
    refine: bool = False,
) -> Square:
    """Every method's gradient of sum(c * ys) with fixed random c; `refine`: at finer steps too."""
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
        (runs(value / 2), runs(value / 4)) if refine else (),
        runs(another(problem, value))
        if solver not in FIXED_STEP_SOLVERS and dtype == "float64"
        else None,
    )


def another(problem: Problem, tolerance: float) -> float:
    """A tolerance whose solve has a tenth of the error, or (where none is below) ten times it.

    With kinks, for which steps grow faster than errors fall, it is nearer.
    """
    factor = 100 if problem.smooth else 10
    return tolerance / factor if tolerance >= 1e-10 else tolerance * factor


@functools.lru_cache
def reference_gradient(problem: Problem, ts: tuple[float, ...]) -> Tensors:
    """The true gradient: complex step through 1,280 rk4 steps; with kinks, midpoint steps of 1/512.

    Across a kink of the field every method's gradient has order 1, and the shortest step is best.
    """
    times = np.array(ts)
    loss = cotangent(problem, times)
    if problem.numpy is not None and problem.smooth:
        return reference.gradients(problem, "rk4", float(ts[-1] - ts[0]) / 1280, times, loss)
    run = torch_side.run(problem, "midpoint", "direct", 1 / 512, ts=times, cotangent=loss)
    assert run.gradients is not None
    return run.gradients


def without_times(gradient: Tensors) -> Tensors:
    """A gradient's y0 and parameters."""
    return {name: value for name, value in gradient.items() if name != "ts"}


def only_times(gradient: Tensors) -> Tensors:
    """A gradient's observation times."""
    return {"ts": gradient["ts"]}
