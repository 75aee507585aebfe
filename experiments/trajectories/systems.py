"""Dynamical systems, and noisy, irregularly sampled trajectories of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.integrate import solve_ivp

from experiments.series.series import Series


@dataclass(frozen=True)
class System:
    """An autonomous system dy/dt = field(y).

    Attributes:
        title: for tables and pictures, with the equation.
        names: of the channels.
        field: maps states `[..., dim]` to derivatives.
        centre, half: box from which initial states are drawn; those that test extrapolation come
            from the box 1.5 times as large, outside of this one.
        t1: end of the training trajectories, which start at 0.
        observations: of one trajectory by default.
        degree: of the polynomials that the least-squares baseline gets.
    """

    title: str
    names: tuple[str, ...]
    field: Callable[[ndarray], ndarray]
    centre: tuple[float, ...]
    half: tuple[float, ...]
    t1: float
    observations: int = 40
    degree: int = 3

    def draw(self, generator: np.random.Generator, count: int, *, outside: bool) -> ndarray:
        """Initial states `[count, dim]`, inside the box or around it."""
        scale, found = (1.5 if outside else 1.0), np.zeros((0, len(self.centre)))
        while len(found) < count:
            unit = generator.uniform(-scale, scale, (4 * count, len(self.centre)))
            keep = np.abs(unit).max(1) > 1 if outside else np.ones(len(unit), bool)
            found = np.concatenate([found, unit[keep] * self.half + np.array(self.centre)])
        return found[:count]

    def solve(
        self, y0: Float[ndarray, "batch dim"], ts: Float[ndarray, "batch times"]
    ) -> Float[ndarray, "batch times dim"]:
        """Trajectories by scipy's DOP853 at 1e-10, each from its first time on."""
        solved = [
            solve_ivp(
                lambda t, y: self.field(y), (t[0], t[-1]), y, "DOP853", t, rtol=1e-10, atol=1e-10
            ).y.T
            for y, t in zip(y0, ts, strict=True)
        ]
        return np.stack(solved)


def _linear(matrix: list[list[float]]) -> Callable[[ndarray], ndarray]:
    return lambda y: y @ np.array(matrix).T


def _random_network() -> Callable[[ndarray], ndarray]:
    """A stable linear spiral bent by a random network, so that no polynomial is exact."""
    generator = np.random.default_rng(3)
    inner, bias = generator.normal(0, 1.2, (2, 8)), generator.normal(0, 1, 8)
    outer = generator.normal(0, 0.5, (8, 2))
    spiral = _linear([[-0.25, 1.8], [-1.8, -0.25]])
    return lambda y: spiral(y) + np.tanh(y @ inner + bias) @ outer


def _stack(*parts: ndarray) -> ndarray:
    return np.stack(parts, axis=-1)


SYSTEMS = {
    "spiral": System(
        "linear spiral, y' = A y", ("x", "y"), _linear([[-0.1, 2.0], [-2.0, -0.1]]),
        (0, 0), (2, 2), 6.0,
    ),
    "nonlinear-spiral": System(
        "nonlinear spiral, y' = A y + random network", ("x", "y"), _random_network(),
        (0, 0), (2, 2), 6.0,
    ),
    "lotka-volterra": System(
        "Lotka-Volterra, x' = 1.5 x - x y, y' = x y - 3 y", ("prey", "predators"),
        lambda y: _stack(1.5 * y[..., 0] - y[..., 0] * y[..., 1],
                         y[..., 0] * y[..., 1] - 3 * y[..., 1]),
        (2.5, 1.5), (1.5, 0.75), 6.0,
    ),
    "pendulum": System(
        "damped pendulum, q'' = -4 sin q - 0.2 q'", ("angle", "speed"),
        lambda y: _stack(y[..., 1], -4 * np.sin(y[..., 0]) - 0.2 * y[..., 1]),
        (0, 0), (1.8, 1.8), 6.0,
    ),
    "repressilator": System(
        "repressilator, three genes in a ring: x_i' = 10 / (1 + x_j^4) - x_i", ("x", "y", "z"),
        lambda y: 10 / (1 + np.roll(y, 1, -1) ** 4) - y,
        (3, 3, 3), (2, 2, 2), 6.0,
    ),
    "lorenz": System(
        "Lorenz, sigma = 10, rho = 28, beta = 8/3", ("x", "y", "z"),
        lambda y: _stack(10 * (y[..., 1] - y[..., 0]),
                         y[..., 0] * (28 - y[..., 2]) - y[..., 1],
                         y[..., 0] * y[..., 1] - 8 / 3 * y[..., 2]),
        (0, 0, 25), (15, 20, 15), 3.0, observations=120, degree=2,
    ),
}  # fmt: skip


def sample(
    system: System,
    *,
    trajectories: int,
    observations: int,
    noise: float,
    missing: float,
    irregular: bool,
    seed: int,
) -> list[Series]:
    """Training data: `observations` of each trajectory in [0, t1].

    The first is at 0; the others are at uniformly random times, or equally spaced. `noise` is
    the standard deviation of what is added, in standard deviations of each channel. A fraction
    `missing` of the values, but for those at time 0, is NaN.
    """
    generator = np.random.default_rng(seed)
    y0 = system.draw(generator, trajectories, outside=False)
    ts = np.tile(np.linspace(0, system.t1, observations), (trajectories, 1))
    if irregular:
        later = generator.uniform(0, system.t1, (trajectories, observations - 1))
        ts[:, 1:] = np.sort(later, axis=1)
    clean = system.solve(y0, ts)
    values = clean + noise * clean.std((0, 1)) * generator.normal(size=clean.shape)
    lost = generator.uniform(size=values.shape) < missing
    lost[:, 0] = False
    values[lost] = np.nan
    return [Series(t, v, system.names) for t, v in zip(ts, values, strict=True)]
