"""Learn a vector field from noisy trajectories: `python experiments/dynamics.py --help`."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from rich.console import Console
from tyro.conf import arg

from experiments import dynamics_plots, flags, job, shooting, sindy
from experiments.command import guard, say
from experiments.flags import ConfigError
from experiments.results import RunFolder
from experiments.series import Series, lynx_hare, read_csv
from experiments.trajectories import SYSTEMS, sample

PROG = "dynamics.py"
EXAMPLES = """examples:
  python experiments/dynamics.py --system lotka-volterra
      a predator-prey field from 32 noisy, irregularly sampled trajectories, two minutes
  python experiments/dynamics.py --system lynx-hare
      pelts of the Hudson's Bay Company, forecast from 1900-1914 to 1920
  python experiments/dynamics.py --system csv --csv FILE
      your own series: time in the first column, empty where not observed
"""
REAL = ("lynx-hare", "csv")


@dataclass(frozen=True)
class Model:
    """The vector field, a tanh network, and the GRU it is compared with."""

    framework: Literal["jax", "torch"] = "jax"
    """Flax and diffrax, or PyTorch and torchdiffeq."""
    width: Annotated[int, arg(metavar="N")] = 64
    """Units of every hidden layer, and of the GRU."""
    depth: Annotated[int, arg(metavar="N")] = 2
    """Hidden layers."""
    precision: Literal["float32", "float64"] = "float32"
    """Floating-point type of everything."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Where to compute."""


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
class Data:
    """Which system, and how it is observed."""

    system: Literal[
        "spiral", "nonlinear-spiral", "lotka-volterra", "pendulum", "lorenz", "lynx-hare", "csv"
    ] = "lotka-volterra"
    """A system that is simulated, or a real series."""
    csv: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """The series of --system csv."""
    trajectories: Annotated[int, arg(metavar="N")] = 32
    """Trajectories to learn from."""
    observations: Annotated[
        int | None, arg(metavar="N", help_behavior_hint="(default: 40; lorenz 120)")
    ] = None
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
class Config:
    """Learn the vector field of a dynamical system from noisy, irregularly sampled trajectories.

    Compares it with a GRU and with sparse least squares. Writes a run folder with config.json,
    metrics.jsonl, checkpoints, summary.json, summary.md, phase.png and training.gif.
    """

    model: Model = Model()
    solver: Solver = Solver()
    training: job.Training = job.Training()
    data: Data = Data()
    run: job.Run = job.Run()


SMOKE = Config(
    model=Model(width=8),
    training=job.Training(epochs=2, steps_per_epoch=3),
    data=Data(trajectories=3, observations=11),
)


@dataclass(frozen=True)
class Test:
    """Trajectories to predict: from the first state on, at common times."""

    title: str
    times: np.ndarray
    truth: np.ndarray
    since: float = field(default=-np.inf)  # errors count after this time


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return guard(PROG, run, arguments)


def run(arguments: list[str], console: Console) -> None:
    """Everything `main` does, with errors as exceptions."""
    config, folder = job.parse(PROG, EXAMPLES, arguments, Config(), SMOKE)
    config = resolve(config)
    with contextlib.ExitStack() as locks:
        if folder:
            locks.enter_context(folder)
        series, tests = load(config)
        problem = shooting.prepare(series, config.solver.window, log=bool(config.data.log))
        say(console, "data", describe_data(config, series))
        module = job.framework_module(config.model.framework, "dynamics")
        learner = build(module, config, problem)
        data = {"title": describe_data(config, series), "source": config.data.system}
        names = f"dynamics-{config.data.system}", "field"
        folder = job.start(PROG, names, config, folder, learner, data, arguments, console)
        locks.enter_context(folder)
        train(folder, module, learner, config, problem, series, tests, console)


def resolve(config: Config) -> Config:
    """Settle the defaults that depend on other flags, and check every value."""
    config.training.check()
    solver, data = config.solver, config.data
    for flag, value in (
        ("--width", config.model.width),
        ("--depth", config.model.depth),
        ("--substeps", solver.substeps),
        ("--window", solver.window),
        ("--trajectories", data.trajectories),
    ):
        flags.at_least(flag, value)
    flags.at_least("--observations", data.observations, 2)
    flags.positive("--gap-weight", solver.gap_weight)
    flags.positive("--train-fraction", data.train_fraction)
    flags.fraction("--train-fraction", data.train_fraction)
    flags.fraction("--missing", data.missing)
    if not 0 <= data.noise < np.inf:
        raise ConfigError(f"--noise is {data.noise}; a number of at least 0 expected.")
    methods = job.framework_module(config.model.framework, "irregular").METHODS
    if solver.solver not in methods:
        raise ConfigError(f"--solver {solver.solver} is unknown here; choose {', '.join(methods)}.")
    if (data.system == "csv") != (data.csv is not None):
        raise ConfigError("--system csv and --csv FILE go together; one of them is missing.")
    observations, log = data.observations, data.log
    if data.system in SYSTEMS:
        observations = observations or SYSTEMS[data.system].observations
    log = data.system == "lynx-hare" if log is None else log
    path = data.csv.expanduser().absolute() if data.csv else None
    data = dataclasses.replace(data, observations=observations, log=log, csv=path)
    return dataclasses.replace(config, data=data)


def load(config: Config) -> tuple[list[Series], list[Test]]:
    """Series to learn from, and what is to be predicted. Raises `DataError`."""
    data = config.data
    if data.system in REAL:
        whole = lynx_hare() if data.csv is None else read_csv(data.csv)
        shooting.check_log(whole, bool(data.log))
        first, rest = whole.split(data.train_fraction)
        times = np.concatenate([first.times[-1:], rest.times])
        truth = np.concatenate([first.filled()[-1:], rest.values])[None]
        return [first], [Test("forecast", times, truth, since=first.times[-1])]
    system = SYSTEMS[data.system]
    assert data.observations is not None
    series = sample(
        system,
        trajectories=data.trajectories,
        observations=data.observations,
        noise=data.noise,
        missing=data.missing,
        irregular=data.irregular,
        seed=config.training.seed,
    )
    generator = np.random.default_rng([config.training.seed, 1])  # apart from the training data
    # As far apart as the observations are on average: the baseline's own pace.
    times = np.linspace(0, 2 * system.t1, 2 * data.observations - 1)
    found = {
        outside: system.solve(y0, np.tile(times, (len(y0), 1)))
        for outside in (False, True)
        for y0 in [system.draw(generator, 16, outside=outside)]
    }
    half = data.observations
    tests = [
        Test("new initial states", times[:half], found[False][:, :half]),
        Test("the same, later in time", times, found[False], since=system.t1),
        Test("initial states outside", times[:half], found[True][:, :half]),
    ]
    return series, tests


def describe_data(config: Config, series: list[Series]) -> str:
    """The data in one line."""
    data, one = config.data, series[0]
    if data.system in REAL:
        return (
            f"{data.csv or 'Hudson Bay lynx and hare, 1900-1920'}: {len(one.times)} observations "
            f"to learn from, {one.times[0]:g} to {one.times[-1]:g}"
        )
    sampling = "irregularly" if data.irregular else "regularly"
    return (
        f"{SYSTEMS[data.system].title}: {data.trajectories} trajectories of {data.observations} "
        f"{sampling} sampled observations, noise {data.noise:g}, missing {data.missing:g}"
    )


def build(module: Any, config: Config, problem: shooting.Problem) -> Any:
    """The framework's learner."""
    try:
        return module.learner(
            problem.starts,
            width=config.model.width,
            depth=config.model.depth,
            seed=config.training.seed,
            solver=config.solver.solver,
            substeps=config.solver.substeps,
            gap_weight=config.solver.gap_weight,
            precision=config.model.precision,
            device=config.model.device,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None


def train(
    folder: RunFolder,
    module: Any,
    learner: Any,
    config: Config,
    problem: shooting.Problem,
    series: list[Series],
    tests: list[Test],
    console: Console,
) -> None:
    """Train, then compare with the baselines; write pictures and tables."""
    predict = {
        "neural ODE": lambda y0, ts: np.moveaxis(
            learner.apply(module.trajectory, y0=y0, ts=ts)[0], 0, 1
        ),
        "GRU": lambda y0, ts: learner.apply(module.recurrent, y0=y0, ts=ts),
    }
    slope = lambda y: learner.apply(module.field, y=y)
    frames = folder.path / "frames"
    frames.mkdir(exist_ok=True)

    def evaluate(epoch: int) -> dict[str, float]:
        dynamics_plots.save_frame(
            frames / f"{epoch:04d}.npz", problem, slope, predict["neural ODE"], tests[0]
        )
        errors = shooting.errors(problem, predict["neural ODE"], tests[0])
        return {"score": errors, "rmse": errors}

    rows = job.train(
        PROG, folder, learner, config, lambda step: problem.batch, evaluate, console, line
    )
    degree = SYSTEMS[config.data.system].degree if config.data.system in SYSTEMS else 2
    with contextlib.suppress(ValueError):  # too short a series for splines
        predict["least squares"] = sindy.fit(problem.scaled(series), degree).solve
    results = {
        name: {test.title: shooting.errors(problem, method, test) for test in tests}
        for name, method in predict.items()
    }
    results["last value"] = {
        test.title: shooting.errors(
            problem, lambda y0, ts: np.repeat(y0[:, None], len(ts), axis=1), test
        )
        for test in tests
    }
    summary = {
        "data": describe_data(config, series),
        "rmse": results,
        "run": str(folder.path),
        **job.costs(rows, config, learner),
    }
    titles = [test.title for test in tests]
    body = [[name, *(found[t] for t in titles)] for name, found in results.items()]
    text = job.table(["RMSE, in deviations of the data", *titles], body)
    job.write_summary(folder, summary, f"{summary['data']}.\n\n{text}")
    console.print(text, highlight=False, soft_wrap=True, markup=False)
    dynamics_plots.phase(folder.path / "phase.png", config, problem, series, tests, predict, slope)
    dynamics_plots.animate(folder.path / "training.gif", frames, len(rows), problem, series)
    say(console, "run", f"{folder.path} ({summary['seconds_total']:.0f} s)")


def line(row: dict[str, Any], epochs: int) -> str:
    """One epoch in words."""
    return (
        f"epoch {row['epoch']}/{epochs}  data {row['train_data']:.4g}  gap {row['train_gap']:.2g}  "
        f"RMSE of new trajectories {row['rmse']:.4g}  {row['seconds_train']:.1f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
