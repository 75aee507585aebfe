"""Latent ODEs on irregularly observed series: `python experiments/latent_ode.py --help`."""

from __future__ import annotations

import dataclasses
import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from experiments.harness import application, flags
from experiments.harness.errors import ConfigError
from experiments.latent import pictures, predictions, spirals, windows
from experiments.latent.predictions import text
from experiments.latent.windows import Windows
from experiments.series.mauna_loa import mauna_loa
from experiments.series.series import read_csv

PROG = "latent_ode.py"
EXAMPLES = """examples:
  python experiments/latent_ode.py --observations 30
      the paper's spirals, 30 of 100 times observed
  python experiments/latent_ode.py --data mauna-loa
      CO2 in the air, a year ahead from 40 weeks of a year and a half
  python experiments/latent_ode.py --data csv --csv FILE --stretch T --ahead T
      your own series: time in the first column, empty where not observed
"""


@dataclass(frozen=True)
class Model(application.Backend):
    """The latent ODE, with the sizes of the paper, and the RNN it is compared with."""

    latent: Annotated[int, arg(metavar="N")] = 4
    """Dimension of the latent state."""
    hidden: Annotated[int, arg(metavar="N")] = 25
    """Hidden state of the encoders and of the RNN."""
    width: Annotated[int, arg(metavar="N")] = 20
    """Units of the hidden layer of fields and decoder."""


@dataclass(frozen=True)
class Solver:
    """How the latent ODE is solved in training, one step between two observations.

    Evaluation takes two steps of rk4 between two times that are asked for.
    """

    solver: Annotated[str, arg(metavar="NAME")] = "midpoint"
    """rk4, midpoint or euler."""


@dataclass(frozen=True)
class Data:
    """What is observed, and how much of it."""

    data: Literal["spirals", "mauna-loa", "csv"] = "spirals"
    """Spirals of two directions, weekly CO2 at Mauna Loa, or a series of your own."""
    csv: Annotated[Path | None, flags.named("FILE", "none")] = None
    """The series of --data csv."""
    observations: Annotated[int | None, flags.named("N", "30; of a series 40")] = None
    """Observations of a window, at random."""
    batch_size: Annotated[int, arg(metavar="N")] = 100
    """Windows a step."""
    spirals: Annotated[int, arg(metavar="N")] = 1000
    """Spirals to learn from."""
    test_spirals: Annotated[int, arg(metavar="N")] = 200
    """Spirals to test with."""
    noise: Annotated[float, arg(metavar="SD")] = 0.3
    """Standard deviation of the noise of spirals."""
    grid: Annotated[int, arg(metavar="N")] = 1000
    """Points of the whole curve of a spiral, of which a window is 100."""
    stretch: Annotated[float, arg(metavar="T")] = 1.5
    """Length of a window of a series, in its units of time."""
    ahead: Annotated[float, arg(metavar="T")] = 1.0
    """How far a series is extrapolated, either way."""
    train_fraction: Annotated[float, arg(metavar="FRACTION")] = 0.7
    """Part of a series to learn from."""


@dataclass(frozen=True)
class Config:
    """Learn latent ODEs from series observed at irregular times (paper, section 5).

    With an RNN and an ODE-RNN encoder, beside an RNN. Writes a run folder with config.json,
    metrics.jsonl, checkpoints, summary.json, summary.md, series.png, walk.png and training.gif.
    """

    model: Model = Model()
    solver: Solver = Solver()
    training: application.Training = application.Training(steps_per_epoch=1000, lr=1e-2)
    data: Data = Data()
    run: application.Run = application.Run()


SMOKE = Config(
    model=Model(hidden=5, width=5),
    training=application.Training(epochs=2, steps_per_epoch=2),
    data=Data(observations=6, batch_size=4, spirals=8, test_spirals=6),
)


def plan(config: Config) -> application.Plan:
    """Check the flags, settle what depends on others, and say what to do."""
    config = resolve(config)
    problem = load(config)
    return application.Plan(
        config,
        title=problem.title,
        names=(f"latent-{config.data.data}", "ode"),
        source=config.data.data,
        shape=len(problem.names),
        options={
            "latent": config.model.latent,
            "hidden": config.model.hidden,
            "width": config.model.width,
            "solver": config.solver.solver,
        },
        work=functools.partial(train, problem=problem),
    )


def resolve(config: Config) -> Config:
    """Settle the defaults that depend on other flags, and check every value."""
    config.training.check()
    model, data = config.model, config.data
    observations = data.observations
    if observations is None:
        observations = 30 if data.data == "spirals" else 40
    flags.counts(model, "latent", "hidden", "width")
    flags.counts(data, "batch_size", "spirals", "test_spirals")
    flags.counts(data, "observations", least=2)
    flags.counts(data, "grid", least=4 * spirals.TIMES)
    if data.data == "spirals" and observations > spirals.TIMES:
        raise ConfigError(
            f"--observations is {observations}; a spiral has {spirals.TIMES} times to observe."
        )
    for flag, positive in (
        ("--stretch", data.stretch),
        ("--ahead", data.ahead),
        ("--train-fraction", data.train_fraction),
    ):
        flags.positive(flag, positive)
    flags.fraction("--train-fraction", data.train_fraction)
    flags.at_least_zero("--noise", data.noise)
    application.check_solver(config)
    if (data.data == "csv") != (data.csv is not None):
        raise ConfigError("--data csv and --csv FILE go together; one of them is missing.")
    path = data.csv.expanduser().absolute() if data.csv else None
    data = dataclasses.replace(data, observations=observations, csv=path)
    return dataclasses.replace(config, data=data)


def load(config: Config) -> Windows:
    """Windows to learn from and to test with. Raises `DataError`."""
    data, seed = config.data, config.training.seed
    assert data.observations is not None
    if data.data == "spirals":
        return spirals.make(
            data.spirals, data.test_spirals, data.observations, data.noise, data.grid, seed
        )
    return windows.cut(
        mauna_loa() if data.csv is None else read_csv(data.csv),
        title=str(data.csv or "CO2 at Mauna Loa, 1958-2001, years"),
        unit="time" if data.csv else "year",
        stretch=data.stretch,
        ahead=data.ahead,
        observations=data.observations,
        train_fraction=data.train_fraction,
        seed=seed,
    )


def train(session: application.Session, *, problem: Windows) -> None:
    """Train, then predict the test windows; write pictures and tables."""
    config, path = session.config, session.folder.path
    seed, size, latent = config.training.seed, config.data.batch_size, config.model.latent
    batch = lambda step: problem.batch(step, size, latent, seed)
    model = predictions.Trained(session.module, session.learner, problem, latent)
    frames = session.frames()

    def evaluate(epoch: int) -> dict[str, float]:
        few = problem.test[:64]
        found = model.predict(few, samples=8)
        pictures.save_frame(frames / f"{epoch:04d}.npz", model)
        inside, beyond = (
            predictions.rmse(problem, getattr(few, part), found["ODE-RNN"][part].mean(0))
            for part in ("inside", "beyond")
        )
        return {"score": beyond, "rmse_inside": inside, "rmse_beyond": beyond}

    rows = session.train(batch, evaluate, line)
    results = predictions.compare(model, config)
    pictures.series(path / "series.png", model)
    pictures.walk(path / "walk.png", model)
    pictures.animate(path / "training.gif", frames, len(rows), problem)
    session.finish(rows, results, text)


def line(row: dict[str, Any], epochs: int) -> str:
    """One epoch in words."""
    return (
        f"epoch {row['epoch']}/{epochs}  nats a value: RNN encoder {row['train_rnn']:.3f}  "
        f"ODE-RNN {row['train_ode_rnn']:.3f}  test RMSE inside {row['rmse_inside']:.3f}  beyond "
        f"{row['rmse_beyond']:.3f}  {row['seconds_train']:.1f} s"
    )


main = application.main(PROG, EXAMPLES, "latent", Config(), SMOKE, plan)

if __name__ == "__main__":
    sys.exit(main())
