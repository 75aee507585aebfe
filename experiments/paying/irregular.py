"""Series at irregular times, forecast beyond a window: latent ODEs against networks without one.

A method sees a window's observations and is asked for what follows it. It is trained on windows
only, never on what follows; validation and test windows are others, scored on what follows them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy import ndarray

from experiments.latent import spirals, windows
from experiments.latent.predictions import rmse, with_short_gaps
from experiments.latent.windows import Observed, Questions, Windows
from experiments.paying import attention, recurrent
from experiments.paying.attention import Transformer
from experiments.paying.learners import learner
from experiments.paying.protocol import Data, Learnt, Part, Task, Trivial
from experiments.paying.recurrent import Recurrent
from experiments.series.mauna_loa import harmonics, mauna_loa
from jax_node.latent import LatentODE, negative_elbo

BATCH, LATENT = 100, 4
KL_STEPS = 500  # in which the weight of the divergence grows from 0 to 1
NOISE, GRID, HELD_OUT = 0.3, 1000, 200  # of spirals, as in latent_ode.py
STRETCH, AHEAD, WEEKS, BETWEEN = 1.5, 1.0, 40, 4  # of CO2: years, years, observations, windows


@dataclass(frozen=True)
class Held:
    """Windows to score on, in the units of their problem."""

    problem: Windows
    test: Questions

    def score(self, found: ndarray) -> float:
        """RMSE of what follows the windows, in the data's units."""
        return rmse(self.problem, self.test.beyond, found)


def spiral_data(observations: int, count: int) -> Callable[[int], Data]:
    """Spirals of which `observations` of 100 times are seen; `count` to learn from."""

    def data(seed: int) -> Data:
        problem = spirals.make(count, 2 * HELD_OUT, observations, NOISE, GRID, seed)
        validation, test = problem.test[:HELD_OUT], problem.test[HELD_OUT:]
        return from_problem(problem, validation, test, seed)

    return data


def co2(seed: int) -> Data:
    """CO2 at Mauna Loa: windows of 40 weeks in a year and a half, and the year that follows.

    Of the windows after the training part the earlier half is for validation, the later for test.
    """
    problem = windows.cut(
        mauna_loa(), title="CO2", unit="year", stretch=STRETCH, ahead=AHEAD, observations=WEEKS,
        train_fraction=0.7, seed=seed, tests=128,
    )  # fmt: skip
    half = len(problem.test.observed) // 2
    return from_problem(problem, problem.test[: half - BETWEEN], problem.test[half:], seed)


def from_problem(problem: Windows, validation: Questions, test: Questions, seed: int) -> Data:
    """The data of a seed; a batch is some windows, and from where on a series is to run free."""
    train = problem.train

    def batch(step: int) -> dict[str, ndarray]:
        generator = np.random.default_rng([seed, 3, step])
        chosen = train[generator.integers(0, len(train), BATCH)]
        count = chosen.times.shape[1]
        first = generator.integers(count // 4, count, (BATCH, 1))
        return {
            **chosen.arrays(),
            "free": (np.arange(count) >= first) * chosen.mask.any(2).astype(float),
            "noise": generator.normal(size=(BATCH, LATENT)),
            "kl": np.array(min(1.0, step / KL_STEPS)),
        }

    return Data(train, Held(problem, validation), Held(problem, test), batch)


def carry(model: LatentODE, times: Any, values: Any, mask: Any, ask: Any) -> Any:
    """The latent ODE's forecast, from the mean of its belief; `ask` has short gaps from 0 on."""
    mean, _ = model.encoder(times, values, mask)
    return model.decode(mean, ask, solver="rk4", substeps=2)


def carried(trained: Any, data: Data, part: Part) -> float:
    """The score of a latent ODE, which is carried over the window in short steps too."""
    one: Held = getattr(data, part)
    ask, asked = with_short_gaps(one.test.beyond.times)
    found = trained.apply(carry, **one.test.observed.arrays(), ask=ask)
    return one.score(found[:, asked])


def one_step(model: Recurrent, batch: Any) -> Any:
    """The loss of an RNN that is never trained on its own expectations."""
    return recurrent.loss(model, {**batch, "free": jnp.zeros_like(batch["free"])})


def stride(train: Observed, ask: ndarray) -> int:
    """How many asked times are about as long as the mean gap that was trained on."""
    gaps = np.diff(train.times)
    return max(1, round(float(gaps[gaps > 0].mean() / np.diff(ask).mean())))


def scored(method: Callable[..., Any], strides: bool = False) -> Callable[[Any, Data, Part], float]:
    """The score of a method that forecasts; with `strides`, in steps as long as those trained on.

    Asked times that lie closer than observations did are reached by chains side by side, each of
    which takes every n-th of them.
    """

    def score(trained: Any, data: Data, part: Part) -> float:
        one: Held = getattr(data, part)
        ask, observed = one.test.beyond.times, one.test.observed.arrays()
        n = stride(data.train, ask) if strides else 1
        found = np.empty(one.test.beyond.values.shape)
        for first in range(n):
            chain = slice(first, None, n)
            found[:, chain] = trained.apply(method, **observed, ask=ask[:, chain])
        return one.score(found)

    return score


def constant(of: Callable[[ndarray, ndarray], ndarray]) -> Callable[[Data, Part], float]:
    """The score of a constant: a function of values and mask `[batch, times, channels]`."""

    def score(data: Data, part: Part) -> float:
        one: Held = getattr(data, part)
        value = of(one.test.observed.values, one.test.observed.mask)
        return one.score(value[:, None])

    return score


def last(values: ndarray, mask: ndarray) -> ndarray:
    """The last observed value of each channel."""
    at = mask.shape[1] - 1 - mask[:, ::-1].argmax(1)
    return np.take_along_axis(values, at[:, None], axis=1)[:, 0]


def mean(values: ndarray, mask: ndarray) -> ndarray:
    """The mean of the window's observations."""
    return (values * mask).sum(1) / np.maximum(mask.sum(1), 1)


def periodic(data: Data, part: Part) -> float:
    """The score of a line with two annual harmonics, fitted to each window."""
    one: Held = getattr(data, part)
    problem, seen, ask = one.problem, one.test.observed, one.test.beyond.times
    found = np.empty(one.test.beyond.values.shape)
    for i, (times, values, mask) in enumerate(zip(seen.times, seen.values, seen.mask, strict=True)):
        known = mask.any(1)
        found[i] = harmonics(times[known] * problem.scale, values[known], ask[i] * problem.scale)
    return one.score(found)


def task(
    name: str, title: str, measure: str, data: Callable[[int], Data], cyclic: bool = False
) -> Task:
    """The comparison on one kind of windows."""
    channels = lambda data: data.train.values.shape[2]

    def latent(evolve: bool) -> Callable[[Data, int, int], Any]:
        return lambda data, size, seed: learner(
            LatentODE(channels(data), LATENT, size, size, evolve, rngs=nnx.Rngs(seed)),
            functools.partial(negative_elbo, solver="midpoint"),
        )

    def network(decay: bool, loss: Any = recurrent.loss) -> Callable[[Data, int, int], Any]:
        return lambda data, size, seed: learner(
            Recurrent(channels(data), size, decay, rngs=nnx.Rngs(seed)), loss
        )

    def transformer(data: Data, size: int, seed: int) -> Any:
        span = float(data.train.times.max())
        return learner(Transformer(channels(data), size, span, rngs=nnx.Rngs(seed)), attention.loss)

    forecast, strided = recurrent.forecast, scored(recurrent.forecast, strides=True)
    methods: dict[str, Learnt | Trivial] = {
        "ode-rnn": Learnt("latent ODE, ODE-RNN encoder", "Neural ODE", latent(True), carried),
        "latent": Learnt("latent ODE, RNN encoder", "Neural ODE", latent(False), carried),
        "free": Learnt("RNN trained free-running", "baseline", network(False), strided),
        "decay": Learnt("free-running RNN with decay (GRU-D)", "baseline", network(True), strided),
        "one-step": Learnt(
            "RNN trained one step ahead", "baseline", network(False, one_step), scored(forecast)
        ),
        "transformer": Learnt("Transformer", "baseline", transformer, scored(attention.forecast)),
        "last": Trivial("last value", constant(last), lambda data: 0),
        "mean": Trivial("mean of the window", constant(mean), lambda data: 0),
    }
    if cyclic:
        methods["periodic"] = Trivial("line and two harmonics", periodic, lambda data: 6)
    return Task(name, title, measure, 0.1, True, 120.0, (0, 1, 2), data, methods)


def spiral_task(observations: int, count: int = 1000) -> Task:
    """The paper's spirals with some of 100 times observed."""
    few = "" if count == 1000 else f"-of-{count}"
    return task(
        f"spirals-{observations}{few}",
        f"{count} spirals, {observations} of 100 times observed",
        "RMSE at 100 times beyond",
        spiral_data(observations, count),
    )


TASKS = (
    spiral_task(30),
    spiral_task(50),
    spiral_task(100),
    spiral_task(10),
    spiral_task(30, 100),
    task("co2", "CO2 at Mauna Loa, 40 weeks observed", "RMSE a year ahead, ppm", co2, cyclic=True),
)
