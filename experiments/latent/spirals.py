"""Spirals of two directions, as the authors' example has them (torchdiffeq, latent_ode.py).

Counter-clockwise: radius 0.3 a, angle a, around (5, 0). Clockwise: radius 15 / (6 pi + 1 - a),
angle 6 pi + 1 - a, around (-5, 0). Both for a from 0 to 6 pi, on a grid of points equally far
apart, of which a window is 100.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from experiments.latent.windows import Observed, Questions, Windows, problem

END = 6 * np.pi
TIMES = 100  # in a window, before it and beyond it


def curve(a: Float[ndarray, "..."], clockwise: bool) -> Float[ndarray, "... 2"]:
    """Points of a spiral."""
    angle = END + 1 - a if clockwise else a
    radius = 15 / angle if clockwise else 0.3 * angle
    centre = -5 if clockwise else 5
    return np.stack([radius * np.cos(angle) + centre, radius * np.sin(angle)], axis=-1)


def sample(
    count: int,
    observations: int,
    noise: float,
    starts: tuple[int, int],
    grid: int,
    generator: np.random.Generator,
) -> Questions:
    """`count` windows of 100 times, half of either direction, starting between two grid points.

    `observations` of the 100 times are observed, others in each window, with noise; the truth
    inside, beyond and before has none.
    """
    step = END / (grid - 1)
    first = generator.uniform(starts[0] * step, starts[1] * step, count)
    ts = np.arange(-TIMES, 2 * TIMES) * step
    paths = np.stack([curve(a + ts, i % 2 == 0) for i, a in enumerate(first)])
    at = np.stack([np.sort(generator.permutation(TIMES)[:observations]) for _ in range(count)])
    clean = np.take_along_axis(paths[:, TIMES:], at[:, :, None], axis=1)
    values = clean + noise * generator.normal(size=clean.shape)
    observed = Observed(ts[TIMES:][at], values, np.ones_like(values))

    def part(index: slice) -> Observed:
        truth = paths[:, index]
        return Observed(np.tile(ts[index], (count, 1)), truth, np.ones_like(truth))

    inside, beyond = part(slice(TIMES, 2 * TIMES)), part(slice(2 * TIMES, None))
    return Questions(observed, inside, beyond, part(slice(TIMES - 1, None, -1)), noisy=False)


def make(count: int, tests: int, observations: int, noise: float, grid: int, seed: int) -> Windows:
    """Training windows from anywhere but the ends, and test windows that the curve goes on beyond.

    As in the example, no window starts in the first 100 points or ends beyond the last.
    """
    generators = [np.random.default_rng([seed, part]) for part in (1, 2)]
    options = observations, noise
    train = sample(count, *options, (TIMES, grid - TIMES), grid, generators[0]).observed
    test = sample(tests, *options, (TIMES, grid - 2 * TIMES), grid, generators[1])
    title = (
        f"{count} spirals, {observations} of {TIMES} times observed with noise {noise:g}, a grid "
        f"of {grid}; {tests} others to test"
    )
    stretch = (TIMES - 1) * END / (grid - 1)
    return problem(title, ("x", "y"), train, test, stretch, "time", 1.0)


def fit(times: ndarray, values: ndarray, ask: ndarray) -> Float[ndarray, "asked 2"]:
    """The least error possible: the curves known, direction and start by least squares."""
    low, high = -min(0.0, ask.min()), END - max(times.max(), ask.max())
    found = []
    for clockwise in (True, False):
        starts = np.linspace(low, high, 200)
        for _ in range(2):  # the best of a grid, then of a finer one around it
            errors = ((curve(starts[:, None] + times, clockwise) - values) ** 2).sum((1, 2))
            best, gap = starts[errors.argmin()], starts[1] - starts[0]
            starts = np.linspace(max(low, best - gap), min(high, best + gap), 100)
        found.append((errors.min(), best, clockwise))
    _, start, clockwise = min(found)
    return curve(start + ask, clockwise)
