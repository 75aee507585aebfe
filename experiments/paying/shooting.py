"""Dynamics from noisy trajectories: a field and a GRU in training, and two kinds of polynomials.

Field and GRU are both trained in two ways: by multiple shooting (windows of a few observations with
starts that are learnt with them, each drawn to where the window before it ends) and on whole
trajectories, whose starts are learnt too. Polynomials are fitted to derivatives of splines (sparse
regression), or to pieces of trajectories; so is a kernel's field, where no polynomial is the truth.
Scores are of trajectories from new, exact initial states. What escapes or is NaN counts as `BOUND`
deviations away.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import wasserstein_distance

from experiments.paying import kernels, polynomials
from experiments.paying.learners import learner
from experiments.paying.protocol import Data, Kind, Learnt, Part, Task, Trivial
from experiments.series.series import Series
from experiments.trajectories import shooting, sindy
from experiments.trajectories.systems import SYSTEMS, sample
from jax_node.dynamics import Recurrent, shooting_losses
from jax_node.irregular import solve_at
from jax_node.mlp import MLP
from jax_node.solve import solve

TRAJECTORIES, NOISE, WINDOW = 32, 0.05, 5
FIT_DEGREES = (2, 3, 5)  # of polynomials fitted to trajectories
HELD_OUT, BOUND = 16, 10.0
THRESHOLDS, DEGREES = (0.01, 0.02, 0.05, 0.1, 0.2), (2, 3)  # of sparse regression, by validation
LYAPUNOV = 1 / 0.9056  # time in which neighbours on Lorenz's attractor part by e (Viswanath 1998)
WRONG = 0.4  # deviations at which a prediction of chaos has ceased to be one
SEEDS = tuple(range(10))  # an error differs twofold from seed to seed: three tell nothing apart
LONG, SETTLED = 20.0, 5.0  # of the run whose distribution is compared, and where it begins


@dataclass(frozen=True, eq=False)
class Train:
    """Noisy trajectories, and the windows made of them."""

    series: list[Series]
    windows: shooting.Shooting


@dataclass(frozen=True, eq=False)
class Held:
    """Trajectories to predict from their first states: scaled times and states."""

    times: Float[ndarray, " times"]
    truth: Float[ndarray, "batch times dim"]


Moves = Callable[..., Any]  # a model and states to states at later times
Score = Callable[[Held, ndarray], float]
Measure = Callable[[Data], Score]  # of a seed's data: it may depend on their clock
Fits = Callable[[list[Series]], Iterable[sindy.Linear]]


class Shot(nnx.Module):
    """What moves states, a field or a GRU, and the starts of the windows that it is trained on."""

    def __init__(self, starts: ndarray, size: int, field: bool, *, rngs: nnx.Rngs):
        dim = starts.shape[1]
        self.moves: Any = (
            MLP((dim, size, size, dim), rngs=rngs) if field else Recurrent(dim, size, rngs=rngs)
        )
        self.starts = nnx.Param(jnp.asarray(starts, jnp.float32))


def flow(model: Shot, y0: Any, ts: Any) -> Any:
    """States at each sample's own times, by one step of rk4 from one to the next."""
    graph, weights = nnx.split(model.moves)
    return solve_at(lambda t, y, weights: nnx.merge(graph, weights)(y), y0, ts, weights)


def recur(model: Shot, y0: Any, ts: Any) -> Any:
    """The same by the GRU."""
    return model.moves(y0, ts)


def carry(model: Shot, y0: Any, ts: Any) -> Any:
    """States at common times by dopri5 at 1e-6; NaN if the solve does not reach the last."""
    graph, weights = nnx.split(model.moves)
    field = lambda t, y, weights: nnx.merge(graph, weights)(y)
    solution = solve(
        field, y0, ts[0], weights, solver="dopri5", adjoint="checkpoint", rtol=1e-6, atol=1e-6,
        max_steps=8192,
    )  # fmt: skip
    return jnp.moveaxis(jnp.where(solution.ok, solution.ys, jnp.nan), 0, 1)


def uncut(batch: Any) -> Any:
    """Of a batch of windows, the trajectories that they were cut from: each is one window."""
    found = {name: batch[f"all_{name}"] for name in ("times", "values", "mask")}
    return found | {"next": np.arange(len(found["times"]))}


def loss(model: Shot, batch: Any, method: Moves) -> Any:
    """Mean squared error of the observations, and of each window's end against the next start."""
    starts = model.starts[...]
    data, gap = shooting_losses(method(model, starts, batch["times"]), starts, batch)
    return data + gap


def make(name: str, end: float) -> Callable[[int], Data]:
    """The data of a system by seed; held-out trajectories end at `end`."""
    system = SYSTEMS[name]

    def data(seed: int) -> Data:
        series = sample(
            system, trajectories=TRAJECTORIES, observations=system.observations, noise=NOISE,
            missing=0.0, irregular=True, seed=seed,
        )  # fmt: skip
        windows = shooting.prepare(series, WINDOW, log=False)
        gap = system.t1 / (system.observations - 1)
        times = gap * np.arange(round(end / gap) + 1)

        def held(part: int) -> Held:
            y0 = system.draw(np.random.default_rng([seed, part]), HELD_OUT, outside=False)
            truth = system.solve(y0, np.tile(times, (HELD_OUT, 1)))
            return Held(times * windows.pace, windows.scale(truth))

        return Data(Train(series, windows), held(1), held(2), lambda step: windows.batch)

    return data


def rmse(held: Held, found: ndarray) -> float:
    """Root mean squared error, in deviations of the data, the known start left out."""
    return float(np.sqrt(np.mean((found - held.truth)[:, 1:] ** 2)))


def invalid(pace: float) -> Score:
    """Minus the time, in Lyapunov times, until an error of `WRONG` deviations; the mean of all."""

    def score(held: Held, found: ndarray) -> float:
        error = np.sqrt(np.mean((found - held.truth) ** 2, axis=2))
        wrong = np.concatenate([error > WRONG, np.ones((len(error), 1), bool)], axis=1)
        at = np.append(held.times, held.times[-1])[wrong.argmax(1)]
        return -float(at.mean() / pace / LYAPUNOV)

    return score


def climate(held: Held, found: ndarray) -> float:
    """Mean over channels of the Wasserstein distance of long-run values, in deviations."""
    late = held.times >= held.times[-1] * SETTLED / LONG
    pairs = zip(found[:, late].T, held.truth[:, late].T, strict=True)
    return float(np.mean([wasserstein_distance(a.ravel(), b.ravel()) for a, b in pairs]))


def bounded(found: ndarray) -> ndarray:
    """Predictions in their bounds, NaN at the upper one."""
    return np.clip(np.nan_to_num(found, nan=BOUND, posinf=BOUND, neginf=-BOUND), -BOUND, BOUND)


MEASURES: dict[str, Measure] = {
    "rmse": lambda data: rmse,
    "valid": lambda data: invalid(data.train.windows.pace),
    "climate": lambda data: climate,
}


def learnt(
    measure: Measure, title: str, kind: Kind, method: Moves, apply: Moves, cut: bool = True
) -> Learnt:
    """A method trained by `method`, on windows or, not `cut`, on trajectories; used by `apply`."""

    def build(data: Data, size: int, seed: int) -> Any:
        windows = data.train.windows
        starts = windows.starts if cut else windows.batch["all_values"][:, 0]
        model = Shot(starts, size, kind == "Neural ODE", rngs=nnx.Rngs(seed))
        return learner(model, lambda model, b: loss(model, b if cut else uncut(b), method))

    def score(trained: Any, data: Data, part: Part) -> float:
        held: Held = getattr(data, part)
        ts = np.tile(held.times, (len(held.truth), 1))
        found = trained.apply(apply, y0=held.truth[:, 0], ts=ts)
        return measure(data)(held, bounded(found))

    return Learnt(title, kind, build, score)


def fitted(measure: Measure, title: str, fit: Fits, numbers: Callable[[ndarray], int]) -> Trivial:
    """Of the fields fitted to scaled series the best by validation, once for a seed's data."""

    def score_of(one: sindy.Linear, data: Data, part: Part) -> float:
        held: Held = getattr(data, part)
        return measure(data)(held, bounded(one.solve(held.truth[:, 0], held.times)))

    @functools.cache
    def best_of(train: Train, validation: Held) -> sindy.Linear:
        data = Data(train, validation, None, lambda step: {})
        tried = fit(train.windows.scaled(train.series))
        return min(tried, key=lambda one: score_of(one, data, "validation"))

    best = lambda data: best_of(data.train, data.validation)
    return Trivial(
        title,
        lambda data, part: score_of(best(data), data, part),
        lambda data: numbers(best(data).coefficients),
        "baseline",
    )


def constant(
    measure: Measure, title: str, value: Callable[[ndarray], ndarray], numbers: Callable[[int], int]
) -> Trivial:
    """A value that stays, made of the true states; of how many numbers, by their dimension."""

    def score(data: Data, part: Part) -> float:
        held: Held = getattr(data, part)
        return measure(data)(held, np.broadcast_to(value(held.truth), held.truth.shape))

    return Trivial(title, score, lambda data: numbers(data.validation.truth.shape[2]))


def sparse(series: list[Series]) -> list[sindy.Polynomial]:
    """Sparse regressions, to be chosen from by validation."""
    return [sindy.fit(series, degree, t) for degree in DEGREES for t in THRESHOLDS]


def methods(measure: Measure) -> dict[str, Learnt | Trivial]:
    """What is compared on every system."""
    return {
        "field": learnt(measure, "neural ODE, multiple shooting", "Neural ODE", flow, carry),
        "field-whole": learnt(
            measure, "neural ODE, whole trajectories", "Neural ODE", flow, carry, False
        ),
        "gru": learnt(measure, "GRU, multiple shooting", "baseline", recur, recur),
        "gru-whole": learnt(measure, "GRU, whole trajectories", "baseline", recur, recur, False),
        "sparse": fitted(
            measure, "sparse regression (SINDy)", sparse, lambda c: int((c != 0).sum())
        ),
        "polynomial": fitted(
            measure,
            "polynomial field, fitted to trajectories",
            lambda series: polynomials.fits(series, FIT_DEGREES),
            lambda c: c.size,
        ),
        "first": constant(measure, "first value", lambda truth: truth[:, :1], lambda dim: 0),
        "mean": constant(measure, "mean of the data", lambda truth: np.zeros(()), lambda dim: dim),
    }


def kernel(measure: Measure) -> dict[str, Trivial]:
    """The rival of a field that no polynomial is."""
    title = "kernel's field, fitted to trajectories"
    return {"kernel": fitted(measure, title, kernels.fits, lambda c: c.size)}


def task(
    name: str, system: str, title: str, measure: str, end: float, score: str,
    margin: float, relative: bool, unit: str = "",
    more: Callable[[Measure], dict[str, Trivial]] = lambda measure: {},
) -> Task:  # fmt: skip
    """The comparison on one system."""
    return Task(
        name, title, measure, margin, relative, 60.0, SEEDS, make(system, end),
        methods(MEASURES[score]) | more(MEASURES[score]), unit,
    )  # fmt: skip


TASKS = (
    task("lotka-volterra", "lotka-volterra", "Lotka-Volterra, noisy, irregular",
         "RMSE to twice the time learnt, deviations", 12.0, "rmse", 0.1, True),
    task("pendulum", "pendulum", "damped pendulum, noisy, irregular",
         "RMSE to twice the time learnt, deviations", 12.0, "rmse", 0.1, True),
    task("repressilator", "repressilator", "repressilator, noisy, irregular",
         "RMSE to twice the time learnt, deviations", 12.0, "rmse", 0.1, True, more=kernel),
    task("lorenz", "lorenz", "Lorenz, how long it is foreseen",
         "minus the valid time, Lyapunov times", 8.0, "valid", 0.5, False, "Lyapunov times"),
    task("lorenz-climate", "lorenz", "Lorenz, distribution in the long run",
         "Wasserstein distance, deviations", LONG, "climate", 0.1, True),
)  # fmt: skip
