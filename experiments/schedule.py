"""Learning rates, step by step, the same for both frameworks."""

from __future__ import annotations

import math

# The paper's code divides the rate by 10 after epochs 60, 100 and 140 of 160.
STEP_FRACTIONS = (60 / 160, 100 / 160, 140 / 160)


def learning_rate(
    schedule: str, base: float, *, step: int, steps_per_epoch: int, epochs: int
) -> float:
    """Learning rate of step `step` (counted from 0 over the whole run).

    `constant` is `base`. `cosine` is base * (1 + cos(pi * step / total)) / 2 with total =
    epochs * steps_per_epoch (Loshchilov and Hutter 2017, without restarts). `steps` is base times
    0.1 for each of `STEP_FRACTIONS` of the total that has passed.
    """
    fraction = step / (epochs * steps_per_epoch)
    if schedule == "constant":
        return base
    if schedule == "cosine":
        return base * (1 + math.cos(math.pi * fraction)) / 2
    if schedule == "steps":
        return base * 0.1 ** sum(fraction >= boundary for boundary in STEP_FRACTIONS)
    raise ValueError(f"unknown schedule {schedule!r}; expected cosine, steps or constant")
