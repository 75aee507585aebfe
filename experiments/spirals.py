"""Spirals of two directions, as the authors' example has them (torchdiffeq, latent_ode.py).

Counter-clockwise: radius 0.3 a, angle a, around (5, 0). Clockwise: radius 15 / (6 pi + 1 - a),
angle 6 pi + 1 - a, around (-5, 0). Both for a from 0 to 6 pi, on a grid of 500.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from experiments.windows import Observed, Problem, Test, problem

END, GRID = 6 * np.pi, 500
STEP = END / (GRID - 1)
TIMES = 100  # in a window, before it and beyond it


def curve(a: Float[ndarray, "..."], clockwise: bool) -> Float[ndarray, "... 2"]:
    """Points of a spiral."""
    angle = END + 1 - a if clockwise else a
    radius = 15 / angle if clockwise else 0.3 * angle
    centre = -5 if clockwise else 5
    return np.stack([radius * np.cos(angle) + centre, radius * np.sin(angle)], axis=-1)


def sample(
    count: int, observations: int, noise: float, last: int, generator: np.random.Generator
) -> Test:
    """`count` windows of 100 times, half of either direction.

    The starts are uniform between grid points 100 and `last`. `observations` of the 100 times are
    observed, others in each window, with noise; the truth inside, beyond and before has none.
    """
    starts = generator.uniform(TIMES * STEP, last * STEP, count)
    ts = np.arange(-TIMES, 2 * TIMES) * STEP
    paths = np.stack([curve(a + ts, i % 2 == 0) for i, a in enumerate(starts)])
    at = np.stack([np.sort(generator.permutation(TIMES)[:observations]) for _ in range(count)])
    clean = np.take_along_axis(paths[:, TIMES:], at[:, :, None], axis=1)
    values = clean + noise * generator.normal(size=clean.shape)
    observed = Observed(ts[TIMES:][at], values, np.ones_like(values))

    def part(index: slice) -> Observed:
        truth = paths[:, index]
        return Observed(np.tile(ts[index], (count, 1)), truth, np.ones_like(truth))

    inside, beyond = part(slice(TIMES, 2 * TIMES)), part(slice(2 * TIMES, None))
    return Test(observed, inside, beyond, part(slice(TIMES - 1, None, -1)), noisy=False)


def make(count: int, tests: int, observations: int, noise: float, seed: int) -> Problem:
    """Training windows from anywhere on the curve, and test windows that it goes on beyond."""
    generators = [np.random.default_rng([seed, part]) for part in (1, 2)]
    train = sample(count, observations, noise, GRID - TIMES, generators[0]).observed
    test = sample(tests, observations, noise, GRID - 2 * TIMES, generators[1])
    title = (
        f"{count} spirals, {observations} of {TIMES} times observed with noise {noise:g}; "
        f"{tests} others to test"
    )
    return problem(title, ("x", "y"), train, test, (TIMES - 1) * STEP, "time", 1.0)
