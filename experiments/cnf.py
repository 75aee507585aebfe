"""Fit continuous normalising flows to densities: `python experiments/cnf.py --help`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from rich.console import Console
from tyro.conf import arg

from experiments import cnf_plots, densities, flags, job
from experiments.command import guard, say
from experiments.results import RunFolder

PROG = "cnf.py"
EXAMPLES = """examples:
  python experiments/cnf.py --density moons
      two moons by likelihood, by flow matching and by a discrete flow, a few minutes
  python experiments/cnf.py --density wine --trace hutchinson
      178 wines with 13 measurements each
"""
BOX, GRID = 6.0, 160  # the density is integrated over [-6, 6]^2


@dataclass(frozen=True)
class Model(job.Backend):
    """The field, a tanh network, and the discrete flow it is compared with."""

    width: Annotated[int, arg(metavar="N")] = 64
    """Units of every hidden layer."""
    layers: Annotated[int, arg(metavar="N")] = 8
    """Coupling layers of the discrete flow."""


@dataclass(frozen=True)
class Solver:
    """How the flow is solved in training, by rk4. Evaluation uses dopri5 at 1e-5, exact trace."""

    trace: Literal["exact", "hutchinson"] = "exact"
    """Trace of the Jacobian: exact, or by one random probe a sample."""
    steps: Annotated[int, arg(metavar="N")] = 8
    """Steps from 0 to 1."""


@dataclass(frozen=True)
class Data:
    """Which density."""

    density: Literal["moons", "circles", "checkerboard", "gaussians", "wine"] = "moons"
    """Four that are known, fresh samples at every step, and a table of 178 rows."""
    batch_size: Annotated[int, arg(metavar="N")] = 256
    """Samples a step."""
    test_size: Annotated[int, arg(metavar="N")] = 4000
    """Samples to test with; of the table, the fifth that was set aside."""


@dataclass(frozen=True)
class Config:
    """Fit a continuous normalising flow by likelihood and by flow matching, and a discrete flow.

    Writes a run folder with config.json, metrics.jsonl, checkpoints, summary.json, summary.md,
    densities.png and flow.gif (the pictures for two dimensions).
    """

    model: Model = Model()
    solver: Solver = Solver()
    training: job.Training = job.Training(epochs=10, steps_per_epoch=400)
    data: Data = Data()
    run: job.Run = job.Run()


SMOKE = Config(
    model=Model(width=8, layers=2),
    solver=Solver(steps=2),
    training=job.Training(epochs=2, steps_per_epoch=2),
    data=Data(batch_size=8, test_size=20),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return guard(PROG, run, arguments)


def run(arguments: list[str], console: Console) -> None:
    """Everything `main` does, with errors as exceptions."""
    config, folder = job.parse(PROG, EXAMPLES, arguments, Config(), SMOKE)
    check(config)
    with contextlib.ExitStack() as locks:
        if folder:
            locks.enter_context(folder)
        draw, test = load(config)
        title = f"{config.data.density}, {test.shape[1]} dimensions, {len(test)} test samples"
        say(console, "data", title)
        module = job.framework_module(config.model.framework, "cnf")
        learner = job.learner(
            module,
            config,
            test.shape[1],
            width=config.model.width,
            layers=config.model.layers,
            trace=config.solver.trace,
            steps=config.solver.steps,
        )
        data = {"title": title, "source": config.data.density}
        names = f"cnf-{config.data.density}", "flow"
        folder = job.start(PROG, names, config, folder, learner, data, arguments, console)
        locks.enter_context(folder)
        train(folder, module, learner, config, draw, test, title, console)


def check(config: Config) -> None:
    """Raise `ConfigError` for a value out of range."""
    config.training.check()
    for flag, value in (
        ("--width", config.model.width),
        ("--layers", config.model.layers),
        ("--steps", config.solver.steps),
        ("--batch-size", config.data.batch_size),
        ("--test-size", config.data.test_size),
    ):
        flags.at_least(flag, value)


def load(config: Config) -> tuple[Callable[[int], dict[str, np.ndarray]], np.ndarray]:
    """What a step is trained on, drawn from the seed and its number, and the test samples."""
    seed, name, count = config.training.seed, config.data.density, config.data.batch_size
    if name == "wine":
        rows, test = densities.split(densities.wine(), seed)
    else:
        test = densities.sample(name, np.random.default_rng([seed, 1]), config.data.test_size)

    def draw(step: int) -> dict[str, np.ndarray]:
        generator = np.random.default_rng([seed, 0, step])
        if name == "wine":
            x = rows[generator.integers(0, len(rows), count)]
        else:
            x = densities.sample(name, generator, count)
        return {
            "x": x,
            "noise": generator.normal(size=x.shape),
            "probe": generator.choice([-1.0, 1.0], x.shape),
            "t": generator.uniform(size=count),
        }

    return draw, test


def train(
    folder: RunFolder,
    module: Any,
    learner: Any,
    config: Config,
    draw: Callable[[int], dict[str, np.ndarray]],
    test: np.ndarray,
    title: str,
    console: Console,
) -> None:
    """Train, then compare the flows; write pictures and tables."""
    layers = config.model.layers
    names = ("continuous, likelihood", "continuous, flow matching", f"discrete, {layers} couplings")
    part = test[:1000]

    def evaluate(epoch: int) -> dict[str, float]:
        found = learner.apply(module.evaluate, x=part)
        cnf, matching, coupling = (float(-np.mean(logp)) for logp in found)
        return {"score": cnf, "nll_cnf": cnf, "nll_matching": matching, "nll_coupling": coupling}

    rows = job.train(PROG, folder, learner, config, draw, evaluate, console, line)
    found = dict(zip(names, learner.apply(module.evaluate, x=test), strict=True))
    back = learner.apply(module.round_trip, x=part)
    summary: dict[str, Any] = {
        "data": title,
        "nll": {name: float(-np.mean(logp)) for name, logp in found.items()},
        "round_trip_error": float(np.abs(back - part).max()),
        "run": str(folder.path),
        **job.costs(rows, config, learner),
    }
    headers = ["negative log-likelihood, nats", "test"]
    body: list[list[Any]] = [[name, nll] for name, nll in summary["nll"].items()]
    if test.shape[1] == 2:
        truth = densities.log_density(config.data.density, test)
        summary["nll"]["true density"] = float(-np.mean(truth))
        points, area = cnf_plots.grid(BOX, GRID)
        chunks = [learner.apply(module.evaluate, x=c) for c in np.split(points, GRID)]
        fields = dict(zip(names, map(np.concatenate, zip(*chunks, strict=True)), strict=True))
        summary["mass"] = {
            n: float(np.exp(f.astype(float)).sum() * area) for n, f in fields.items()
        }
        headers += ["integral of the density", "above the true value"]
        least = summary["nll"]["true density"]
        body = [[*row, f"{summary['mass'][row[0]]:.5f}", row[1] - least] for row in body]
        body.append(["true density", least, "1", 0.0])
        noise = np.random.default_rng(0).normal(size=(1000, 2))
        ts = np.linspace(0, 1, 21)
        paths = learner.apply(module.generate, noise=noise, ts=ts)
        fields["true density"] = densities.log_density(config.data.density, points)
        cnf_plots.densities(folder.path / "densities.png", fields, BOX, GRID)
        cnf_plots.flow(folder.path / "flow.gif", dict(zip(names[:2], paths, strict=True)), ts)
    error = summary["round_trip_error"]
    text = (
        f"{title}; trace in training: {config.solver.trace}.\n\n{job.table(headers, body)}\n"
        f"Largest error of a round trip, data to noise and back: {error:.1e} (two solves at 1e-5 "
        "a step).\n"
    )
    job.write_summary(folder, summary, text)
    console.print(text, highlight=False, soft_wrap=True, markup=False)
    say(console, "run", f"{folder.path} ({summary['seconds_total']:.0f} s)")


def line(row: dict[str, Any], epochs: int) -> str:
    """One epoch in words."""
    return (
        f"epoch {row['epoch']}/{epochs}  test nats: likelihood {row['nll_cnf']:.4f}  "
        f"flow matching {row['nll_matching']:.4f}  discrete {row['nll_coupling']:.4f}  "
        f"{row['seconds_train']:.1f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
