"""An irregular series of your own and a latent ODE: fit, validate, forecast, save, load."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from experiments.harness import frameworks
from experiments.harness.errors import DataError, RunError
from experiments.harness.files import save_arrays, write_atomic
from experiments.harness.schedule import learning_rate
from experiments.latent import windows
from experiments.latent.predictions import BAND, Trained, coverage, rmse
from experiments.latent.windows import FURTHEST, UNITS, Observed, Windows
from experiments.series.series import Series, plain, read_csv

ENCODER, BATCH, SAMPLES = "ODE-RNN", 100, 200


@dataclass(frozen=True)
class Options:
    """What `fit` was asked for; times in the series' units."""

    stretch: float
    ahead: float
    observations: int
    train_fraction: float
    steps: int
    rate: float
    latent: int
    width: int
    seed: int
    framework: str


class Forecast(NamedTuple):
    """Mean and the band that should hold 90% of observations, `[times, channels]`."""

    mean: Float[ndarray, "times channels"]
    low: Float[ndarray, "times channels"]
    high: Float[ndarray, "times channels"]


@dataclass(frozen=True)
class Model:
    """A fitted latent ODE.

    Attributes:
        names: of the channels.
        validation: errors on the later part of the series, which was not learnt from: root mean
            squared error `ahead` beyond a window of the latent ODE, of an RNN trained beside it and
            of the window's mean, and `in the band`, the share of observations in the 90% band. If
            the first is not the least, do not use the model.
    """

    names: tuple[str, ...]
    options: Options
    validation: dict[str, float]
    trained: Trained
    last: Series

    def forecast(self, times: Sequence[float] | Float[ndarray, " times"]) -> Forecast:
        """The series at increasing times after its last observation.

        Raises DataError for times that do not increase, begin before that, or are further off than
        float32 resolves. Beyond the `ahead` of the fit nothing was validated.
        """
        times = np.asarray(times, float)
        end, options = self.last.times[-1], self.options
        increasing = times.ndim == 1 and len(times) > 0 and bool((np.diff(times) > 0).all())
        if not (increasing and times[0] > end and np.isfinite(times).all()):
            raise DataError(
                f"`times` must increase, the first after {plain(end)}, where the series ends."
            )
        if times[-1] - end > FURTHEST * options.stretch:
            raise DataError(
                f"{plain(times[-1])} is more than {FURTHEST:,} times `stretch` after "
                f"{plain(end)}, where the series ends; forecast less far."
            )
        data, factor = self.trained.problem, UNITS / options.stretch
        start, level = end - options.stretch, np.nanmean(self.last.values, axis=0)
        scaled = (self.last.values - level - data.mean) / data.deviation
        observed = windows.pack([((self.last.times - start) * factor, scaled)])
        asks = {"later": ((times - start) * factor)[None]}
        found = self.trained.sample(observed, asks, SAMPLES)[ENCODER]["later"][:, 0]
        noise = np.random.default_rng(options.seed).normal(size=found.shape)
        noisy = found + self.trained.noise()[ENCODER] * noise
        ends = np.quantile(noisy, [(1 - BAND) / 2, (1 + BAND) / 2], axis=0)
        own = lambda values: values * data.deviation + data.mean + level
        return Forecast(own(found.mean(0)), own(ends[0]), own(ends[1]))

    def save(self, folder: Path | str) -> None:
        """Write the model into a new folder."""
        path = Path(folder)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise RunError(f"{path} is there already; choose a new folder.") from None
        self.trained.learner.save(path / "weights")
        data = self.trained.problem
        save_arrays(
            path / "series.npz", times=self.last.times, values=self.last.values, mean=data.mean,
            deviation=data.deviation,
        )  # fmt: skip
        about = {
            "names": self.names,
            "options": asdict(self.options),
            "validation": self.validation,
        }
        write_atomic(path / "model.json", json.dumps(about, indent=2) + "\n")


def fit(
    series: Series | Path | str,
    *,
    stretch: float,
    ahead: float,
    observations: int = 40,
    train_fraction: float = 0.7,
    steps: int = 5000,
    rate: float = 1e-2,
    latent: int = 6,
    width: int = 25,
    seed: int = 0,
    framework: str = "jax",
) -> Model:
    """Fit a latent ODE to windows of a series and validate it on later ones.

        from experiments.latent.forecast import fit, load
        model = fit("series.csv", stretch=1.5, ahead=1.0)
        print(model.validation)
        mean, low, high = model.forecast([2002.1, 2002.5])
        model.save("model"); model = load("model")

    Args:
        series: a `Series`, or a CSV file: a header, the time in the first column, empty where
            nothing was observed.
        stretch: length of the window that a forecast is made from, in the series' units of time.
        ahead: how far beyond it is validated.
        observations: of a window, at random; all if there are fewer.
        train_fraction: part of the series, by time, to learn from.
        steps: of Adam, with a rate that falls from `rate` to 0 by a cosine.
        latent, width: dimension of the latent state; units of all hidden layers.
        seed: of the windows, the start, and all that is drawn.
        framework: `jax` or `torch`.

    Raises:
        DataError: the file cannot be read, or the series is too short or too sparse.
        NonFiniteLossError: training failed; a lower `rate` may do.
        ValueError: an option is out of range.
    """
    number = lambda value: value.item() if isinstance(value, np.generic) else value  # as in JSON
    sizes = observations, train_fraction, steps, rate, latent, width, seed
    options = Options(*map(number, (stretch, ahead, *sizes, framework)))
    whole = {"observations": 2, "steps": 1, "latent": 1, "width": 1, "seed": 0}
    for name, least in whole.items():
        value = getattr(options, name)
        if not isinstance(value, int) or value < least:
            raise ValueError(f"`{name}` is {value!r}; a whole number, at least {least}, expected")
    for name in ("stretch", "ahead", "rate", "train_fraction"):
        value = getattr(options, name)
        if not isinstance(value, int | float) or not 0 < value < np.inf:
            raise ValueError(f"`{name}` is {value!r}; a number above 0 expected")
    series = series if isinstance(series, Series) else read_csv(Path(series))
    data = windows.cut(
        series, title="a series", unit="time", stretch=stretch, ahead=ahead,
        observations=observations, train_fraction=train_fraction, seed=seed,
    )  # fmt: skip
    last = _last(series, options)
    trained = _build(options, data)
    for step in range(steps):
        now = learning_rate("cosine", rate, step=step, steps_per_epoch=1, epochs=steps)
        trained.learner.train_step(data.batch(step, BATCH, latent, seed), now)
    return Model(series.names, options, _validate(trained), trained, last)


def load(folder: Path | str) -> Model:
    """Inverse of `Model.save`. Raises RunError if the folder holds no such model."""
    path = Path(folder)
    try:
        about = json.loads((path / "model.json").read_text())
        names, options = tuple(about["names"]), Options(**about["options"])
        with np.load(path / "series.npz") as kept:
            last = Series(kept["times"], kept["values"], names)
            mean, deviation = kept["mean"], kept["deviation"]
        nothing = windows.pack([(last.times, last.values)])
        asked = windows.Questions(nothing, nothing, nothing, nothing, noisy=True)
        data = Windows("", names, nothing, asked, UNITS, "time", 1.0, mean, deviation)
        trained = _build(options, data)
        trained.learner.load(path / "weights")
        return Model(names, options, about["validation"], trained, last)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RunError(f"{path} holds no model that can be read: {error}") from None


def _last(series: Series, options: Options) -> Series:
    """The window that forecasts are made from: as many observations as were trained with."""
    known = ~np.isnan(series.values).all(1)
    times, values = series.times[known], series.values[known]
    first = np.searchsorted(times, times[-1] - options.stretch)
    some = np.random.default_rng([options.seed, 4]).permutation(np.arange(first, len(times) - 1))
    chosen = np.sort(np.append(some[: options.observations - 1], len(times) - 1))
    return Series(times[chosen], values[chosen], series.names)


def _build(options: Options, data: Windows) -> Trained:
    module = frameworks.module(options.framework, "latent")
    learner = module.learner(
        len(data.names), latent=options.latent, hidden=options.width, width=options.width,
        seed=options.seed, solver="midpoint", precision="float32", device="cpu",
    )  # fmt: skip
    return Trained(module, learner, data, options.latent)


def _validate(trained: Trained) -> dict[str, float]:
    data = trained.problem
    held = data.test
    beyond: Observed = held.beyond
    found = trained.sample(held.observed, {"beyond": beyond.times}, 32)[ENCODER]["beyond"]
    seen = held.observed
    mean = (seen.values * seen.mask).sum(1) / np.maximum(seen.mask.sum(1), 1)
    return {
        "latent ODE": rmse(data, beyond, found.mean(0)),
        "RNN": rmse(data, beyond, trained.forecast(seen, beyond.times)),
        "mean": rmse(data, beyond, mean[:, None]),
        "in the band": coverage(beyond, found, trained.noise()[ENCODER]),
    }
