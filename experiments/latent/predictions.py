"""What trained latent ODEs predict, and how it compares: errors, bands, the paper's table 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from experiments.harness.markdown import table
from experiments.latent import spirals, windows
from experiments.latent.windows import Observed, Questions, Windows
from experiments.series.mauna_loa import harmonics
from experiments.series.series import interpolated

# Predictive RMSE in the paper's table 2, by observations: RNN, latent ODE.
PAPER = {30: (0.3937, 0.1642), 50: (0.3202, 0.1502), 100: (0.1813, 0.1346)}
ENCODERS = ("RNN", "ODE-RNN")
PARTS = ("inside", "beyond", "before")
SAMPLES, BAND = 32, 0.9
GAP = 0.2  # of model time, in two steps of rk4

Samples = Float[ndarray, "samples batch times channels"]


@dataclass(frozen=True)
class Trained:
    """The models of either framework, asked for predictions in the model's units."""

    module: Any
    learner: Any
    problem: Windows
    latent: int

    def encode(self, observed: Observed) -> dict[str, tuple[ndarray, ndarray]]:
        """Mean and log-variance of `q(z0)` by each encoder."""
        found = self.learner.apply(self.module.encode, **observed.arrays())
        return {"RNN": found[:2], "ODE-RNN": found[2:]}

    def decode(self, z0: dict[str, ndarray], ask: ndarray) -> dict[str, ndarray]:
        """Data at times that grow or fall from 0, from latent states there.

        What is asked besides moves them by no more than the solver's error: no step is long.
        """
        times, asked = with_short_gaps(ask)
        found = self.learner.apply(
            self.module.decode, z0=z0["RNN"], z0_ode_rnn=z0["ODE-RNN"], ask=times
        )
        return {name: values[:, asked] for name, values in zip(ENCODERS, found, strict=True)}

    def sample(self, observed: Observed, asks: dict[str, ndarray], samples: int) -> dict:
        """`{encoder: {part: predictions}}` from samples of `z0`, at times `[batch, times]`."""
        generator, codes = np.random.default_rng(0), self.encode(observed)
        noise = generator.normal(size=(samples, len(observed), self.latent))
        flat = {
            name: (mean + np.exp(log_variance / 2) * noise).reshape(-1, self.latent)
            for name, (mean, log_variance) in codes.items()
        }
        found: dict[str, dict[str, Samples]] = {name: {} for name in ENCODERS}
        for part, ask in asks.items():
            for name, values in self.decode(flat, np.tile(ask, (samples, 1))).items():
                found[name][part] = values.reshape(samples, *ask.shape, -1)
        return found

    def predict(self, test: Questions, samples: int = SAMPLES) -> dict[str, dict[str, Samples]]:
        """Samples of the test windows inside, beyond and before."""
        # What is inside lies on the way to what is beyond.
        on, cut = np.concatenate([test.inside.times, test.beyond.times], 1), test.inside.times.shape
        asks = {"on": on, "before": test.before.times}
        found = self.sample(test.observed, asks, samples)
        for parts in found.values():
            both = parts.pop("on")
            parts["inside"], parts["beyond"] = both[:, :, : cut[1]], both[:, :, cut[1] :]
        return found

    def forecast(self, observed: Observed, ask: ndarray) -> Float[ndarray, "batch times channels"]:
        """The RNN's predictions at times after all observations."""
        return self.learner.apply(self.module.forecast, **observed.arrays(), ask=ask)

    def noise(self) -> dict[str, ndarray]:
        """Learnt standard deviation of the observations."""
        found = self.learner.apply(self.module.noise)
        return dict(zip((*ENCODERS, "baseline"), found, strict=True))


def with_short_gaps(ask: Float[ndarray, "batch times"]) -> tuple[ndarray, ndarray]:
    """Times from 0 on with others in between, `GAP` apart at most, and where those asked for are.

    All rows get as many in a gap as the one where it is longest.
    """
    starts = np.concatenate([np.zeros_like(ask[:, :1]), ask[:, :-1]], axis=1)
    gaps = ask - starts
    pieces = np.maximum(1, np.ceil(np.abs(gaps).max(0) / GAP)).astype(int)
    asked = pieces.cumsum() - 1
    part = np.concatenate([np.arange(1, n + 1) / n for n in pieces])
    times = np.repeat(starts, pieces, axis=1) + np.repeat(gaps, pieces, axis=1) * part
    times[:, asked] = ask
    return times, asked


def rmse(problem: Windows, truth: Observed, found: ndarray) -> float:
    """Root mean squared error over all observed values, in their units; NaN if there are none."""
    if not truth.mask.any():
        return float("nan")
    error = (found - truth.values) * problem.deviation * truth.mask
    return float(np.sqrt((error**2).sum() / truth.mask.sum()))


def coverage(truth: Observed, samples: Samples, deviation: ndarray) -> float:
    """Fraction of the true values inside the central 90% of samples with noise `deviation`."""
    if not truth.mask.any():
        return float("nan")
    generator = np.random.default_rng(1)
    noisy = samples + deviation * generator.normal(size=samples.shape)
    low, high = np.quantile(noisy, [(1 - BAND) / 2, (1 + BAND) / 2], axis=0)
    held = (low <= truth.values) & (truth.values <= high)
    return float((held * truth.mask).sum() / truth.mask.sum())


def compare(model: Trained, config: Any) -> dict[str, Any]:
    """Errors of all methods, the bands' coverage, the learnt noise and the padding."""
    problem, test = model.problem, model.problem.test
    found, noise = model.predict(test), model.noise()
    errors: dict[str, dict[str, float]] = {}
    held: dict[str, dict[str, float]] = {}
    for encoder in ENCODERS:
        name = f"latent ODE, {encoder} encoder"
        truth = {part: getattr(test, part) for part in PARTS}
        errors[name] = {p: rmse(problem, truth[p], found[encoder][p].mean(0)) for p in PARTS}
        # The truth of the spirals has no noise, so the band is that of the trajectories alone.
        deviation = noise[encoder] * test.noisy
        held[name] = {p: coverage(truth[p], found[encoder][p], deviation) for p in PARTS}
    later = model.forecast(test.observed, test.beyond.times)
    errors["RNN"] = {"beyond": rmse(problem, test.beyond, later)}
    simple: dict[str, Any] = {"linear interpolation, constant outside": interpolated}
    if config.data.data == "mauna-loa":
        simple["line and two harmonics"] = lambda t, y, ask: harmonics(
            t * problem.scale, y, ask * problem.scale
        )
    if config.data.data == "spirals":
        simple["curves known, start fitted"] = spirals.fit
    for name, method in simple.items():
        errors[name] = {
            part: rmse(problem, truth, _each(method, problem, test.observed, truth.times))
            for part, truth in ((p, getattr(test, p)) for p in PARTS)
        }
    own, union = windows.padding(problem.train)
    return {
        "source": config.data.data,
        "observations": config.data.observations,
        "rmse": errors,
        "coverage": held,
        "noise": {name: (v * problem.deviation).tolist() for name, v in noise.items()},
        "padding": {"own clocks": own, "union of times": union},
    }


def text(summary: dict[str, Any]) -> str:
    """The table of a run's summary.json, and what else was measured, in Markdown."""
    columns = {"inside": "between observations", "beyond": "beyond", "before": "before"}
    found = {p for row in summary["rmse"].values() for p in row if not np.isnan(row[p])}
    columns = {part: title for part, title in columns.items() if part in found}
    headers = ["RMSE", *columns.values(), f"in the {BAND:.0%} band beyond"]
    body = []
    for name, row in summary["rmse"].items():
        held = summary["coverage"].get(name)
        cells = [row.get(part, "") for part in columns]
        body.append([name, *cells, f"{held['beyond']:.0%}" if held else ""])
    if summary["source"] == "spirals" and summary["observations"] in PAPER:
        rnn, ode = PAPER[summary["observations"]]
        body += [["paper, RNN", "", rnn, "", ""], ["paper, latent ODE", "", ode, "", ""]]
    noise = ", ".join(f"{np.mean(v):.3g} ({name})" for name, v in summary["noise"].items())
    waste = summary["padding"]
    return (
        f"{table(headers, body)}\n"
        f"Learnt standard deviation of the observations: {noise}. Solver steps that are padding, "
        f"with a clock for each window: {waste['own clocks']:.1%}; solved at the union of all "
        f"times it would be {waste['union of times']:.1%}.\n"
    )


def _each(method: Any, problem: Windows, observed: Observed, ask: ndarray) -> ndarray:
    """A method that takes times and values of one series, in the data's units, applied to each."""
    own = lambda values: values * problem.deviation + problem.mean
    found = np.zeros((*ask.shape, len(problem.names)))
    rows = zip(observed.times, observed.values, observed.mask, ask, strict=True)
    for i, (times, values, mask, asked) in enumerate(rows):
        seen = mask.any(1)
        values = np.where(mask > 0, own(values), np.nan)[seen]
        found[i] = method(times[seen], values, asked)
    return (found - problem.mean) / problem.deviation
