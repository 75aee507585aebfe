"""Does the adjoint of a coarse step spoil training? The runs, and the rule that decides.

The work we follow up on trained with torchdiffeq's `implicit_adams` without a step size, which is
one step of a fourth-order Runge-Kutta method over [0, 1], by the adjoint, with SGD at 0.1 without
momentum and no ReLU after the last normalisation. These runs repeat that and change one thing at a
time. The rule was written before any of them was made.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.section3.cells import Preset, Variant

SGD = "--momentum 0"
ONE_STEP = "--solver rk4 --step-size 1"
SOLVERS = {
    "one-step": ("one rk4 step", ONE_STEP),
    "adams-0.25": ("implicit Adams, step 0.25", "--solver implicit_adams --step-size 0.25"),
    "dopri5": ("dopri5 1e-3", "--solver dopri5"),
}
CONDITIONS = {
    # Momentum m moves by rate / (1 - m) in the long run: averaging and size of step, one by one.
    "momentum": ("momentum 0.9", "--momentum 0.9"),
    "momentum-lr-0.01": ("momentum 0.9, rate 0.01", "--momentum 0.9 --lr 0.01"),
    "lr-1": ("rate 1, no momentum", f"{SGD} --lr 1"),
    "adam-1e-3": ("Adam 1e-3", "--optimizer adam --lr 1e-3"),
    "adam-0.1": ("Adam 0.1", "--optimizer adam --lr 0.1"),
    "relu": ("with the final ReLU", f"{SGD} --final-relu"),
}
GRADIENTS = ("adjoint", "direct")
# Rows of the follow-up's table that are none of the runs above: the flags they have of their own.
OTHERS = {
    "follow-up-resnet6": ("ResNet-6, BatchNorm", "--model resnet6 --norm batch"),
    "follow-up-resnet1": ("ResNet-1, BatchNorm", "--model resnet1 --norm batch"),
    "follow-up-euler": (
        "ODE-Net in torch (Euler, step 0.05, handwritten adjoint)",
        "--framework torch --solver euler --step-size 0.05 --adjoint handwritten",
    ),
}
SEEDS = (0, 1, 2)
# How many times the training loss of the one must be that of the other, and over how many of the
# last epochs the median is taken: without momentum the loss of single epochs jumps.
FACTOR, LAST = 3.0, 5
RISE = 1.5  # how many times its least a loss is at its end, if it rises
LONG, FULL = "coarse-adjoint-long", "coarse-adjoint-full"


def name_of(solver: str, gradient: str, condition: str = "") -> str:
    """The variant's name."""
    return "-".join(part for part in (solver, gradient, condition) if part)


def by_both(solver: str, condition: str = "") -> tuple[str, ...]:
    """The names of the variants by either of `GRADIENTS`."""
    return tuple(name_of(solver, gradient, condition) for gradient in GRADIENTS)


def switched(first: str, then: str) -> str:
    """The name of the variant that goes on by `then` from a run by `first`."""
    return f"switch-{first}-{then}"


VARIANTS = (
    *(
        Variant(
            name_of(solver, gradient),
            f"{title}, {gradient}",
            f"{flags} --adjoint {gradient} {SGD}",
        )
        for solver, (title, flags) in SOLVERS.items()
        for gradient in GRADIENTS
    ),
    *(
        Variant(
            name_of("one-step", gradient, condition),
            f"one rk4 step, {gradient}; {title}",
            f"{ONE_STEP} --adjoint {gradient} {flags}",
        )
        for condition, (title, flags) in CONDITIONS.items()
        for gradient in GRADIENTS
    ),
    *(
        Variant(
            switched(first, then),
            f"one rk4 step: by {first}, then by {then}",
            f"{ONE_STEP} --adjoint {then} {SGD} --lr-schedule constant --epochs 3 "
            "--check-gradient 25",
            after=name_of("one-step", first),
        )
        for first in GRADIENTS
        for then in GRADIENTS
    ),
    *(
        Variant(name, title, f"{flags} {SGD} --check-gradient None")
        for name, (title, flags) in OTHERS.items()
    ),
)
# The follow-up's table: row, the variant that repeats it, its test error (%).
FOLLOW_UP = (
    ("ResNet-6", "follow-up-resnet6", 0.45),
    ("ResNet-1", "follow-up-resnet1", 0.64),
    ("RK-Net", name_of("dopri5", "direct"), 0.73),
    ("ODE-Net, Euler by hand", "follow-up-euler", 0.78),
    ("ODE-Net, implicit Adams, SGD", name_of("one-step", "adjoint"), 1.33),
    ("ODE-Net, implicit Adams, Adam", name_of("one-step", "adjoint", "adam-0.1"), 0.71),
    ("ODE-Net, dopri5", name_of("dopri5", "adjoint"), 0.65),
)
_WHY = ("momentum", "momentum-lr-0.01", "lr-1")


def _with(conditions: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for condition in conditions for name in by_both("one-step", condition))


_THEIRS = (
    "--lr 0.1 --lr-schedule plateau --no-final-relu --check-gradient 200 --device cpu --devices 1"
)

PRESETS = {
    "coarse-adjoint": Preset(
        flags=f"--epochs 30 --batch-size 32 {_THEIRS}",
        # In an order in which what is done at any moment answers something.
        blocks=(
            (by_both("one-step"), SEEDS),
            (tuple(switched(first, then) for first in GRADIENTS for then in GRADIENTS), SEEDS),
            (by_both("dopri5"), SEEDS),
            (_with(_WHY), SEEDS),
            (_with(name for name in CONDITIONS if name not in _WHY), SEEDS),
            (by_both("adams-0.25"), SEEDS),
        ),
    ),
    "follow-up": Preset(
        flags=f"--epochs 30 --batch-size 32 {_THEIRS}",
        blocks=tuple((tuple(name for _, name, _ in FOLLOW_UP), (seed,)) for seed in SEEDS),
    ),
    # As many epochs as theirs; `long_run` has the rule.
    LONG: Preset(
        flags=f"--epochs 160 --batch-size 32 {_THEIRS}",
        blocks=tuple(((name,), SEEDS) for name in by_both("one-step")),
    ),
    FULL: Preset(
        flags=f"--epochs 12 --batch-size 128 {_THEIRS}",
        blocks=((by_both("one-step"), (0,)),),
    ),
}


def final_loss(run: dict[str, Any]) -> float:
    """A run's training loss at its end: the median of its last `LAST` epochs' means.

    Infinite for a run that failed: its loss or gradient stopped being finite.
    """
    if run["status"] == "failed":
        return math.inf
    return statistics.median(row["train_loss"] for row in run["rows"][-LAST:])


def least_loss(run: dict[str, Any]) -> float:
    """The least median of `LAST` epochs in a row of a run's training loss."""
    losses = [row["train_loss"] for row in run["rows"]]
    return min(statistics.median(losses[k : k + LAST]) for k in range(len(losses) - LAST + 1))


@dataclass(frozen=True)
class Clause:
    """A part of the rule: a quotient of training losses for every seed, and what it must be."""

    text: str
    quotients: dict[int, float]
    above: bool
    factor: float = FACTOR

    @property
    def holds(self) -> bool | None:
        """Whether it holds for every one of `SEEDS`; None while runs are missing."""
        found = [(q > self.factor) == self.above for q in self.quotients.values()]
        if not all(found):
            return False
        return True if self.quotients.keys() == set(SEEDS) else None

    @property
    def state(self) -> str:
        """The same in a word."""
        return {True: "holds", False: "fails", None: "open"}[self.holds]

    @property
    def bound(self) -> str:
        """What every quotient must be."""
        return f"{'above' if self.above else 'at most'} {self.factor:g}"


def rule(record: dict[str, Any]) -> list[Clause]:
    """The rule, clause by clause, of a study's record (see `collect.py`).

    The adjoint of a coarse step is the cause if its final training loss exceeds `FACTOR` times that
    by direct in every seed, that by dopri5's adjoint does not, and the switch reverses both ways:
    by direct from a stalled run the loss falls, by the adjoint from a converged run it rises, each
    against going on as before.
    """
    quotient = functools.partial(quotients, record)
    kept = {first: switched(first, first) for first in GRADIENTS}
    return [
        Clause("one rk4 step: adjoint / direct", quotient(*by_both("one-step")), True),
        Clause("dopri5 1e-3: adjoint / direct", quotient(*by_both("dopri5")), False),
        Clause(
            "from the adjoint's weights: on by adjoint / on by direct",
            quotient(kept["adjoint"], switched("adjoint", "direct")),
            True,
        ),
        Clause(
            "from direct's weights: on by adjoint / on by direct",
            quotient(switched("direct", "adjoint"), kept["direct"]),
            True,
        ),
    ]


def why(record: dict[str, Any]) -> list[Clause]:
    """Why momentum hides it, written before runs at other rates: final losses, adjoint / direct.

    If momentum averages a wrong direction out, it does not stall at a rate a tenth as large, where
    it moves as fast as the SGD that stalls. If its long steps flatten the field, it stalls there,
    and SGD at a rate of 1, which moves as fast as momentum at 0.1, does not.
    """
    return [
        Clause(CONDITIONS[name][0], quotients(record, *by_both("one-step", name)), above)
        for name, above in zip(_WHY, (False, True, False), strict=True)
    ]


def long_run(record: dict[str, Any]) -> list[Clause]:
    """What 160 epochs are to show, written before they were run, of `coarse-adjoint-long`.

    Their training loss ended at 1.6 times its least. Ours *rises* if it ends above `RISE` times the
    least median of `LAST` epochs in a row, in every seed; it *stays behind* if it ends above
    `FACTOR` times that of `direct`, in every seed.
    """
    adjoint, direct = by_both("one-step")
    rises = {
        run["seed"]: final_loss(run) / least_loss(run) if run["status"] == "done" else math.inf
        for run in record["runs"]
        if run["variant"] == adjoint and run["status"] in ("done", "failed")
    }
    return [
        Clause("by adjoint: final loss / least", rises, True, RISE),
        Clause("at the end: adjoint / direct", quotients(record, adjoint, direct), True),
    ]


def clauses(record: dict[str, Any]) -> list[Clause]:
    """What was asked of the runs of a record's preset; of those on a full set nothing was."""
    return {LONG: long_run, FULL: lambda record: []}.get(record["preset"], rule)(record)


def verdict(clauses: Sequence[Clause]) -> str:
    """What the rule says, in a sentence."""
    held = [clause.holds for clause in clauses]
    if False in held:
        return "The rule fails: the adjoint of a coarse step is not shown to be the cause."
    if None in held:
        return "Not decided yet: runs are missing."
    return "The adjoint of a coarse step is the cause: every clause holds in every seed."


def quotients(record: dict[str, Any], above: str, below: str) -> dict[int, float]:
    """Final training losses of the one variant over those of the other, by seed, where both ran."""
    runs = {(run["variant"], run["seed"]): run for run in record["runs"]}
    found = {}
    for seed in SEEDS:
        a, b = (runs.get((name, seed)) for name in (above, below))
        if a and b and {a["status"], b["status"]} <= {"done", "failed"}:
            found[seed] = final_loss(a) / final_loss(b)
    return found
