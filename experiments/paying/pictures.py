"""What every method reached, as points with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.harness.figures import (
    BLUE,
    GREY,
    LIGHT_BLUE,
    LIGHT_ORANGE,
    ORANGE,
    bare,
    dotted,
    intervals,
    plain_log,
)
from experiments.paying.protocol import Task, Verdict
from experiments.paying.record import Record
from experiments.section3.intervals import interval

VERDICTS = {"does not pay": ORANGE, "not decided": GREY, "pays": BLUE}
COLOURS = {"Neural ODE": BLUE, "baseline": ORANGE, "trivial": GREY}


def scores(record: Record, budget: float) -> Figure:
    """A row for every method that has runs and did not fail, the best by validation on top: a dot
    for each seed, a line for the 95% interval of their mean. Minus a quantity is drawn as that.
    """
    methods = record.task.methods
    measure = record.task.measure.removeprefix("minus the ")
    sign, better = (1, "smaller") if measure == record.task.measure else (-1, "larger")
    found = {name: record.scores(name, budget) for name in methods if record.tests(name, budget)}
    found = {n: parts for n, parts in found.items() if all(map(math.isfinite, parts["test"]))}
    order = sorted(found, key=lambda name: -sum(found[name]["validation"]))
    figure = Figure(figsize=(7.2, 1.3 + 0.34 * len(order)), dpi=110, layout="constrained")
    axis = figure.subplots()
    tests = {name: [sign * score for score in found[name]["test"]] for name in order}
    values = [score for test in tests.values() for score in test]
    least, wide = min(values), 0 < 10 * min(values) < max(values)
    for row, name in enumerate(order):
        colour, test = COLOURS[methods[name].kind], tests[name]
        axis.plot(test, [row] * len(test), "o", color=colour, ms=4, alpha=0.7)
        mean = interval(test)
        low = max(mean.low, least / 2) if wide else mean.low
        axis.plot([low, mean.high], [row, row], color=colour, lw=1.4)
    if wide:
        axis.set_xscale("log")
        axis.set_xlim(left=least / 2)  # where a line that reaches 0 or below leaves the picture
        plain_log(axis.xaxis)
    axis.set_yticks(range(len(order)), [methods[name].title for name in order])
    axis.set_xlabel(f"{measure}; the {better} the better")
    figure.suptitle(f"{record.task.title}: {budget:g} CPU seconds a training", fontsize=10)
    bare(axis)
    keys = [Line2D([], [], color=c, marker="o", ms=4, label=kind) for kind, c in COLOURS.items()]
    figure.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def gains(ended: Sequence[tuple[Task, Verdict]]) -> Figure:
    """The gain of the Neural ODE with its interval: a row a task, a panel a unit, by verdict.

    Relative gains are drawn as the rival's error divided by the Neural ODE's, on a log axis.
    """
    panels: dict[tuple[bool, str], list[tuple[Task, Verdict]]] = {}
    for task, verdict in ended:
        panels.setdefault((task.relative, task.unit), []).append((task, verdict))
    heights = [1 + len(rows) for rows in panels.values()]
    figure = Figure(figsize=(8, 1 + 0.33 * sum(heights)), dpi=110, layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for axis, ((relative, unit), rows) in zip(axes, panels.items(), strict=True):
        rows.sort(key=lambda pair: pair[1].gain.mean)
        shown = np.exp if relative else np.asarray
        ends = [shown([of.gain.low, of.gain.mean, of.gain.high]) for _, of in rows]
        named = [
            (task.title, *end, VERDICTS[of.words])
            for (task, of), end in zip(rows, ends, strict=True)
        ]
        intervals(axis, named)
        axis.set_ylim(-0.6, len(rows) - 0.4)
        axis.axvline(1 if relative else 0, color=GREY, lw=1, zorder=0)
        if relative:
            axis.set_xscale("log")
            plain_log(axis.xaxis)
        ratio = "error of the best rival / of the Neural ODE (above 1: it is better)"
        ahead = f"{unit} ahead of the best rival (above 0: it is better)"
        axis.set_xlabel(ratio if relative else ahead, fontsize=9)
        bare(axis)
    figure.legend(handles=dotted(VERDICTS), loc="outside upper center", ncols=3, frameon=False)
    return figure


def sparser(records: dict[int, Record]) -> Figure:
    """Error of four methods by the number of times observed: a dot a seed, a line of their means.

    The methods are a latent ODE and a recurrent network, each of two kinds.
    """
    drawn = {"latent": BLUE, "ode-rnn": LIGHT_BLUE, "decay": ORANGE, "free": LIGHT_ORANGE}
    task = next(iter(records.values())).task
    figure = Figure(figsize=(7.2, 3.8), dpi=110, layout="constrained")
    axis = figure.subplots()
    for name, colour in drawn.items():
        tests = {n: r.scores(name, r.task.seconds)["test"] for n, r in records.items()}
        means = [np.mean(test) for test in tests.values()]
        axis.plot(list(tests), means, color=colour, label=task.methods[name].title)
        for n, test in tests.items():
            axis.plot([n] * len(test), test, "o", color=colour, ms=4, alpha=0.7)
    axis.set(xscale="log", yscale="log", xlabel="times observed of 100")
    axis.set_ylabel(task.measure)
    axis.set_xticks(list(records), [str(n) for n in records])
    axis.minorticks_off()
    plain_log(axis.yaxis)
    bare(axis)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure
