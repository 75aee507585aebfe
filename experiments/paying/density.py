"""Densities: continuous flows against couplings, splines, a kernel estimate and a normal one.

Of a known density every step sees fresh samples, and scores are nats above the truth on the same
samples: an estimate of the Kullback-Leibler divergence. Of the table of wines each seed is another
split; validation stops what begins to learn its 107 rows by heart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flax import nnx
from numpy import ndarray
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from experiments.flows import densities
from experiments.paying.learners import learner
from experiments.paying.protocol import Data, Learnt, Part, Task, Trivial
from experiments.paying.splines import SplineCoupling
from jax_node import cnf

BATCH, KERNELS = 256, 5000
WIDTHS = np.geomspace(0.03, 1.5, 12)  # of kernels
STEPS = 8  # of rk4 from 0 to 1
EXACT = 3  # dimensions up to which the trace is exact in training; beyond, one random probe
AFFINE, SPLINES = 8, 4  # layers
VALIDATION, TEST = 1000, 4000


def known(name: str) -> Callable[[int], Data]:
    """Samples of a known density by seed."""

    def data(seed: int) -> Data:
        draw = lambda part, n: densities.sample(name, np.random.default_rng([seed, part]), n)
        batch = batches(seed, lambda generator: densities.sample(name, generator, BATCH))
        return Data(draw(0, KERNELS), draw(1, VALIDATION), draw(2, TEST), batch)

    return data


def wine(seed: int) -> Data:
    """A split of the table of wines."""
    rows, validation, test = densities.split(densities.wine(), seed)
    some = lambda generator: rows[generator.integers(0, len(rows), BATCH)]
    return Data(rows, validation, test, batches(seed, some))


def batches(
    seed: int, draw: Callable[[np.random.Generator], ndarray]
) -> Callable[[int], dict[str, ndarray]]:
    """A batch for every step."""

    def batch(step: int) -> dict[str, ndarray]:
        generator = np.random.default_rng([seed, 3, step])
        return densities.with_chance(draw(generator), generator)

    return batch


def likelihood(model: cnf.Velocity, batch: Any) -> Any:
    """Mean negative log-likelihood of the continuous flow."""
    probe = batch["probe"] if batch["x"].shape[1] > EXACT else None
    logp, _ = cnf.log_density(model, batch["x"], probe, solver="rk4", step_size=1 / STEPS)
    return -logp.mean()


def discrete(model: Any, batch: Any) -> Any:
    """Mean negative log-likelihood of a discrete flow."""
    return -cnf.discrete_log_density(model, batch["x"]).mean()


def kernel(data: Data, part: Part) -> ndarray:
    """Log-density of normal kernels on the training samples, their width by validation."""
    dim = data.train.shape[1]

    def by(squares: ndarray, width: float) -> ndarray:
        volume = np.log(len(data.train)) + 0.5 * dim * np.log(2 * np.pi * width**2)
        return logsumexp(-squares / (2 * width**2), axis=1) - volume

    known = cdist(data.validation, data.train, "sqeuclidean")
    width = max(WIDTHS, key=lambda width: by(known, width).mean())
    return by(cdist(getattr(data, part), data.train, "sqeuclidean"), width)


def task(name: str, margin: float, seconds: float, seeds: tuple[int, ...]) -> Task:
    """The comparison on one density."""
    truth = (lambda x: densities.log_density(name, x)) if name != "wine" else lambda x: 0.0

    def above(logp: Any, data: Data, part: Part) -> float:
        return float(np.mean(truth(getattr(data, part)) - logp))

    def scored(density: Callable[[Any, Any], Any]) -> Callable[[Any, Data, Part], float]:
        return lambda trained, data, part: above(
            trained.apply(density, x=getattr(data, part)), data, part
        )

    def continuous(title: str, loss: Any) -> Learnt:
        def build(data: Data, size: int, seed: int) -> Any:
            return learner(cnf.Velocity(data.train.shape[1], size, rngs=nnx.Rngs(seed)), loss)

        score = scored(lambda model, x: cnf.log_density(model, x)[0])
        return Learnt(f"continuous flow, {title}", "Neural ODE", build, score)

    def layered(title: str, kind: Any, layers: int) -> Learnt:
        def build(data: Data, size: int, seed: int) -> Any:
            model = kind(data.train.shape[1], size, layers, rngs=nnx.Rngs(seed))
            return learner(model, discrete)

        return Learnt(f"{layers} {title}", "baseline", build, scored(cnf.discrete_log_density))

    return Task(
        name,
        f"{name}, density" + (" of 13 measurements, 107 rows" if name == "wine" else ""),
        "negative log-likelihood on test rows, nats" if name == "wine" else "nats above the truth",
        margin,
        False,
        seconds,
        seeds,
        wine if name == "wine" else known(name),
        {
            "likelihood": continuous("likelihood", likelihood),
            "matching": continuous("flow matching", cnf.matching_loss),
            "affine": layered("affine couplings", cnf.Coupling, AFFINE),
            "splines": layered("spline couplings", SplineCoupling, SPLINES),
            "kernels": Trivial(
                "kernel estimate",
                lambda data, part: above(kernel(data, part), data, part),
                lambda data: data.train.size + 1,
            ),
            "normal": Trivial(
                "normal distribution",
                lambda data, part: above(
                    densities.gaussian(data.train, getattr(data, part)), data, part
                ),
                lambda data: (d := data.train.shape[1]) * (d + 3) // 2,
            ),
        },
        "nats",
    )


TASKS = (
    task("moons", margin=0.02, seconds=20.0, seeds=(0, 1, 2)),
    task("wine", margin=0.2, seconds=6.0, seeds=(0, 1, 2, 3, 4)),
    task("circles", margin=0.02, seconds=20.0, seeds=(0, 1, 2)),
    task("gaussians", margin=0.02, seconds=20.0, seeds=(0, 1, 2)),
    task("checkerboard", margin=0.02, seconds=20.0, seeds=(0, 1, 2)),
)
