"""Pictures of latent ODEs: predictions with bands, a walk through the latent space, training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy import ndarray

from experiments.harness import figures
from experiments.harness.figures import BLUE, GREEN, GREY, ORANGE
from experiments.harness.files import save_arrays
from experiments.latent.predictions import SAMPLES, Trained
from experiments.latent.windows import Windows

SHOWN = "ODE-RNN"  # the encoder of all pictures
POINTS = 120


def series(path: Path, model: Trained) -> None:
    """Draw test windows: observations, truth, and what is predicted inside, beyond and before."""
    problem = model.problem
    columns = min(4, len(problem.test.observed))
    test, plane = problem.test[:columns], len(problem.names) == 2
    forward, backward = _ahead(problem)
    asks = {"on": forward, "before": backward}
    asks = {name: np.tile(ask, (columns, 1)) for name, ask in asks.items()}
    found = model.sample(test.observed, asks, SAMPLES)[SHOWN]
    ask = test.beyond.times
    rnn = model.forecast(test.observed, ask)
    figure = Figure(figsize=(3.1 * columns, 5.6 if plane else 3.2), dpi=90, layout="constrained")
    axes = figure.subplots(2 if plane else 1, columns, squeeze=False)
    for i in range(columns):
        seen = test.observed.mask[i, :, 0] > 0
        axis = axes[-1, i]
        for name, times, colour in (("on", forward, BLUE), ("before", backward, GREEN)):
            values = found[name][:, i, :, 0] * problem.deviation[0]
            low, high = np.quantile(values, [0.05, 0.95], axis=0)
            axis.fill_between(times * problem.scale, low, high, color=colour, alpha=0.25, lw=0)
            axis.plot(times * problem.scale, values.mean(0), color=colour, lw=1.2)
        for part in (test.before, test.inside, test.beyond):
            _line(axis, problem, part, i, "k.", ms=1.5)
        _line(axis, problem, test.observed, i, "o", color=ORANGE, ms=2.5)
        axis.plot(ask[i] * problem.scale, rnn[i, :, 0] * problem.deviation[0], color=GREY, lw=1)
        axis.axvline(problem.stretch * problem.scale, color=GREY, lw=0.7)
        axis.axvline(0, color=GREY, lw=0.7)
        axis.set_xlabel(problem.unit)
        truth = np.concatenate([p.values[i, :, 0] for p in (test.before, test.inside, test.beyond)])
        _limit(axis.set_ylim, truth * problem.deviation[0])
        if plane:
            _plane(axes[0, i], problem, found, rnn, i, seen)
    axes[-1, 0].set_ylabel(f"{problem.names[0]}, less its mean")
    keys = [
        Line2D([], [], color=ORANGE, marker="o", ls="", ms=4, label="observed"),
        Line2D([], [], color="black", marker=".", ls="-" if plane else "", label="true"),
        Line2D([], [], color=BLUE, label="latent ODE, forwards (band: 90%)"),
        Line2D([], [], color=GREEN, label="latent ODE, backwards"),
        Line2D([], [], color=GREY, label="RNN, forwards"),
    ]
    figure.legend(handles=keys, loc="outside upper center", ncols=len(keys), frameon=False,
                  fontsize=8)  # fmt: skip
    _save(figure, path)


def walk(path: Path, model: Trained) -> None:
    """Draw trajectories along the first two principal directions of `z0` over the test set."""
    problem = model.problem
    plane = len(problem.names) == 2
    mean = model.encode(problem.test.observed)[SHOWN][0]
    centre = mean.mean(0)
    _, widths, directions = np.linalg.svd(mean - centre, full_matrices=False)
    widths, steps = widths / np.sqrt(len(mean)), np.linspace(-1.5, 1.5, 7)
    forward, _ = _ahead(problem)
    rows = min(2, len(widths))
    figure = Figure(figsize=(1.9 * len(steps), 1.9 * rows), dpi=80, layout="constrained")
    axes = figure.subplots(rows, len(steps), sharex=True, sharey=True, squeeze=False)
    for row in range(rows):
        z0 = (centre + steps[:, None] * widths[row] * directions[row]).astype(mean.dtype)
        ask = np.tile(forward[forward <= problem.stretch], (len(steps), 1))
        found = model.decode({"RNN": z0, "ODE-RNN": z0}, ask)[SHOWN] * problem.deviation
        for axis, values, step in zip(axes[row], found, steps, strict=True):
            if plane:
                axis.plot(*values.T, color=BLUE, lw=1.2)
                axis.plot(*values[0], "o", color=ORANGE, ms=3)
            else:
                axis.plot(ask[0] * problem.scale, values[:, 0], color=BLUE, lw=1.2)
            axis.set_title(f"direction {row + 1}: {step:+.1f} sd", fontsize=7)
            axis.tick_params(labelsize=6)
    figure.supxlabel(problem.names[0] if plane else problem.unit, fontsize=8)
    figure.supylabel(
        problem.names[1] if plane else f"{problem.names[0]}, less its mean", fontsize=8
    )
    _save(figure, path)


def save_frame(path: Path, model: Trained) -> None:
    """Keep what the animation shows of an epoch: two test windows."""
    test = model.problem.test[:2]
    forward, backward = _ahead(model.problem)
    ask = {"on": np.tile(forward[::2], (len(test.observed), 1))}
    found = model.sample(test.observed, ask, 8)[SHOWN]["on"]
    save_arrays(path, found=found, times=forward[::2])


def animate(path: Path, frames: Path, epochs: int, problem: Windows) -> None:
    """Write the epochs kept by `save_frame` as an animated GIF."""
    test, plane = problem.test[:2], len(problem.names) == 2
    count = len(test.observed)
    figure = Figure(figsize=(2.9 * count, 2.9), dpi=70, layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]

    def draw(frame: int) -> None:
        with np.load(frames / f"{frame + 1:04d}.npz") as kept:
            found, times = kept["found"] * problem.deviation, kept["times"] * problem.scale
        for i, axis in enumerate(axes):
            axis.clear()
            for sample in found[:, i]:
                axis.plot(*(sample.T if plane else (times, sample[:, 0])), color=BLUE, lw=0.7)
            for part in (test.inside, test.beyond):
                if plane:
                    axis.plot(*(part.values[i] * problem.deviation).T, color="black", lw=0.9)
                else:
                    _line(axis, problem, part, i, "k.", ms=1.5)
            if plane:
                seen = test.observed.values[i] * problem.deviation
                axis.plot(*seen.T, "o", color=ORANGE, ms=2.5)
            else:
                _line(axis, problem, test.observed, i, "o", color=ORANGE, ms=2.5)
            truth = np.concatenate([test.inside.values[i], test.beyond.values[i]])
            if plane:
                _limit(axis.set_xlim, truth[:, 0] * problem.deviation[0])
            _limit(axis.set_ylim, truth[:, plane * 1] * problem.deviation[plane * 1])
            axis.tick_params(labelsize=6)
        axes[0].set_title(f"epoch {frame + 1}", fontsize=8)

    figures.animation(path, figure, draw, epochs)


def _ahead(problem: Windows) -> tuple[ndarray, ndarray]:
    """Times from 0 to the last that is asked for, and from 0 back to the first."""
    last, first = problem.test.beyond.times.max(), problem.test.before.times.min()
    return np.linspace(0, last, POINTS), np.linspace(0, first, POINTS // 2)


def _line(axis: Any, problem: Windows, part: Any, i: int, style: str, **options: Any) -> None:
    """Channel 0 of window `i` against time, where it was observed."""
    seen = part.mask[i, :, 0] > 0
    values = part.values[i, seen, 0] * problem.deviation[0]
    axis.plot(part.times[i, seen] * problem.scale, values, style, **options)


def _plane(axis: Any, problem: Windows, found: Any, rnn: ndarray, i: int, seen: ndarray) -> None:
    """Window `i` of two channels, one against the other."""
    test = problem.test
    scale = lambda values: (values * problem.deviation).T
    for part in (test.before, test.inside, test.beyond):
        axis.plot(*scale(part.values[i]), color="black", lw=0.9)
    for name, colour in (("before", GREEN), ("on", BLUE)):
        for sample in found[name][:10, i]:
            axis.plot(*scale(sample), color=colour, lw=0.5, alpha=0.6)
    axis.plot(*scale(rnn[i]), color=GREY, lw=1)
    axis.plot(*scale(test.observed.values[i, seen]), "o", color=ORANGE, ms=2.5)
    truth = np.concatenate([p.values[i] for p in (test.before, test.inside, test.beyond)])
    for limit, channel in ((axis.set_xlim, 0), (axis.set_ylim, 1)):
        _limit(limit, truth[:, channel] * problem.deviation[channel])


def _limit(setter: Any, values: ndarray) -> None:
    margin = 0.25 * max(float(np.ptp(values)), 1e-6)
    setter(values.min() - margin, values.max() + margin)


def _save(figure: Figure, path: Path) -> None:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    figures.save(path, figure)
