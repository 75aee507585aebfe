"""One run: a method trained within its budget of CPU seconds, or a trivial one scored."""

from __future__ import annotations

import math
import time
from typing import Any

from experiments.paying.learners import NonFiniteLossError
from experiments.paying.protocol import CHECKS, WARM_UP, Data, Learnt


def fit(
    method: Learnt, data: Data, *, rate: float, size: int, seed: int, seconds: float, test: bool
) -> dict[str, Any]:
    """Train for `seconds` of this process's CPU time; with `test`, test the best checked weights.

    Returns the scores, what was spent, and `stopped`, why training ended early, if it did: a loss
    that is not finite. Without any finite validation score all scores are infinite.
    """
    learner = method.learner(data, size, seed)
    steps, spent, checked = 0, 0.0, 0
    best, kept, stopped = math.inf, learner.state, None
    while checked < len(CHECKS):
        batch = data.batch(steps)
        began = time.process_time()
        try:
            learner.train_step(batch, rate * share(spent / seconds))
        except NonFiniteLossError as error:
            stopped = str(error)
            break
        if steps:  # the first step compiles
            spent += time.process_time() - began
        steps += 1
        if spent >= seconds * CHECKS[checked]:
            checked += 1
            score = method.score(learner, data, "validation")
            if score < best:  # not so for NaN
                best, kept = score, learner.state
    learner.state = kept
    found: dict[str, Any] = {"validation": best}
    if test:
        found["test"] = method.score(learner, data, "test") if best < math.inf else math.inf
    found |= {"parameters": learner.parameter_count, "steps": steps, "cpu": round(spent, 2)}
    return found | ({"stopped": stopped} if stopped else {})


def share(spent: float) -> float:
    """Of the learning rate, when this share of the budget is spent."""
    return min(spent / WARM_UP, 1.0) * 0.5 * (1 + math.cos(math.pi * min(spent, 1.0)))
