"""What dynamics.py learns from, and what it is then to predict."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from tyro.conf import arg

from experiments.harness import flags
from experiments.harness.errors import ConfigError
from experiments.series.series import Series, lynx_hare, plain, read_csv
from experiments.trajectories import shooting
from experiments.trajectories.systems import SYSTEMS, sample

REAL = ("lynx-hare", "csv")


@dataclass(frozen=True)
class Data:
    """Which system, and how it is observed."""

    system: Literal[
        "spiral",
        "nonlinear-spiral",
        "lotka-volterra",
        "pendulum",
        "repressilator",
        "lorenz",
        "lynx-hare",
        "csv",
    ] = "lotka-volterra"
    """A system that is simulated, or a real series."""
    csv: Annotated[Path | None, flags.named("FILE", "none")] = None
    """The series of --system csv."""
    trajectories: Annotated[int, arg(metavar="N")] = 32
    """Trajectories to learn from."""
    observations: Annotated[int | None, flags.named("N", "40; lorenz 120")] = None
    """Observations of each."""
    noise: Annotated[float, arg(metavar="SD")] = 0.05
    """Standard deviation of the noise, in standard deviations of each channel."""
    missing: Annotated[float, arg(metavar="FRACTION")] = 0.0
    """Fraction of the values that is not observed."""
    irregular: bool = True
    """Observe at random times, others for each trajectory, or at equal ones."""
    log: Annotated[bool | None, arg(help_behavior_hint="(default: for lynx-hare)")] = None
    """Learn the dynamics of the logarithms (populations, prices)."""
    train_fraction: Annotated[float, arg(metavar="FRACTION")] = 0.7
    """Of a real series, the part to learn from; the rest is forecast."""


@dataclass(frozen=True)
class Unseen:
    """Trajectories to predict: from the first state on, at common times.

    Attributes:
        title: of the table's column.
        times: `[times]`; truth: `[batch, times, dim]`, NaN where not observed.
        since: errors count after this time.
    """

    title: str
    times: np.ndarray
    truth: np.ndarray
    since: float = -np.inf


def resolve(data: Data) -> Data:
    """Settle the defaults that depend on other flags. Raises `ConfigError`."""
    flags.at_least("--trajectories", data.trajectories)
    flags.at_least("--observations", data.observations, 2)
    flags.positive("--train-fraction", data.train_fraction)
    flags.fraction("--train-fraction", data.train_fraction)
    flags.fraction("--missing", data.missing)
    flags.at_least_zero("--noise", data.noise)
    if (data.system == "csv") != (data.csv is not None):
        raise ConfigError("--system csv and --csv FILE go together; one of them is missing.")
    observations = data.observations
    if data.system in SYSTEMS:
        observations = observations or SYSTEMS[data.system].observations
    return dataclasses.replace(
        data,
        observations=observations,
        log=data.system == "lynx-hare" if data.log is None else data.log,
        csv=data.csv.expanduser().absolute() if data.csv else None,
    )


def load(data: Data, seed: int) -> tuple[list[Series], list[Unseen]]:
    """Series to learn from, and what is to be predicted. Raises `DataError`."""
    if data.system in REAL:
        whole = lynx_hare() if data.csv is None else read_csv(data.csv)
        if data.log:
            shooting.check_log(whole)
        first, rest = whole.split(data.train_fraction)
        times = np.concatenate([first.times[-1:], rest.times])
        truth = np.concatenate([first.filled()[-1:], rest.values])[None]
        return [first], [Unseen("forecast", times, truth, since=first.times[-1])]
    system = SYSTEMS[data.system]
    assert data.observations is not None
    series = sample(
        system,
        trajectories=data.trajectories,
        observations=data.observations,
        noise=data.noise,
        missing=data.missing,
        irregular=data.irregular,
        seed=seed,
    )
    if data.log:
        for one in series:
            shooting.check_log(one)
    generator = np.random.default_rng([seed, 1])  # apart from the training data
    # As far apart as the observations are on average: the baseline's own pace.
    times = np.linspace(0, 2 * system.t1, 2 * data.observations - 1)
    inside, outside = (
        system.solve(y0, np.tile(times, (len(y0), 1)))
        for y0 in (system.draw(generator, 16, outside=out) for out in (False, True))
    )
    half = data.observations
    return series, [
        Unseen("new initial states", times[:half], inside[:, :half]),
        Unseen("the same, later in time", times, inside, since=system.t1),
        Unseen("initial states outside", times[:half], outside[:, :half]),
    ]


def describe(data: Data, series: list[Series]) -> str:
    """The data in one line."""
    one = series[0]
    if data.system in REAL:
        return (
            f"{data.csv or 'Hudson Bay lynx and hare, 1900-1920'}: {len(one.times)} observations "
            f"to learn from, {plain(one.times[0])} to {plain(one.times[-1])}"
        )
    sampling = "irregularly" if data.irregular else "regularly"
    return (
        f"{SYSTEMS[data.system].title}: {data.trajectories} trajectories of {data.observations} "
        f"{sampling} sampled observations, noise {data.noise:g}, missing {data.missing:g}"
    )
