"""The figures of docs/results-*.md, from a study's record (see `collect`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.harness.figures import (
    BLUE,
    GREY,
    PURPLE,
    bare,
    plain_log,
    save,
)
from experiments.section3 import grid
from experiments.section3.collect import Record
from experiments.section3.difference_figure import differences
from experiments.section3.evidence import done, ode_net, over_images
from experiments.section3.examined import change, image_error, image_errors, solver_rows
from experiments.section3.intervals import Interval
from experiments.section3.look import COLORS, SHORT, title
from experiments.section3.tables import values

LABEL_POINTS = 8


def draw(record: Record, folder: Path, prefix: str) -> dict[str, str]:
    """Write all pictures into `folder`; their file names by figure, those without data left out."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {}
    for make in (differences, curves, characteristics, depth, solvers, robustness):
        if figure := make(record):
            names[make.__name__] = f"{prefix}-{make.__name__}.png"
            save(folder / names[make.__name__], figure)
    return names


def curves(record: Record) -> Figure | None:
    """Training loss, validation loss and test error against the epoch: means over runs."""
    names = [name for name in (*grid.MAIN[:-1], ode_net(record)) if done(record, name)]
    if not names:
        return None
    rows = [row for name in names for run in done(record, name) for row in run["rows"]]
    held_out = "validation" if all("validation_loss" in row for row in rows) else "test"
    figure, axes = _figure(3)
    for axis, key, label in zip(
        axes,
        ("train_loss", f"{held_out}_loss", "test_error"),
        ("Training loss (nats)", f"{held_out.capitalize()} loss (nats)", "Test error (%)"),
        strict=True,
    ):
        ends = [_line(axis, record, name, key) for name in names]
        axis.set(title=label, xlabel="epoch", yscale="log")
        plain_log(axis.yaxis)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        label_ends(axis, ends, [(title(name), COLORS[name]) for name in names])
    return figure


def characteristics(record: Record) -> Figure | None:
    """Figure 3 of the paper: error, time and backward NFE against forward NFE; NFE in training."""
    names = [name for name in ("odenet", "odenet-adjoint") if done(record, name)]
    if not names:
        return None
    looked_at = any("examined" in run for name in names for run in done(record, name))
    figure, axes = _figure(4 if looked_at else 1)
    if looked_at:
        _against_nfe(axes, record, names)
    ends, labels = [], []
    for name in names:
        for way, dash in (("forward", "-"), ("backward", ":")):
            ends.append(_line(axes[-1], record, name, f"nfe_{way}", dash))
            labels.append((f"{SHORT[name].partition(', ')[2]}, {way}", COLORS[name]))
    axes[-1].set(title="d) NFE in training", xlabel="epoch", ylim=(0, None))
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    label_ends(axes[-1], ends, labels)
    return figure


def _against_nfe(axes: Sequence[Axes], record: Record, names: Sequence[str]) -> None:
    """Panels a to c: error, time and backward NFE of trained networks at several tolerances."""
    for name in names:
        rows = [of for key, of in solver_rows(record, name).items() if key[0] == "dopri5"]
        if not rows:
            continue
        column = lambda key, rows=rows: np.array([np.mean([r[key] for r in of]) for of in rows])
        style: dict[str, Any] = {"color": COLORS[name], "label": SHORT[name], "s": 22}
        errors = column("logit_error")
        axes[0].scatter(column("nfe_forward")[errors > 0], errors[errors > 0], **style)
        # The fastest seed: other work on the machine only adds to the time.
        fastest = [min(row["seconds_per_step"] for row in of) for of in rows]
        axes[1].scatter(column("step_nfe_forward"), fastest, **style)
        axes[2].scatter(column("step_nfe_forward"), column("step_nfe_backward"), **style)
    limit = max(axes[2].get_xlim()[1], 1.0)
    axes[2].plot([0, limit], [0, limit], color="#bbb", linewidth=0.8, zorder=0)
    axes[0].set(title="a) Error of the logits", xlabel="NFE forward", yscale="log")
    axes[1].set(title="b) Time of a training step (s)", xlabel="NFE forward")
    axes[2].set(title="c) NFE backward", xlabel="NFE forward")
    if axes[2].collections:
        axes[2].legend(frameon=False, fontsize=8)


def depth(record: Record) -> Figure | None:
    """Test error against compute and parameters: ResNets of several depths, and ODE-Net."""
    resnets = [name for name in grid.DEPTH[:-1] if done(record, name)]
    one = ode_net(record)
    if not resnets or not done(record, one):
        return None
    figure, axes = _figure(2)
    for axis, key, label in (
        (axes[0], "cpu_seconds_per_epoch", "CPU seconds an epoch"),
        (axes[1], "parameters", "parameters"),
    ):
        for names, color, side, offset in (
            (resnets, COLORS["resnet6"], "right", (-4, 3)),
            ([one], COLORS["odenet"], "left", (5, -9)),
        ):
            x = [float(np.median(values(record, name, key))) for name in names]
            found = [over_images(record, name) for name in names]
            _errorbars(axis, x, found, color, "", line=True)
            for at, of, name in zip(x, found, names, strict=True):
                text = "ODE-Net" if name == one else name.removeprefix("resnet")
                axis.annotate(text, (at, of.mean), xytext=offset, textcoords="offset points",
                              ha=side, fontsize=LABEL_POINTS, color=color)  # fmt: skip
        axis.set(title="Test error (%)", xlabel=label, xscale="log")
        axis.margins(x=0.15)
        plain_log(axis.xaxis)
    axes[0].text(0.98, 0.97, "orange: ResNet, by number of blocks", transform=axes[0].transAxes,
                 fontsize=7, color=COLORS["resnet6"], ha="right", va="top")  # fmt: skip
    return figure


def solvers(record: Record) -> Figure | None:
    """Change of the test error when tolerance or solver are changed after training."""
    names = [n for n in ("odenet", "odenet-adjoint", "rknet") if solver_rows(record, n)]
    if not names:
        return None
    figure, axes = _figure(len(names))
    styles = {"dopri5": ("o", BLUE), "euler": ("s", GREY), "rk4": ("^", PURPLE)}
    for axis, name in zip(axes, names, strict=True):
        rows = solver_rows(record, name)
        for solver, (marker, color) in styles.items():
            keys = [key for key in rows if key[0] == solver]
            if not keys:
                continue
            x = [float(np.mean([row["nfe_forward"] for row in rows[key]])) for key in keys]
            found = [change(record, name, *key) for key in keys]
            _errorbars(axis, x, found, color, solver, marker=marker)
        axis.set(title=f"{SHORT[name]}, trained", xlabel="NFE of the solver tested with")
        axis.set(xscale="log", ylabel="change of the test error (points)")
        axis.axhline(0, color="#bbb", linewidth=0.8, zorder=0)
        plain_log(axis.xaxis)
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def robustness(record: Record) -> Figure | None:
    """Test error under noise, shift and rotation."""
    names = [n for n in (ode_net(record), *grid.MAIN[:-1]) if image_errors(record, n)]
    if not names:
        return None
    figure, axes = _figure(3)
    for axis, kind, label in zip(
        axes,
        ("noise", "shift", "rotation"),
        ("standard deviation, white is 1", "pixels", "degrees"),
        strict=True,
    ):
        for place, name in enumerate(names):
            changes = [of for of in image_errors(record, name) if of[0] in ("none", kind)]
            found = [image_error(record, name, of) for of in changes]
            most = max(amount for _, amount in changes)
            # side by side, or the intervals of one hide those of another
            aside = 0.025 * most * (place - (len(names) - 1) / 2)
            amounts = [amount + aside for _, amount in changes]
            _errorbars(axis, amounts, found, COLORS[name], title(name), line=True)
        axis.set(title=kind.capitalize(), xlabel=label)
    axes[0].set_ylabel("test error (%)")
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def _figure(panels: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(3.6 * panels, 3.5), dpi=110, layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(1, panels)))
    for axis in axes:
        bare(axis)
        axis.title.set_fontsize(10)
    return figure, axes


def _line(axis: Axes, record: Record, name: str, key: str, style: str = "-") -> tuple[float, float]:
    """Mean over runs against the epoch; returns the line's last point."""
    runs: list[list[dict[str, Any]]] = [run["rows"] for run in done(record, name)]
    epochs = [row["epoch"] for row in runs[0]]
    mean = np.mean([[row[key] for row in rows] for rows in runs], axis=0)
    axis.plot(epochs, mean, style, color=COLORS[name], linewidth=1.4)
    return epochs[-1], float(mean[-1])


def label_ends(
    axis: Axes, ends: Sequence[tuple[float, float]], labels: Sequence[tuple[str, str]]
) -> None:
    """Write (text, colour) to the right of lines' last points, moved apart where they collide."""
    if not ends:
        return
    axis.margins(x=0.02)
    figure = axis.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # the scale of the axis is only then settled
    heights = axis.transData.transform(ends)[:, 1]
    gap = LABEL_POINTS * 1.25 * figure.dpi / 72
    order = np.argsort(heights)
    steps = gap * np.arange(len(ends))
    apart = scipy.optimize.isotonic_regression(heights[order] - steps).x + steps
    for index, height in zip(order, apart, strict=True):
        text, color = labels[index]
        axis.annotate(
            text, ends[index], xytext=(6, (height - heights[index]) * 72 / figure.dpi),
            textcoords="offset points", color=color, fontsize=LABEL_POINTS, va="center",
            annotation_clip=False,
        )  # fmt: skip


def _errorbars(
    axis: Axes,
    x: Sequence[float],
    found: Sequence[Interval],
    color: str,
    label: str,
    *,
    line: bool = False,
    marker: str = "o",
) -> None:
    known = lambda end, of: 0.0 if math.isnan(of.half) else abs(end - of.mean)
    ends = [[known(of.low, of) for of in found], [known(of.high, of) for of in found]]
    axis.errorbar(
        x, [of.mean for of in found], ends, fmt=f"{marker}-" if line else marker, color=color,
        label=label, markersize=4, linewidth=1, capsize=2,
    )  # fmt: skip
