"""Learning rates, step by step, the same for both frameworks."""

from __future__ import annotations

import math
from collections.abc import Sequence

# The paper's code divides the rate by 10 after epochs 60, 100 and 140 of 160.
STEP_FRACTIONS = (60 / 160, 100 / 160, 140 / 160)

# Of `plateau`: epochs without a better loss after which the rate is halved, and its least.
PATIENCE, LEAST_RATE = 7, 1e-6


def learning_rate(
    schedule: str,
    base: float,
    *,
    step: int,
    steps_per_epoch: int,
    epochs: int,
    losses: Sequence[float] = (),
    warmup: float = 0.0,
) -> float:
    """Learning rate of step `step` (counted from 0 over the whole run).

    In the first `warmup` epochs it is what the schedule says times (step + 1) / (the steps of the
    warm-up), as far as that is below 1 (Goyal et al. 2017), so the schedule's own course is kept.
    `constant` is `base`. `cosine` is base * (1 + cos(pi * step / total)) / 2 with total =
    epochs * steps_per_epoch (Loshchilov and Hutter 2017, without restarts). `steps` is base times
    0.1 for each of `STEP_FRACTIONS` of the total that has passed. `plateau` is `plateau_rate` of
    `losses`, the mean training loss of every epoch that is over.
    """
    base = base * min(1.0, (step + 1) / (warmup * steps_per_epoch)) if warmup else base
    if schedule == "plateau":
        return plateau_rate(base, losses)
    fraction = step / (epochs * steps_per_epoch)
    if schedule == "constant":
        return base
    if schedule == "cosine":
        return base * (1 + math.cos(math.pi * fraction)) / 2
    if schedule == "steps":
        return base * 0.1 ** sum(fraction >= boundary for boundary in STEP_FRACTIONS)
    raise ValueError(f"unknown schedule {schedule!r}; expected cosine, steps, plateau or constant")


def plateau_rate(base: float, losses: Sequence[float]) -> float:
    """`base`, halved whenever `PATIENCE` epochs and one more have passed without a better loss.

    PyTorch's `ReduceLROnPlateau(factor=0.5, patience=7, min_lr=1e-6)`: a loss is better if it is
    below the best by a ten-thousandth of it.
    """
    rate, best, waited = base, math.inf, 0
    for loss in losses:
        waited += 1
        if loss < best * (1 - 1e-4):
            best, waited = loss, 0
        if waited > PATIENCE:
            lower, waited = max(rate / 2, LEAST_RATE), 0
            rate = lower if rate - lower > 1e-8 else rate
    return rate
