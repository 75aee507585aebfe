"""Whole trajectories, solver by solver: states at 20 times, NFE, steps, and step times."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from crosscheck import jax_side, torch_side
from crosscheck.check import Check, Tensors, compare_tensors
from crosscheck.fields import FIXED_STEP
from crosscheck.problem import EPS, Problem, Run, condition
from jax_node import solve as jax_solve
from torch_node import solve as torch_solve

ADAPTIVE_TOLERANCE = 1e-6
ORDER = {"dopri5": 5, "dopri8": 8, "bosh3": 3}  # of the step control


def common_solvers() -> tuple[str, ...]:
    """Solvers that both frameworks have, fixed-step ones first."""
    both = [name for name in torch_solve.SOLVERS if name in jax_solve.SOLVERS]
    return tuple(sorted(both, key=lambda name: name not in jax_solve.FIXED_STEP))


def control(solver: str) -> float:
    """Step size or tolerance, whichever the solver takes."""
    if solver in jax_solve.FIXED_STEP:
        return FIXED_STEP * time_scale(solver)
    return ADAPTIVE_TOLERANCE


def time_scale(solver: str) -> float:
    """By how much times and steps are shortened for a solver.

    Explicit Adams reaches order 11 after 11 steps, and is then stable for h |df/dy| < 0.0034 only:
    20 steps of 1/16 blow up, 20 of 1/128 are too few for that.
    """
    return 1 / 8 if solver == "explicit_adams" else 1.0


def section(name: str, solver: str) -> str:
    """The section of the report: the Adams methods, ours against torchdiffeq's, are told apart."""
    return f"Adams, {name}" if "adams" in solver else name


def label(problem: Problem, solver: str, value: float, dtype: str = "float64") -> str:
    """`mlp, rk4 step 0.0625, float64`."""
    kind = "step" if solver in jax_solve.FIXED_STEP else "rtol"
    return f"{problem.name}, {solver} {kind} {value:.3g}, {dtype}"


@dataclass(frozen=True)
class Pair:
    """The same solve on both sides."""

    problem: Problem
    solver: str
    control: float
    dtype: str
    jax: Run
    torch: Run
    ts: np.ndarray

    @property
    def label(self) -> str:
        """What was solved."""
        return label(self.problem, self.solver, self.control, self.dtype)

    def row(self) -> dict:
        """NFE and steps side by side, for the report."""
        sides = {"jax": self.jax, "torch": self.torch}
        counts = ("nfe_forward", "accepted", "rejected")
        return {
            "case": self.label,
            **{f"{n} {count}": getattr(run, count) for count in counts for n, run in sides.items()},
            "step times differ by": step_time_difference(self),
        }


def solve_both(
    problem: Problem,
    solver: str,
    dtype: str = "float64",
    *,
    value: float | None = None,
    ts: np.ndarray | None = None,
    step_times: bool = True,
) -> Pair:
    """Solve at the times `ts` with the step size or tolerance `value`.

    By default these are the problem's times and `control`, shortened by `time_scale`. With dopri8
    and bosh3 the last time alone is observed: torch_node lands on every time with those two, and
    then takes other steps than diffrax. `step_times` are those of adaptive solves in float64, for
    which JAX compiles another function.
    """
    value = control(solver) if value is None else value
    ts = problem.ts * time_scale(solver) if ts is None else ts
    if solver in torch_solve.POOR_INTERPOLANT:
        ts = ts[[0, -1]]
    runs = [
        side.run(problem, solver, "direct", value, ts=ts, dtype=dtype)
        for side in (jax_side, torch_side)
    ]
    if step_times and dtype == "float64" and solver not in jax_solve.FIXED_STEP:
        times = jax_side.step_times(problem, solver, value, ts)
        runs[0] = dataclasses.replace(runs[0], step_times=times)
    return Pair(problem, solver, value, dtype, jax=runs[0], torch=runs[1], ts=ts)


def checks(pair: Pair) -> list[Check]:
    """States within the bound; in float64 also as many steps and evaluations, at the same times."""
    bound, reason = state_bound(pair)
    sides = {"jax": {"ys": pair.jax.ys}, "torch": {"ys": pair.torch.ys}}
    group = section("trajectories", pair.solver)
    found = [compare_tensors(group, pair.label, sides, bound, reason)]
    if pair.dtype == "float64":
        counts = ("accepted", "rejected", "nfe_forward")
        steps = {
            name: {count: np.array(getattr(run, count)) for count in counts}
            for name, run in (("jax", pair.jax), ("torch", pair.torch))
        }
        case = f"{pair.label}, steps"
        found.append(compare_tensors(group, case, steps, 0.0, "the same control"))
        apart = step_time_difference(pair)
        if apart is not None:
            found.append(
                Check(
                    group,
                    f"{pair.label}, step times",
                    "jax",
                    "torch",
                    apart,
                    step_time_bound(pair),
                    "sum of h eps sqrt(terms) / (q estimated error): see step_time_bound",
                    quantity="largest difference of accepted step times",
                )
            )
    return found


def state_bound(pair: Pair) -> tuple[float, str]:
    """How far apart the states of the two sides may be, and why."""
    fixed = pair.solver in jax_solve.FIXED_STEP
    if pair.dtype == "float64":
        if fixed:
            return fixed_bound(pair.problem, pair.ts)
        if not pair.problem.smooth:
            # Rounding moves the steps that look for a kink.
            return pair.control, "rtol: rounding moves the steps near the kinks of ReLU"
        kappa = condition(pair.problem, lambda moved: _states(pair, moved))
        text = f"the same steps but for rounding, 1e-16 over 1e-8, x condition {kappa:.2g}"
        return 1e-8 * kappa, text

    kappa = condition(pair.problem, lambda moved: _states(pair, moved))
    steps = np.sqrt(max(1, pair.torch.accepted))
    rounding = EPS["float32"] * pair.problem.stable * kappa * steps * 10
    text = f"10 eps x condition {kappa:.2g} x sqrt(steps) x {pair.problem.stable:g}"
    if fixed:
        return rounding, text
    return rounding + 30 * pair.control, text + " + 30 rtol, since steps may differ"


def fixed_bound(problem: Problem, ts: np.ndarray) -> tuple[float, str]:
    """The same steps in float64: rounding, and that of times, of which one side adds up steps."""
    digits = EPS["float64"] * float(np.abs(ts).max() / np.abs(np.diff(ts)).min())
    return 1e-10 + 1e3 * digits, "the same discretisation in float64; 1e3 roundings of the times"


def _states(pair: Pair, problem: Problem) -> Tensors:
    return {"ys": torch_side.run(problem, pair.solver, "direct", pair.control, ts=pair.ts).ys}


def step_time_difference(pair: Pair) -> float | None:
    """Largest difference of accepted step times; infinite if their number differs."""
    if pair.torch.step_times is None or pair.jax.step_times is None:
        return None
    if len(pair.jax.step_times) != len(pair.torch.step_times):
        return float("inf")
    return float(np.max(np.abs(pair.jax.step_times - pair.torch.step_times)))


def step_time_bound(pair: Pair) -> float:
    """How far rounding may move the accepted step times of `pair`.

    A step is followed by one of h' = 0.9 h e^(-1/q), where e is its estimated error over the
    tolerance and q the order of the step control. Rounding of the field, eps sqrt(terms) (and what
    Winograd's products lose), moves e by that over rtol, and so h' by h' eps sqrt(terms) /
    (q rtol e): little where e is near 1, much after a first step so short that the next is many
    times longer. e is read off the quotient of the two. As e goes with h^q, h' does not depend on
    an error in h: what steps add is a sum.
    """
    times = pair.torch.step_times
    assert times is not None
    steps = np.abs(np.diff(times))[:-1]  # the last one is cut to end at t1
    q = ORDER[pair.solver]
    estimated = np.minimum((0.9 * steps[:-1] / steps[1:]) ** q, 1)
    rounding = EPS["float64"] * np.sqrt(pair.problem.operations) * pair.problem.stable
    moved = steps[1:] * rounding / (q * pair.control * estimated)
    return float(np.sum(moved)) + pair.torch.accepted * EPS["float64"] * float(abs(times).max())
