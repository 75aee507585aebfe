"""Fit continuous normalising flows to densities: `python experiments/cnf.py --help`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from tyro.conf import arg

from experiments.flows import densities, pictures
from experiments.harness import application, flags
from experiments.harness.markdown import table

PROG = "cnf.py"
EXAMPLES = """examples:
  python experiments/cnf.py --density moons
      two moons by likelihood, by flow matching and by a discrete flow, a few minutes
  python experiments/cnf.py --density wine --lr 0.001 --epochs 40 --steps-per-epoch 20
      178 wines with 13 measurements each: so few that each flow is taken at its best epoch
"""
FLOWS = ("cnf", "matching", "coupling")
TRUTH, NORMAL = "true density", "normal distribution, full covariance"
BOX, GRID = 6.0, 160  # the density is integrated over [-6, 6]^2


@dataclass(frozen=True)
class Model(application.Backend):
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
    """Four that are known, fresh samples at every step, or a table of 178 rows."""
    batch_size: Annotated[int, arg(metavar="N")] = 256
    """Samples a step."""
    test_size: Annotated[int, arg(metavar="N")] = 4000
    """Samples to test with; of the table, a fifth whatever this says."""


@dataclass(frozen=True)
class Config:
    """Fit a continuous normalising flow by likelihood and by flow matching, and a discrete flow.

    Writes a run folder with config.json, metrics.jsonl, checkpoints, summary.json, summary.md,
    densities.png and flow.gif (the pictures for two dimensions).
    """

    model: Model = Model()
    solver: Solver = Solver()
    training: application.Training = application.Training(epochs=10, steps_per_epoch=400)
    data: Data = Data()
    run: application.Run = application.Run()


SMOKE = Config(
    model=Model(width=8, layers=2),
    solver=Solver(steps=2),
    training=application.Training(epochs=2, steps_per_epoch=2),
    data=Data(batch_size=8, test_size=20),
)


def plan(config: Config) -> application.Plan:
    """Check the flags, and say what to do."""
    config.training.check()
    model, solver, data = config.model, config.solver, config.data
    flags.counts(model, "width", "layers")
    flags.counts(solver, "steps")
    flags.counts(data, "batch_size", "test_size")
    draw, samples = load(config)
    count, dim = samples.test.shape
    return application.Plan(
        config,
        title=f"{data.density}, {dim} dimensions, {count} test samples",
        names=(f"cnf-{data.density}", "flow"),
        source=data.density,
        shape=dim,
        options={
            "width": model.width,
            "layers": model.layers,
            "trace": solver.trace,
            "steps": solver.steps,
        },
        work=functools.partial(train, draw=draw, samples=samples),
    )


class Samples(NamedTuple):
    """Samples to choose an epoch by and to test with; of a table, also the rows to learn from."""

    valid: np.ndarray
    test: np.ndarray
    rows: np.ndarray | None


def load(config: Config) -> tuple[Callable[[int], dict[str, np.ndarray]], Samples]:
    """What a step is trained on, drawn from the seed and the step's number, and the samples."""
    seed, name, count = config.training.seed, config.data.density, config.data.batch_size
    if name == "wine":
        rows, valid, test = densities.split(densities.wine(), seed)
        samples = Samples(valid, test, rows)
    else:
        test = densities.sample(name, np.random.default_rng([seed, 1]), config.data.test_size)
        samples = Samples(test[:1000], test, None)

    def draw(step: int) -> dict[str, np.ndarray]:
        generator = np.random.default_rng([seed, 0, step])
        if samples.rows is not None:
            x = samples.rows[generator.integers(0, len(samples.rows), count)]
        else:
            x = densities.sample(name, generator, count)
        return densities.with_chance(x, generator)

    return draw, samples


def train(
    session: application.Session, *, draw: Callable[[int], dict[str, np.ndarray]], samples: Samples
) -> None:
    """Train, then compare the flows; write pictures and tables."""
    layers = session.config.model.layers
    names = ("continuous, likelihood", "continuous, flow matching", f"discrete, {layers} couplings")

    def evaluate(epoch: int) -> dict[str, float]:
        found = nats(session, samples.valid)
        row = {"score": found["cnf"], **{f"nll_{flow}": nll for flow, nll in found.items()}}
        if samples.rows is not None:  # each flow is tested at the epoch that validation chooses
            row |= {f"test_{flow}": nll for flow, nll in nats(session, samples.test).items()}
        return row

    rows = session.train(draw, evaluate, line)
    back = session.apply("round_trip", x=samples.valid)
    error = float(np.abs(back - samples.valid).max())
    if samples.rows is None:
        results = compare_densities(session, names, samples.test)
    else:
        results = compare_table(rows, names, samples)
    shared = {"trace": session.config.solver.trace, "round_trip_error": error}
    session.finish(rows, {**shared, **results}, text)


def nats(session: application.Session, x: np.ndarray) -> dict[str, float]:
    """Mean negative log-likelihood of each flow."""
    found = session.apply("evaluate", x=x)
    return {flow: float(-np.mean(logp)) for flow, logp in zip(FLOWS, found, strict=True)}


def compare_densities(
    session: application.Session, names: Sequence[str], test: np.ndarray
) -> dict[str, Any]:
    """Negative log-likelihoods and integrals, for summary.json; draws the pictures.

    The flows are those after the last epoch: every step had fresh samples.
    """
    density, folder = session.config.data.density, session.folder.path
    least = float(-np.mean(densities.log_density(density, test)))
    nll = dict(zip(names, nats(session, test).values(), strict=True))
    points, area = pictures.grid(BOX, GRID)
    chunks = [session.apply("evaluate", x=c) for c in np.split(points, GRID // 8)]
    fields = dict(zip(names, map(np.concatenate, zip(*chunks, strict=True)), strict=True))
    mass = {name: float(np.exp(f.astype(float)).sum() * area) for name, f in fields.items()}
    noise = np.random.default_rng(0).normal(size=(1000, 2))
    ts = np.linspace(0, 1, 21)
    paths = session.apply("generate", noise=noise, ts=ts)
    fields[TRUTH] = densities.log_density(density, points)
    pictures.densities(folder / "densities.png", fields, BOX, GRID)
    pictures.flow(folder / "flow.gif", dict(zip(names[:2], paths, strict=True)), ts)
    return {"nll": {**nll, TRUTH: least}, "mass": mass}


def compare_table(
    rows: Sequence[dict[str, Any]], names: Sequence[str], samples: Samples
) -> dict[str, Any]:
    """Likelihoods of each flow at the epoch that was best on the rows to choose by."""
    assert samples.rows is not None
    nll, best = {}, {}
    for name, flow in zip(names, FLOWS, strict=True):
        valid = np.array([row[f"nll_{flow}"] for row in rows], float)  # null becomes NaN
        if np.isnan(valid).all():
            nll[name] = np.nan
            continue
        row = rows[int(np.nanargmin(valid))]
        nll[name], best[name] = row[f"test_{flow}"], row["epoch"]
    nll[NORMAL] = float(-np.mean(densities.gaussian(samples.rows, samples.test)))
    return {"nll": nll, "best_epoch": best}


def text(summary: dict[str, Any]) -> str:
    """The table of a run's summary.json, of a known density or of a table, in Markdown."""
    nll = summary["nll"]
    if TRUTH in nll:
        columns = ["integral of the density", "above the true value"]
        mass = {TRUTH: "1"} | {name: f"{value:.5f}" for name, value in summary["mass"].items()}
        body = [[name, value, mass[name], value - nll[TRUTH]] for name, value in nll.items()]
    else:
        columns, best = ["epoch, best on the validation rows"], summary["best_epoch"]
        epoch = lambda name: f"{best[name]} of {summary['epochs']}" if name in best else "-"
        body = [[name, value, epoch(name)] for name, value in nll.items()]
    return (
        f"{table(['negative log-likelihood, nats', 'test', *columns], body)}\n"
        f"Trace in training: {summary['trace']}. Largest error of a round trip, data to noise and "
        f"back: {summary['round_trip_error']:.1e} (two solves at 1e-5 a step).\n"
    )


def line(row: dict[str, Any], epochs: int) -> str:
    """One epoch in words."""
    return (
        f"epoch {row['epoch']}/{epochs}  test nats: likelihood {row['nll_cnf']:.4f}  "
        f"flow matching {row['nll_matching']:.4f}  discrete {row['nll_coupling']:.4f}  "
        f"{row['seconds_train']:.1f} s"
    )


main = application.main(PROG, EXAMPLES, "cnf", Config(), SMOKE, plan)

if __name__ == "__main__":
    sys.exit(main())
