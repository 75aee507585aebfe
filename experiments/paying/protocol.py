"""How methods are compared: fixed before the runs, so that no choice follows a result.

1. Every method that is trained has the same budget: CPU seconds of the process, all threads
   together, in training steps. Not counted: the first step, which compiles; validation; test.
2. Learning rate and size of every method are chosen alike: each of `RATES` with each of `SIZES`,
   for `SEARCH_SHARE` of the budget, on data and a start of their own (`SEARCH_SEED`), by the least
   validation score. The rate rises over the first `WARM_UP` of the budget and falls by a cosine.
3. Then one run a seed with the whole budget. A seed decides the data and the start. The weights of
   the least of the validation scores at `CHECKS` are tested, once.
4. Beside them stands what needs no training: a mean, a last value, a normal distribution.
5. The Neural ODE of a task and its best rival (baseline or trivial) are those of the least mean
   validation score. `judge` compares their test scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from experiments.section3.intervals import Interval, interval

RATES = (1e-3, 3e-3, 1e-2)
SIZES = (32, 64)
SEARCH_SHARE, SEARCH_SEED = 1 / 3, 100
WARM_UP = 0.05
# Shares of the budget at which is validated: early too, for what soon learns its data by heart.
CHECKS = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)

Kind = Literal["Neural ODE", "baseline", "trivial"]
Part = Literal["validation", "test"]


@dataclass(frozen=True)
class Data:
    """What one seed gives: `train`, `validation` and `test` as the task's methods take them.

    `batch` draws what a training step with this number sees; all randomness of a loss is in it.
    """

    train: Any
    validation: Any
    test: Any
    batch: Callable[[int], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Learnt:
    """A method that is trained: how it is built from data, size and seed; its score, to be small.

    `learner` gives what has `train_step(batch, rate)`, `state` and `parameter_count`.
    """

    title: str
    kind: Kind
    learner: Callable[[Data, int, int], Any]
    score: Callable[[Any, Data, Part], float]


@dataclass(frozen=True)
class Trivial:
    """A method without a search: its score on a part of the data, and how many numbers it fits."""

    title: str
    score: Callable[[Data, Part], float]
    parameters: Callable[[Data], int]
    kind: Kind = "trivial"


@dataclass(frozen=True)
class Task:
    """What is predicted, by which methods, and what difference counts.

    Attributes:
        measure: of the score, with its unit; the smaller, the better.
        margin: how much better than its best rival a Neural ODE must be to pay: in units of the
            score, or, if `relative`, as a share of the rival's score.
        unit: of the score, where the gain is in it.
        seconds: the budget, unless another is asked for.
    """

    name: str
    title: str
    measure: str
    margin: float
    relative: bool
    seconds: float
    seeds: tuple[int, ...]
    data: Callable[[int], Data]
    methods: Mapping[str, Learnt | Trivial]
    unit: str = ""


@dataclass(frozen=True)
class Verdict:
    """`words`, the two methods compared, and the gain of the Neural ODE with its 95% interval."""

    words: Literal["pays", "does not pay", "not decided"]
    ode: str
    rival: str
    gain: Interval


def gains(task: Task, ode: Sequence[float], rival: Sequence[float]) -> list[float]:
    """By how much the Neural ODE's score is below its rival's, seed by seed.

    If the task is `relative`, as the logarithm of their quotient.
    """
    pairs = zip(ode, rival, strict=True)
    return [math.log(b / a) if task.relative else b - a for a, b in pairs]


def judge(task: Task, scores: Mapping[str, Mapping[Part, Sequence[float]]]) -> Verdict | None:
    """The rule. A Neural ODE *pays* if the whole interval of its gain is above the margin, it
    *does not pay* if the whole interval is below, and else it is *not decided*.

    Differences are taken within a seed, since methods share a seed's data; the interval is
    Student's t over the seeds, each task at 95%. `scores` are by method and part, a number a seed;
    None if a side is missing or has fewer than two seeds.
    """
    odes = [name for name in scores if task.methods[name].kind == "Neural ODE"]
    rivals = [name for name in scores if name not in odes]
    if not odes or not rivals:
        return None
    best = lambda names: min(names, key=lambda name: np.mean(scores[name]["validation"]))
    ode, rival = best(odes), best(rivals)
    gain = interval(gains(task, scores[ode]["test"], scores[rival]["test"]))
    if gain.n < 2:
        return None
    margin = -math.log1p(-task.margin) if task.relative else task.margin
    if gain.low > margin:
        return Verdict("pays", ode, rival, gain)
    if gain.high < margin:
        return Verdict("does not pay", ode, rival, gain)
    return Verdict("not decided", ode, rival, gain)
