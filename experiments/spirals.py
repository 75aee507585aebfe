"""Spirals of two directions, as the authors' example has them (torchdiffeq, latent_ode.py).

Counter-clockwise: radius 0.3 a, angle a, around (5, 0). Clockwise: radius 15 / (6 pi + 1 - a),
angle 6 pi + 1 - a, around (-5, 0). Both for a from 0 to 6 pi, on a grid of 500.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from experiments.windows import Observed, Problem, Set, scaled

END, GRID = 6 * np.pi, 500
STEP = END / (GRID - 1)
TIMES = 100  # in a window, and beyond it


def curve(a: Float[ndarray, "..."], clockwise: bool) -> Float[ndarray, "... 2"]:
    """Points of a spiral."""
    angle = END + 1 - a if clockwise else a
    radius = 15 / angle if clockwise else 0.3 * angle
    centre = -5 if clockwise else 5
    return np.stack([radius * np.cos(angle) + centre, radius * np.sin(angle)], axis=-1)


def sample(
    count: int, observations: int, noise: float, last: int, generator: np.random.Generator
) -> Set:
    """`count` windows of 100 times, half of either direction, with the 100 times that follow.

    The starts are uniform between grid points 100 and `last`; the curve ends at 500.
    `observations` of the 100 times are observed, others in each window, with noise; the truth
    inside and beyond has none.
    """
    starts = generator.uniform(TIMES * STEP, last * STEP, count)
    ts = np.arange(2 * TIMES) * STEP
    paths = np.stack([curve(a + ts, i % 2 == 0) for i, a in enumerate(starts)])
    times = np.tile(ts, (count, 1))
    whole = Observed(times, paths, np.ones_like(paths))
    chosen = [np.sort(generator.choice(TIMES, observations, replace=False)) for _ in range(count)]
    at = np.stack(chosen)
    values = np.take_along_axis(paths, at[:, :, None], axis=1)
    values = values + noise * generator.normal(size=values.shape)
    observed = Observed(ts[at], values, np.ones_like(values))
    cut = lambda part: Observed(times[:, part], paths[:, part], whole.mask[:, part])
    return Set(observed, cut(slice(None, TIMES)), cut(slice(TIMES, None)))


def problem(count: int, tests: int, observations: int, noise: float, seed: int) -> Problem:
    """Training and test spirals, scaled to deviation 1.

    Training windows lie anywhere on the curve; what is predicted of test windows ends with it.
    """
    generators = [np.random.default_rng([seed, part]) for part in (1, 2)]
    train = sample(count, observations, noise, GRID - TIMES, generators[0])
    test = sample(tests, observations, noise, GRID - 2 * TIMES, generators[1])
    title = (
        f"{count} spirals, {observations} of {TIMES} times observed with noise {noise:g}; "
        f"{tests} other spirals to test"
    )
    return scaled(title, ("x", "y"), train, test, (TIMES - 1) * STEP, "time", 1.0)
