"""What is compared: the quick selection and the full one, section by section."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from crosscheck import (
    breakdown,
    checkpoints,
    fields,
    gradient_checks,
    gradients,
    layers,
    norms,
    sweeps,
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
CONV_TOLERANCES = (1e-2, 1e-3, 1e-4)
CONV_STEPS = (1 / 8, 1 / 16, 1 / 32, 1 / 64)
QUICK_TOLERANCES = (1e-3, 1e-5, 1e-7)
LAYERS = (
    ("odenet", "float64", "conv", "group"),
    ("odenet", "float32", "conv", "group"),
    ("odenet", "float64", "residual", "group"),
    ("resnet6", "float64", "conv", "group"),
    ("resnet6", "float32", "conv", "group"),
    ("odenet", "float64", "conv", "group1"),
    ("odenet", "float64", "conv", "group64"),
    ("odenet", "float64", "conv", "batch"),
    ("resnet1", "float64", "residual", "batch"),
    ("resnet1", "float32", "conv", "batch"),
)


@dataclass
class Findings:
    """All checks, and the material of the figures."""

    checks: list[Check] = field(default_factory=list)
    pairs: list[trajectories.Pair] = field(default_factory=list)
    squares: list[gradients.Square] = field(default_factory=list)
    sweeps: list[sweeps.Sweep] = field(default_factory=list)
    breakdown: breakdown.Breakdown | None = None
    divergences: list[training.Divergence] = field(default_factory=list)
    elapsed: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def failures(self) -> list[Check]:
        """The checks that exceed their bounds."""
        return [check for check in self.checks if not check.passed]


def run(quick: bool, say: Callable[[str], None]) -> Findings:
    """Run every section; `say` hears of each as it begins."""
    findings = Findings(settings={"quick": quick})
    begun = time.perf_counter()
    if quick:
        _compare(findings, True, say)
    else:
        # On a core of its own; `spawn`, since JAX's threads do not survive a fork.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as beside:
            trainings = beside.submit(_train)
            try:
                _compare(findings, False, say)
            except BaseException:
                for process in multiprocessing.active_children():
                    process.terminate()
                raise
            name = "200 training steps"
            say(f"{name}, begun beside the rest")
            found, findings.seconds[name], findings.cpu_seconds[name] = trainings.result()
        findings.divergences = found
        findings.checks += training.checks(found)
    findings.elapsed = time.perf_counter() - begun
    return findings


def _train() -> tuple[list[training.Divergence], float, float]:
    """The divergences, and the wall and CPU seconds they took."""
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    torch.set_num_threads(1)
    wall, cpu = time.perf_counter(), time.process_time()
    found = [training.diverge(precision, 200) for precision in ("float32", "float64")]
    return found, time.perf_counter() - wall, time.process_time() - cpu


def _end_with(parent: int) -> None:
    """Wait for the parent's end, then end this process too: a killed one cannot take it along."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _compare(findings: Findings, quick: bool, say: Callable[[str], None]) -> None:
    @contextmanager
    def section(name: str) -> Iterator[None]:
        say(name)
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        findings.seconds[name] = time.perf_counter() - wall
        findings.cpu_seconds[name] = time.process_time() - cpu

    with section("weights"):
        findings.checks += weights.checks(all_models=not quick)
    with section("training for trained weights"):
        steps = 10 if quick else 60
        params = trained.model_weights(steps)
        findings.settings["trained weights"] = f"rknet after {steps} steps of training in torch"
        images = trained.batch(100, 2)["images"]
    with section("layers"):
        for model, precision, downsampling, norm in LAYERS[: 1 if quick else None]:
            fits = (model, downsampling) == ("odenet", "conv") and norm != "batch"
            start = params if fits else None
            findings.checks += layers.checks(model, start, images, precision, downsampling, norm)
    small = [fields.linear(), fields.spiral(), fields.lotka_volterra(), fields.mlp()]
    conv = fields.conv(*layers.features("odenet", params, images))
    with section("vector field"):
        for problem in (*small, conv):
            findings.checks += layers.field_checks(problem)
            if not quick or problem is conv:
                findings.checks += layers.field_checks(problem, "float32")
    with section("trajectories"):
        for problem, solver, dtype in _trajectories(quick, small, conv):
            times = not quick or (problem is not conv and solver == "dopri5")
            pair = trajectories.solve_both(problem, solver, dtype, step_times=times)
            findings.pairs.append(pair)
            findings.checks += trajectories.checks(pair)
    with section("gradients"):
        findings.checks += gradient_checks.linear_checks(small[0])
        for problem, solver, dtype, adjoints in _gradients(quick, small, conv):
            square = _square(problem, solver, dtype, adjoints)
            findings.squares.append(square)
            findings.checks += gradient_checks.checks(square)
    with section("error against tolerance"):
        for swept in _sweeps(quick, small, conv):
            findings.sweeps.append(swept)
            findings.checks += sweeps.checks(swept)
    if quick:
        return
    with section("checkpoints"):
        findings.checks += checkpoints.checks()
    with section("training with every normalisation"):
        findings.checks += norms.checks()
    with section("where the adjoint breaks down"):
        findings.breakdown = breakdown.measure()
        findings.checks += breakdown.checks(findings.breakdown)


def _trajectories(
    quick: bool, small: list[Problem], conv: Problem
) -> Iterator[tuple[Problem, str, str]]:
    mlp = small[-1]
    solvers = trajectories.common_solvers()
    if quick:
        yield from ((mlp, solver, "float64") for solver in solvers)
        yield conv, "dopri5", "float64"
        return
    yield from itertools.product((*small, conv), solvers, ["float64"])
    yield from itertools.product((mlp, conv), solvers, ["float32"])


def _gradients(
    quick: bool, small: list[Problem], conv: Problem
) -> Iterator[tuple[Problem, str, str, tuple[str, ...] | None]]:
    mlp = small[-1]
    if quick:
        yield mlp, "rk4", "float64", None
        yield mlp, "dopri5", "float64", ("direct", "adjoint")
        yield conv, "euler", "float64", ("direct", "adjoint", "handwritten")
        return
    linear, spiral, lotka_volterra, _ = small
    for problem in (linear, spiral, mlp, conv):
        for solver in ("euler", "rk4", "dopri5"):
            yield problem, solver, "float64", None
    for solver in ("midpoint", "dopri8", "bosh3"):
        yield mlp, solver, "float64", None
    for problem in (*small, conv):
        for solver in ("explicit_adams", "implicit_adams"):
            yield problem, solver, "float64", ("direct", "adjoint")
    for solver in ("rk4", "dopri5"):
        yield lotka_volterra, solver, "float64", ("direct", "adjoint")
    yield from itertools.product((mlp, conv), ("rk4", "dopri5"), ["float32"], [None])


def _square(
    problem: Problem, solver: str, dtype: str, adjoints: tuple[str, ...] | None
) -> gradients.Square:
    if problem.name == "conv":
        value = 1 / 4 if solver in FIXED_STEP else CONV_TOLERANCE
        return gradients.square(
            problem, solver, value, ts=fields.THREE_EQUAL, dtype=dtype, adjoints=adjoints
        )
    # Explicit Adams of order 11 is either unstable or accurate to rounding: no order to be seen.
    refine = solver in FIXED_STEP and dtype == "float64" and solver != "explicit_adams"
    ts = fields.THREE * trajectories.time_scale(solver)
    return gradients.square(problem, solver, ts=ts, dtype=dtype, adjoints=adjoints, refine=refine)


def _sweeps(quick: bool, small: list[Problem], conv: Problem) -> Iterator[sweeps.Sweep]:
    if quick:
        yield sweeps.of_gradients(small[-1], QUICK_TOLERANCES, ("direct", "adjoint"))
        return
    for problem in small:
        yield sweeps.of_gradients(problem)
    yield sweeps.of_gradients(conv, CONV_TOLERANCES)
    yield sweeps.of_gradients(conv, CONV_STEPS, ("direct",), "rk4")
    for problem in small:
        for solver in trajectories.common_solvers():
            if solver not in FIXED_STEP:
                yield sweeps.states(problem, solver)
    yield sweeps.states(conv, "dopri5", CONV_TOLERANCES)
    yield sweeps.states(conv, "rk4", CONV_STEPS)
