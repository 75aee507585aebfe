"""Tables and figures of precision against work, from the cells of the solver study."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.harness.figures import (
    BLUE,
    GREEN,
    GREY,
    LIGHT_BLUE,
    ORANGE,
    PURPLE,
    bare,
    plain_log,
    save,
)
from experiments.harness.markdown import table
from experiments.solving import precision as study
from experiments.solving.problems import problems

OURS = "jax adams"
TARGET = 1.25  # our NFE over VODE's and LSODA's at equal error, in the median
# Tolerances between which ratios are taken, by name.
ALL, TIGHT, LOOSE = "all problems", "all, rtol <= 1e-8", "all, rtol >= 1e-4"
RANGES = {ALL: (0.0, 1.0), TIGHT: (0.0, 1e-8), LOOSE: (1e-4, 1.0)}
SHOWN = ("A3", "B4", "C5", "D3", "E2", "Pleiades", "Arenstorf", "Lotka-Volterra")
LOOK = {  # of those drawn, colour and line; torch's dopri5 and dopri8 lie on jax's
    "jax adams": (BLUE, "o-"),
    "scipy vode": (LIGHT_BLUE, "s-"),
    "scipy lsoda": (GREEN, "^-"),
    "torch implicit_adams": (PURPLE, "d:"),
    "jax dopri5": (ORANGE, "o-"),
    "jax dopri8": (GREY, "s-"),
}


def page(cells: Sequence[dict[str, Any]], folder: Path) -> str:
    """Write the two figures; return the tables."""
    found = {(cell["method"], cell["problem"]): cell for cell in cells}
    work_precision(found, folder / "work-precision.png")
    mine = [cell for cell in cells if cell["method"] == OURS]
    if not mine:
        return "No results of the adaptive Adams method yet.\n"
    others = [m for m in study.METHODS if m != OURS and any(key[0] == m for key in found)]
    ratios = {
        (other, title): {
            cell["problem"]: values
            for cell in mine
            if (other, cell["problem"]) in found
            and (values := study.ratios(cell, found[other, cell["problem"]], within))
        }
        for other in others
        for title, within in RANGES.items()
    }
    ratio_figure(ratios, folder / "nfe-ratio.png")
    group_of = {cell["problem"]: cell["group"] for cell in mine}
    groups = [g for g in dict.fromkeys(p.group for p in problems()) if g in group_of.values()]
    medians = lambda of, group: [np.median(v) for p, v in of.items() if group_of[p] == group]
    rows = [[g, *(median(medians(ratios[o, ALL], g)) for o in others)] for g in groups]
    for title in RANGES:
        rows.append([title, *(median(map(np.median, ratios[o, title].values())) for o in others)])
    parts = [
        "NFE of `adams` over NFE of another solver at equal error: the median over tolerances for "
        "each problem, then over the problems. Below 1 `adams` needs fewer.\n",
        table(["", *others], rows),
        "How the error follows the tolerance: the exponent p of error ~ tolerance^p, fitted to "
        "each problem, and the error in units of the tolerance.\n",
        proportionality(cells),
        "The targets:\n",
        targets(found, ratios),
    ]
    return "\n".join(parts)


def median(values: Iterable[float]) -> float | str:
    """The median, or a dash if there is nothing."""
    kept = [value for value in values if np.isfinite(value)]
    return float(np.median(kept)) if kept else "-"


def proportionality(cells: Sequence[dict[str, Any]]) -> str:
    """A table of slopes and of error over tolerance, method by method."""
    rows = []
    for method in study.METHODS:
        mine = [cell for cell in cells if cell["method"] == method and "tolerances" in cell]
        slopes = [s for cell in mine if np.isfinite(s := study.slope(cell))]
        if not slopes:
            continue
        over = [
            e / t
            for cell in mine
            for e, t in zip(cell["errors"], cell["tolerances"], strict=True)
            if e is not None
        ]
        failed = sum(e is None for cell in mine for e in cell["errors"])
        low, high = np.quantile(slopes, [0.1, 0.9])
        rows.append(
            [method, float(np.median(slopes)), f"{low:.2f} to {high:.2f}", float(np.median(over)),
             float(np.quantile(over, 0.9)), failed]
        )  # fmt: skip
    return table(
        ["", "p, median", "p, 10 to 90 %", "error / tolerance, median", "90 %", "failed solves"],
        rows,
    )


def targets(found: dict, ratios: dict) -> str:
    """Which of the targets hold, by the numbers."""
    lines = []
    for other in ("scipy vode", "scipy lsoda"):
        value = median(map(np.median, ratios.get((other, ALL), {}).values()))
        if isinstance(value, float):
            verdict = "holds" if value <= TARGET else "does not hold"
            lines.append(f"- at most {TARGET} x {other} in the median: {value:.2f}, {verdict}.\n")
    for other in ("jax dopri5", "jax tsit5"):
        by_problem = ratios.get((other, TIGHT), {})
        flat = [value for values in by_problem.values() for value in values]
        if not flat:
            continue
        same = [
            a < b
            for (method, problem), cell in found.items()
            if method == OURS and (other, problem) in found
            for t, a, b in zip(
                cell["tolerances"], cell["nfe"], found[other, problem]["nfe"], strict=True
            )
            if t <= RANGES[TIGHT][1] and a is not None and b is not None
        ]
        fewer = sum(value < 1 for value in flat)
        worst = max(by_problem, key=lambda name: float(np.median(by_problem[name])))
        lines.append(
            f"- fewer than {other} at rtol <= 1e-8: at equal error in {fewer} "
            f"of {len(flat)} comparisons (worst problem {worst}, ratio "
            f"{np.median(by_problem[worst]):.2f}), at equal tolerance in {sum(same)} of "
            f"{len(same)}.\n"
        )
    return "".join(lines)


def work_precision(found: dict, path: Path) -> None:
    """Error against NFE, one panel a problem."""
    names = [n for n in SHOWN if (OURS, n) in found] or sorted({key[1] for key in found})[:8]
    rows = -(-len(names) // 4)
    figure = Figure(figsize=(12, 3.3 * rows), dpi=110, layout="constrained")
    axes = figure.subplots(rows, min(4, len(names)), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        for method, (colour, line) in LOOK.items():
            cell = found.get((method, name), {"nfe": [], "errors": []})
            pairs = zip(cell["nfe"], cell["errors"], strict=True)
            if points := [(n, e) for n, e in pairs if e is not None and 0 < e < 10]:
                style = {"color": colour, "ms": 3, "lw": 1 + (method == OURS), "label": method}
                axis.loglog(*zip(*points, strict=True), line, **style)
        axis.set_title(f"DETEST {name}" if len(name) == 2 else name, fontsize=10)
        plain_log(axis.xaxis, (1, 3))
        bare(axis)
    for axis in axes[-1]:
        axis.set_xlabel("evaluations of the vector field")
    for axis in axes[:, 0]:
        axis.set_ylabel("global error at t1")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    save(path, figure)


def ratio_figure(ratios: dict, path: Path) -> None:
    """One dot a problem: our NFE over another solver's at equal error."""
    others = [other for (other, title), values in ratios.items() if title == ALL and values]
    figure = Figure(figsize=(8.5, 0.5 * len(others) + 1.3), dpi=100, layout="constrained")
    axis = figure.subplots()
    for height, other in enumerate(others):
        values = [float(np.median(v)) for v in ratios[other, ALL].values()]
        spread = np.linspace(-0.22, 0.22, len(values))
        colour = BLUE if other in ("scipy vode", "scipy lsoda", "torch implicit_adams") else ORANGE
        axis.plot(np.sort(values), height + spread, "o", ms=3, color=colour, alpha=0.7)
        axis.plot([np.median(values)] * 2, [height - 0.35, height + 0.35], color="black", lw=1.5)
    axis.axvline(1, color="black", lw=0.8)
    axis.axvline(TARGET, color="grey", lw=0.8, ls=":")
    axis.set_xscale("log")
    plain_log(axis.xaxis, (1, 3))
    axis.set_yticks(range(len(others)), others)
    axis.invert_yaxis()
    axis.set_xlabel(
        "NFE of jax adams / NFE of the other at equal error (dot: a problem; bar: median; "
        f"dotted: {TARGET})"
    )
    bare(axis)
    save(path, figure)
