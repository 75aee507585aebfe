"""Learn a vector field from noisy trajectories: `python experiments/dynamics.py --help`."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from rich.console import Console
from tyro.conf import arg

from experiments.harness import application, flags, frameworks
from experiments.harness.command import guard, say
from experiments.harness.errors import ConfigError
from experiments.harness.markdown import table
from experiments.harness.run_folder import RunFolder
from experiments.series.series import Series
from experiments.trajectories import pictures, shooting, sindy, task
from experiments.trajectories.systems import SYSTEMS
from experiments.trajectories.task import Data, Unseen

PROG = "dynamics.py"
EXAMPLES = """examples:
  python experiments/dynamics.py --system lotka-volterra
      a predator-prey field from 32 noisy, irregularly sampled trajectories, two minutes
  python experiments/dynamics.py --system lynx-hare
      pelts of the Hudson's Bay Company, forecast from 1900-1914 to 1920
  python experiments/dynamics.py --system csv --csv FILE
      your own series: time in the first column, empty where not observed
"""


@dataclass(frozen=True)
class Model(application.Backend):
    """The vector field, a tanh network, and the GRU it is compared with."""

    width: Annotated[int, arg(metavar="N")] = 64
    """Units of every hidden layer, and of the GRU."""
    depth: Annotated[int, arg(metavar="N")] = 2
    """Hidden layers."""


@dataclass(frozen=True)
class Solver:
    """How the field is solved in training, by multiple shooting. Evaluation uses dopri5, 1e-6."""

    solver: Annotated[str, arg(metavar="NAME")] = "rk4"
    """rk4, midpoint or euler."""
    substeps: Annotated[int, arg(metavar="N")] = 1
    """Steps between two observations."""
    window: Annotated[int, arg(metavar="N")] = 5
    """Intervals between observations in a window."""
    gap_weight: Annotated[float, arg(metavar="W")] = 1.0
    """Weight of continuity between windows against the data."""


@dataclass(frozen=True)
class Config:
    """Learn the vector field of a dynamical system from noisy, irregularly sampled trajectories.

    Compares it with a GRU and with sparse least squares. Writes a run folder with config.json,
    metrics.jsonl, checkpoints, summary.json, summary.md, phase.png and training.gif.
    """

    model: Model = Model()
    solver: Solver = Solver()
    training: application.Training = application.Training()
    data: Data = Data()
    run: application.Run = application.Run()


SMOKE = Config(
    model=Model(width=8),
    training=application.Training(epochs=2, steps_per_epoch=3),
    data=Data(trajectories=3, observations=11),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return guard(PROG, run, arguments)


def run(arguments: list[str], console: Console) -> None:
    """Everything `main` does, with errors as exceptions."""
    config, folder = application.parse(PROG, EXAMPLES, arguments, Config(), SMOKE)
    config = resolve(config)
    with contextlib.ExitStack() as locks:
        if folder:
            locks.enter_context(folder)
        series, tests = task.load(config.data, config.training.seed)
        problem = shooting.prepare(series, config.solver.window, log=bool(config.data.log))
        title = task.describe(config.data, series)
        say(console, "data", title)
        module = frameworks.module(config.model.framework, "dynamics")
        learner = application.learner(
            module,
            config,
            problem.starts,
            width=config.model.width,
            depth=config.model.depth,
            solver=config.solver.solver,
            substeps=config.solver.substeps,
            gap_weight=config.solver.gap_weight,
        )
        data = {"title": title, "source": config.data.system}
        names = f"dynamics-{config.data.system}", "field"
        folder = application.start(PROG, names, config, folder, learner, data, arguments, console)
        locks.enter_context(folder)
        train(folder, module, learner, config, problem, series, tests, console)


def resolve(config: Config) -> Config:
    """Settle the defaults that depend on other flags, and check every value."""
    config.training.check()
    solver = config.solver
    for flag, value in (
        ("--width", config.model.width),
        ("--depth", config.model.depth),
        ("--substeps", solver.substeps),
        ("--window", solver.window),
    ):
        flags.at_least(flag, value)
    flags.positive("--gap-weight", solver.gap_weight)
    methods = frameworks.module(config.model.framework, "irregular").METHODS
    if solver.solver not in methods:
        raise ConfigError(f"--solver {solver.solver} is unknown here; choose {', '.join(methods)}.")
    return dataclasses.replace(config, data=task.resolve(config.data))


def train(
    folder: RunFolder,
    module: Any,
    learner: Any,
    config: Config,
    problem: shooting.Shooting,
    series: list[Series],
    tests: list[Unseen],
    console: Console,
) -> None:
    """Train, then compare with the baselines; write pictures and tables."""
    predict: dict[str, shooting.Predict] = {
        "neural ODE": lambda y0, ts: learner.apply(module.trajectory, y0=y0, ts=ts),
        "GRU": lambda y0, ts: learner.apply(module.recurrent, y0=y0, ts=ts),
    }
    slope = lambda y: learner.apply(module.field, y=y)
    frames = folder.path / "frames"
    frames.mkdir(exist_ok=True)

    def evaluate(epoch: int) -> dict[str, float]:
        frame = frames / f"{epoch:04d}.npz"
        pictures.save_frame(frame, problem, series, slope, predict["neural ODE"], tests[0])
        errors = shooting.errors(problem, predict["neural ODE"], tests[0])
        return {"score": errors, "rmse": errors}

    rows = application.train(
        PROG, folder, learner, config, lambda step: problem.batch, evaluate, console, line
    )
    degree = SYSTEMS[config.data.system].degree if config.data.system in SYSTEMS else 2
    try:
        predict["least squares"] = sindy.fit(problem.scaled(series), degree).solve
    except ValueError as error:
        say(console, "baseline", f"least squares are left out: {error}")
    last_value = lambda y0, ts: np.repeat(y0[:, None], len(ts), axis=1)
    mean = lambda y0, ts: np.zeros((len(y0), len(ts), y0.shape[1]))  # of scaled data
    results = {
        name: {test.title: shooting.errors(problem, method, test) for test in tests}
        for name, method in {**predict, "last value": last_value, "mean": mean}.items()
    }
    title = task.describe(config.data, series)
    summary = {
        "data": title,
        "rmse": results,
        "run": str(folder.path),
        **application.costs(rows, config, learner),
    }
    titles = [test.title for test in tests]
    body = [[name, *(found[t] for t in titles)] for name, found in results.items()]
    text = table(["RMSE, in deviations of the data", *titles], body)
    pictures.phase(folder.path / "phase.png", config, problem, series, tests, predict, slope)
    pictures.animate(folder.path / "training.gif", frames, len(rows), series)
    application.write_summary(folder, summary, f"{title}.\n\n{text}")
    console.print(text, highlight=False, soft_wrap=True, markup=False)
    say(console, "run", f"{folder.path} ({summary['seconds_total']:.0f} s)")


def line(row: dict[str, Any], epochs: int) -> str:
    """One epoch in words."""
    return (
        f"epoch {row['epoch']}/{epochs}  data {row['train_data']:.4g}  gap {row['train_gap']:.2g}  "
        f"RMSE of new trajectories {row['rmse']:.4g}  {row['seconds_train']:.1f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
