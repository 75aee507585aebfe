"""What a plain Neural ODE cannot do: `python experiments/augmented.py --help`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray
from tyro.conf import arg

from experiments.harness import application, figures, flags
from experiments.harness.figures import BLUE, ORANGE
from experiments.harness.markdown import table

PROG = "augmented.py"
EXAMPLES = """examples:
  python experiments/augmented.py
      a disc inside a ring: a plain and an augmented Neural ODE
  python experiments/augmented.py --framework torch --extra 2
"""
NAMES = {"plain": "Neural ODE", "augmented": "augmented Neural ODE"}


@dataclass(frozen=True)
class Model(application.Backend):
    """Both vector fields, tanh networks."""

    width: Annotated[int, arg(metavar="N")] = 32
    """Units of every hidden layer."""
    extra: Annotated[int, arg(metavar="N")] = 1
    """Components that the augmented one adds."""


@dataclass(frozen=True)
class Solver:
    """How the fields are solved in training, by rk4. Evaluation uses dopri5 at 1e-5."""

    steps: Annotated[int, arg(metavar="N")] = 20
    """Steps from 0 to 1: few large ones could step across what a flow cannot cross."""


@dataclass(frozen=True)
class Data:
    """A disc of radius 0.5 and a ring of radii 1 and 1.5, as many points in each on average."""

    batch_size: Annotated[int, arg(metavar="N")] = 128
    """Points a step, drawn afresh."""
    test_size: Annotated[int, arg(metavar="N")] = 2000
    """Points to test with."""


@dataclass(frozen=True)
class Config:
    """Classify nested discs by a plain and by an augmented Neural ODE (Dupont et al. 2019).

    Writes a run folder with config.json, metrics.jsonl, checkpoints, summary.json, summary.md,
    end.png and flow.gif.
    """

    model: Model = Model()
    solver: Solver = Solver()
    training: application.Training = application.Training(epochs=10, steps_per_epoch=200)
    data: Data = Data()
    run: application.Run = application.Run()


SMOKE = Config(
    model=Model(width=8),
    solver=Solver(steps=2),
    training=application.Training(epochs=2, steps_per_epoch=2),
    data=Data(batch_size=8, test_size=20),
)


def plan(config: Config) -> application.Plan:
    """Check the flags, and say what to do."""
    config.training.check()
    model, solver, data = config.model, config.solver, config.data
    flags.counts(model, "width", "extra")
    flags.counts(solver, "steps")
    flags.counts(data, "batch_size", "test_size")
    return application.Plan(
        config,
        title=f"a disc in a ring, 2 dimensions, {data.test_size} test points",
        names=("augmented-discs", "field"),
        source="drawn",
        shape=2,
        options={"extra": model.extra, "width": model.width, "steps": solver.steps},
        work=train,
    )


def sample(generator: np.random.Generator, count: int) -> dict[str, ndarray]:
    """Points `x` `[count, 2]`, uniform in the disc (`label` 0) or in the ring (`label` 1)."""
    label = generator.integers(0, 2, count).astype(float)
    inner, outer = np.where(label == 1, 1.0, 0.0), np.where(label == 1, 1.5, 0.5)
    radius = np.sqrt(generator.uniform(inner**2, outer**2))
    angle = generator.uniform(0, 2 * np.pi, count)
    return {"x": radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1), "label": label}


def train(session: application.Session) -> None:
    """Train both, then write the table and the pictures."""
    config = session.config
    seed = config.training.seed
    test = sample(np.random.default_rng([seed, 1]), config.data.test_size)
    draw = lambda step: sample(np.random.default_rng([seed, 0, step]), config.data.batch_size)

    def evaluate(epoch: int) -> dict[str, float]:
        *logits, plain, augmented = session.apply("evaluate", x=test["x"])
        row = {"nfe_plain": float(plain), "nfe_augmented": float(augmented)}
        for name, logit in zip(NAMES, logits, strict=True):
            signed = logit * (2 * test["label"] - 1)
            row[f"loss_{name}"] = float(np.mean(np.logaddexp(0, -signed)))
            # Of a failed solve all points count as wrong.
            row[f"error_{name}"] = float(100 * np.mean(~(signed > 0)))
        return {"score": row["loss_augmented"], **row}

    rows = session.train(draw, evaluate, line)
    paths = session.apply("paths", x=test["x"][:400], ts=np.linspace(0, 1, 16))
    named = dict(zip(NAMES.values(), paths, strict=True))
    draw_paths(session.folder.path, named, test["label"][:400])
    first, last = (
        {name: value for name, value in row.items() if name.endswith(tuple(NAMES))}
        for row in (rows[0], rows[-1])
    )
    session.finish(rows, {"first": first, "last": last}, text)


def text(summary: dict[str, Any]) -> str:
    """The table of a run's summary.json: both classifiers, in Markdown."""
    first, last = summary["first"], summary["last"]
    headers = ["dopri5 at 1e-5", "cross-entropy", "test error, %", "NFE, first epoch", "NFE, last"]
    body = [
        [name, *(last[f"{what}_{key}"] for what in ("loss", "error")),
         *(row[f"nfe_{key}"] for row in (first, last))]
        for key, name in NAMES.items()
    ]  # fmt: skip
    return table(headers, body)


def draw_paths(
    folder: Path, paths: dict[str, Float[ndarray, "times points dim"]], label: ndarray
) -> None:
    """Draw the points on their way (flow.gif), and at the start and the end (end.png)."""
    figure = Figure(figsize=(7.4, 3.7), dpi=64, layout="constrained")
    axes = figure.subplots(1, len(paths))
    count = len(next(iter(paths.values())))

    def frame(at: int) -> None:
        for axis, (name, ys) in zip(axes, paths.items(), strict=True):
            axis.clear()
            _points(axis, ys, at, label)
            axis.set_title(f"{name}, t = {at / (count - 1):.2f}", fontsize=9)

    figures.animation(folder / "flow.gif", figure, frame, count)
    figure = Figure(figsize=(10.5, 3.6), dpi=90, layout="constrained")
    start, *axes = figure.subplots(1, 1 + len(paths))
    plane = next(iter(paths.values()))[:, :, :2]
    _points(start, plane[:1], 0, label)
    start.set_title("both, t = 0", fontsize=9)
    start.set_aspect("equal")
    start.legend(loc="upper right", fontsize=8, markerscale=3)
    for axis, (name, ys) in zip(axes, paths.items(), strict=True):
        _points(axis, ys, -1, label)
        axis.set_title(f"{name}, t = 1", fontsize=9)
    figures.save(folder / "end.png", figure)


def _points(axis: Axes, ys: Float[ndarray, "times points dim"], at: int, label: ndarray) -> None:
    """Both classes at a time; of more than two components the first and the first added one."""
    seen = ys[:, :, [0, -1]]
    for value, colour, name in ((0, BLUE, "disc"), (1, ORANGE, "ring")):
        axis.plot(*seen[at, label == value].T, ".", ms=3, color=colour, label=name)
    reach = 1.05 * np.nanmax(np.abs(seen), axis=(0, 1))
    axis.set(xlim=(-reach[0], reach[0]), ylim=(-reach[1], reach[1]), xlabel="first component")
    axis.set_ylabel("added component" if ys.shape[2] > 2 else "second component")


def line(row: dict[str, Any], epochs: int) -> str:
    """One epoch in words."""
    return (
        f"epoch {row['epoch']}/{epochs}  test error: plain {row['error_plain']:.2f} %  augmented "
        f"{row['error_augmented']:.2f} %  NFE {row['nfe_plain']:.0f} and "
        f"{row['nfe_augmented']:.0f}  {row['seconds_train']:.1f} s"
    )


main = application.main(PROG, EXAMPLES, "augmented", Config(), SMOKE, plan)

if __name__ == "__main__":
    sys.exit(main())
