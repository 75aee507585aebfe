"""By the clock: what a solve costs when one evaluation of the field costs nothing, or up to 10 ms.

The field of a problem is made dearer by a loop of sines that changes nothing, whose length is an
argument: a solver is compiled once for all costs. Times are the least of several, and the solvers
take turns, so that a busy moment strikes all of them.
"""

from __future__ import annotations

import math
import time
import timeit
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jax_node.solve
from experiments.harness.markdown import table
from experiments.solving import precision
from experiments.solving.problems import InitialValue

OURS = "adams"
SOLVERS = (OURS, "tsit5", "dopri5", "dopri8")
MICROSECONDS = (0, 10, 100, 1000, 10_000)
PROBLEMS = ("Lotka-Volterra", "Pleiades", "C4")  # of 2, 28 and 51 components
TURNS = 15  # of the solvers where a solve is short
_LONG = 2.0  # seconds of solving after which two turns are enough


def cell(
    problem: InitialValue,
    exact: np.ndarray,
    tolerances: Sequence[float],
    microseconds: Sequence[int],
    turns: int,
) -> dict[str, Any]:
    """Errors, NFE, seconds to compile, and seconds by tolerance and cost, solver by solver."""
    loops = [round(1e-6 * cost / seconds_per_loop()) for cost in microseconds]
    solvers: dict[str, Any] = {}
    found: dict[str, dict[str, Any]] = {}
    for name in SOLVERS:
        started = time.perf_counter()
        solvers[name] = _lowered(problem, name).compile()
        found[name] = {"compile": time.perf_counter() - started}
        ends = [solvers[name](tolerance, 0) for tolerance in tolerances]
        found[name]["errors"] = [precision.error(y, exact) for y, _ in ends]
        found[name]["nfe"] = [int(nfe) for _, nfe in ends]
        found[name]["seconds"] = [[math.inf] * len(tolerances) for _ in loops]
    for i, length in enumerate(loops):
        for j, tolerance in enumerate(tolerances):
            spent, turn = 0.0, 0
            while turn < turns and (turn < 2 or spent < _LONG):
                for name, solve in solvers.items():
                    started = time.perf_counter()
                    jax.block_until_ready(solve(tolerance, length))
                    seconds, best = time.perf_counter() - started, found[name]["seconds"][i]
                    best[j] = min(best[j], seconds)
                    spent += seconds
                turn += 1
    return {
        "problem": problem.name,
        "size": len(problem.y0),
        "tolerances": list(tolerances),
        "microseconds": list(microseconds),
        "solvers": found,
    }


def _lowered(problem: InitialValue, name: str) -> jax.stages.Lowered:
    """A solve at a tolerance, by a field made dearer by that many sines."""
    # No sum with a loop's result can be optimised away; this one changes no digit.
    field = lambda t, y, loops: problem.field(jnp, t, y) + 1e-300 * _idle(loops, t)

    @jax.jit
    def solve(tolerance, loops):
        solution = jax_node.solve.solve(
            field, jnp.asarray(problem.y0), jnp.array([0.0, problem.t1]), loops, solver=name,
            rtol=tolerance, atol=tolerance, max_steps=precision.MAX_STEPS,
        )  # fmt: skip
        return solution.ys[-1], solution.nfe

    return solve.lower(1e-3, 0)


def _idle(loops: Any, start: Any) -> Any:
    return jax.lax.fori_loop(0, loops, lambda _, x: jnp.sin(x + 1), start)


def seconds_per_loop() -> float:
    """Of the idle loop, the least of five."""
    loops = 100_000
    run = jax.jit(_idle).lower(loops, 0.5).compile()
    return min(timeit.repeat(lambda: run(loops, 0.5).block_until_ready(), number=1)) / loops


def report(cells: Sequence[dict[str, Any]]) -> str:
    """Tables of ratios at equal error, and from which cost on ours is faster."""
    others = [name for name in SOLVERS if name != OURS]
    rows: list[list[Any]] = []
    lines = []
    for one in cells:
        name = f"{one['problem']} ({one['size']})"
        rows.append([name, "evaluations", *(_ratio(one, other, "nfe") for other in others)])
        pays: dict[str, str] = {}
        for i, cost in enumerate(one["microseconds"]):
            ratios = [_ratio(one, other, "seconds", i) for other in others]
            rows.append([name, f"time, {cost} us", *ratios])
            for other, ratio in zip(others, ratios, strict=True):
                if ratio < 1:
                    pays.setdefault(other, f"{cost} us")
        compiled = {key: value["compile"] for key, value in one["solvers"].items()}
        rows.append([name, "compiling", *(compiled[OURS] / compiled[other] for other in others)])
        found = ", ".join(f"{other}: {pays.get(other, 'not up to here')}" for other in others)
        lines.append(f"- {name}: {found}.\n")
    return "\n".join(
        [
            "`adams` over another solver at equal error, the median over tolerances: evaluations, "
            "then time by the cost of one evaluation, then time to compile.\n",
            table(["problem (size)", "", *others], rows),
            "The least cost tried at which `adams` is faster:\n",
            *lines,
        ]
    )


def _ratio(one: dict[str, Any], other: str, key: str, row: int | None = None) -> float:
    """Median over tolerances of our work over theirs at equal error."""

    def work(name: str) -> dict[str, Any]:
        values = one["solvers"][name]
        spent = values[key] if row is None else values[key][row]
        return {"tolerances": one["tolerances"], "errors": values["errors"], "nfe": spent}

    ratios = precision.ratios(work(OURS), work(other))
    return float(np.median(ratios)) if ratios else math.nan
