"""Learn a vector field from noisy trajectories: `python experiments/dynamics.py --help`."""

from __future__ import annotations

import dataclasses
import functools
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from tyro.conf import arg

from experiments.harness import application, flags
from experiments.harness.command import say
from experiments.harness.markdown import table
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


def plan(config: Config) -> application.Plan:
    """Check the flags, settle what depends on others, and say what to do."""
    config.training.check()
    model, solver = config.model, config.solver
    flags.counts(model, "width", "depth")
    flags.counts(solver, "substeps", "window")
    flags.positive("--gap-weight", solver.gap_weight)
    application.check_solver(config)
    config = dataclasses.replace(config, data=task.resolve(config.data))
    series, tests = task.load(config.data, config.training.seed)
    problem = shooting.prepare(series, solver.window, log=bool(config.data.log))
    times = [one.times for one in series] + [one.times for one in tests]
    shooting.check_times(times, problem.pace, model.precision)
    return application.Plan(
        config,
        title=task.describe(config.data, series),
        names=(f"dynamics-{config.data.system}", "field"),
        source=config.data.system,
        shape=problem.starts,
        options={
            "width": model.width,
            "depth": model.depth,
            "solver": solver.solver,
            "substeps": solver.substeps,
            "gap_weight": solver.gap_weight,
        },
        work=functools.partial(train, problem=problem, series=series, tests=tests),
    )


def train(
    session: application.Session,
    *,
    problem: shooting.Shooting,
    series: list[Series],
    tests: list[Unseen],
) -> None:
    """Train, then compare with the baselines; write pictures and tables."""
    config, path = session.config, session.folder.path
    solve = lambda y0, ts: session.apply("trajectory", y0=y0, ts=ts)
    predict: dict[str, shooting.Predict] = {
        "neural ODE": shooting.telling_times_apart(solve, config.model.precision),
        "GRU": lambda y0, ts: session.apply("recurrent", y0=y0, ts=ts),
    }
    slope = lambda y: session.apply("field", y=y)
    frames = session.frames()

    def evaluate(epoch: int) -> dict[str, float]:
        frame = frames / f"{epoch:04d}.npz"
        pictures.save_frame(frame, problem, series, slope, predict["neural ODE"], tests[0])
        errors = shooting.errors(problem, predict["neural ODE"], tests[0])
        return {"score": errors, "rmse": errors}

    rows = session.train(lambda step: problem.batch, evaluate, line)
    degree = SYSTEMS[config.data.system].degree if config.data.system in SYSTEMS else 2
    try:
        predict["least squares"] = sindy.fit(problem.scaled(series), degree).solve
    except ValueError as error:
        say(session.console, "baseline", f"least squares are left out: {error}")
    last_value = lambda y0, ts: np.repeat(y0[:, None], len(ts), axis=1)
    mean = lambda y0, ts: np.zeros((len(y0), len(ts), y0.shape[1]))  # of scaled data
    results = {
        name: {test.title: shooting.errors(problem, method, test) for test in tests}
        for name, method in {**predict, "last value": last_value, "mean": mean}.items()
    }
    pictures.phase(path / "phase.png", config, problem, series, tests, predict, slope)
    pictures.animate(path / "training.gif", frames, len(rows), series)
    session.finish(rows, {"rmse": results}, text)


def text(summary: dict[str, Any]) -> str:
    """The table of a run's summary.json: errors of all methods, in Markdown."""
    found = summary["rmse"]
    titles = list(found["mean"])
    body = [[name, *(errors[title] for title in titles)] for name, errors in found.items()]
    written = table(["RMSE, in deviations of the data", *titles], body)
    if any(np.isnan(error) for errors in found.values() for error in errors.values()):
        written += "\nnan: a trajectory grew beyond all bounds, or took too many steps to solve.\n"
    return written


def line(row: dict[str, Any], epochs: int) -> str:
    """One epoch in words."""
    return (
        f"epoch {row['epoch']}/{epochs}  data {row['train_data']:.4g}  gap {row['train_gap']:.2g}  "
        f"RMSE of new trajectories {row['rmse']:.4g}  {row['seconds_train']:.1f} s"
    )


main = application.main(PROG, EXAMPLES, "dynamics", Config(), SMOKE, plan)

if __name__ == "__main__":
    sys.exit(main())
