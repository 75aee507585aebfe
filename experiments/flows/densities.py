"""Two-dimensional densities, and a small table, to fit flows to."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

NAMES = ("moons", "circles", "checkerboard", "gaussians", "wine")


def sample(name: str, generator: np.random.Generator, count: int) -> Float[ndarray, "count 2"]:
    """Draw from `moons`, `circles`, `checkerboard` or `gaussians`.

    moons: two half circles of radius 1 (as scikit-learn's make_moons, centred) with noise of
    deviation 0.1, times 1.5. circles: radii 1 and 2.5, noise 0.15. checkerboard: uniform on the
    8 black fields of a 4 x 4 board on [-3, 3]^2. gaussians: 8 of deviation 0.2 on a circle of 2.5.
    """
    angle: ndarray
    if name == "moons":
        angle, upper = generator.uniform(0, np.pi, count), generator.integers(0, 2, count)
        sign = 2 * upper - 1
        x = np.stack([sign * np.cos(angle) + 0.5 * (1 - upper), sign * np.sin(angle)], axis=1)
        x = np.where(upper[:, None] == 1, x, x + np.array([0.5, 0.5]))
        return 1.5 * (x - np.array([0.5, 0.25]) + generator.normal(0, 0.1, (count, 2)))
    if name in ("circles", "gaussians"):
        if name == "circles":
            angle = generator.uniform(0, 2 * np.pi, count)
            radius = generator.choice([1, 2.5], count)
        else:
            angle, radius = np.pi / 4 * generator.integers(0, 8, count), np.full(count, 2.5)
        noise = generator.normal(0, 0.15 if name == "circles" else 0.2, (count, 2))
        return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1) + noise
    if name == "checkerboard":
        row = generator.integers(0, 4, count)
        column = 2 * generator.integers(0, 2, count) + row % 2
        return (np.stack([column, row], 1) + generator.uniform(0, 1, (count, 2))) * 1.5 - 3
    raise ValueError(f"unknown density {name!r}; choose one of {', '.join(NAMES)}")


def log_density(name: str, x: Float[ndarray, "points 2"]) -> Float[ndarray, " points"]:
    """The known log-density of `sample`, in nats; the integral along a curve by 2,000 points."""
    if name == "checkerboard":
        column, row = (np.floor((x + 3) / 1.5)).T
        black = (np.abs(x) < 3).all(1) & ((column + row) % 2 == 0)
        return np.where(black, -np.log(8 * 1.5**2), -np.inf)
    if name == "gaussians":
        angle = np.pi / 4 * np.arange(8)
        centres, deviation = 2.5 * np.stack([np.cos(angle), np.sin(angle)], 1), 0.2
    elif name == "circles":
        angle = np.linspace(0, 2 * np.pi, 1000, endpoint=False)
        unit = np.stack([np.cos(angle), np.sin(angle)], 1)
        centres, deviation = np.concatenate([unit, 2.5 * unit]), 0.15
    else:
        angle = (np.arange(1000) + 0.5) * np.pi / 1000
        arc = np.stack([np.cos(angle), np.sin(angle)], 1)
        centres = 1.5 * (np.concatenate([arc, np.array([1, 0.5]) - arc]) - np.array([0.5, 0.25]))
        deviation = 0.15
    few = np.array_split(x, max(1, len(x) // 500))  # so that the distances fit into memory
    squares = (cdist(some, centres, "sqeuclidean") / (2 * deviation**2) for some in few)
    logs = np.concatenate([logsumexp(-s, axis=1) for s in squares])
    return logs - np.log(2 * np.pi * deviation**2 * len(centres))


def with_chance(x: ndarray, generator: np.random.Generator) -> dict[str, ndarray]:
    """A batch of samples, and what the losses of flows need of chance."""
    return {
        "x": x,
        "noise": generator.normal(size=x.shape),
        "probe": generator.choice([-1.0, 1.0], x.shape),
        "t": generator.uniform(size=len(x)),
    }


def wine() -> Float[ndarray, "178 13"]:
    """Chemical analyses of 178 wines (UCI, CC BY 4.0; Forina et al. 1988), standardised.

    Read from scikit-learn, which installs them, without their classes.
    """
    from sklearn.datasets import load_wine

    table = load_wine().data
    return (table - table.mean(0)) / table.std(0)


def split(table: ndarray, seed: int) -> tuple[ndarray, ndarray, ndarray]:
    """Three fifths of the rows at random to learn from, a fifth to choose by, a fifth to test."""
    order = np.random.default_rng(seed).permutation(len(table))
    first, second = round(0.6 * len(table)), round(0.8 * len(table))
    return table[order[:first]], table[order[first:second]], table[order[second:]]


def gaussian(table: ndarray, x: ndarray) -> Float[ndarray, " points"]:
    """Log-density at `x` of the normal distribution with the table's mean and covariance."""
    return multivariate_normal.logpdf(x, table.mean(0), np.cov(table.T, bias=True))
