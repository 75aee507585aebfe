"""Tables and figures of solvers in training, from the cells of the solver study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.harness.figures import (
    BLUE,
    LIGHT_BLUE,
    LIGHT_GREEN,
    LIGHT_ORANGE,
    ORANGE,
    PURPLE,
    bare,
    save,
)
from experiments.harness.markdown import table
from experiments.solving.precision_page import median


def page(cells: Sequence[dict[str, Any]], folder: Path) -> str:
    """Write the figure; return the tables."""
    cases: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for cell in cells:
        cases[cell["case"]["name"]].append(cell)
    stability_figure(cases, folder / "stability.png")
    rows = [[name, *thresholds(runs)] for name, runs in cases.items()]
    first = [[name, *at_first_rate(runs)] for name, runs in cases.items()]
    return "\n".join(
        [
            "The largest learning rate at which training works, and what happens at the next: "
            "one entry a seed.\n",
            table(["", "largest that trains", "next", "what happens there"], rows),
            "The runs at learning rate 0.1, before training and at its end, median over seeds: L "
            "is the Lipschitz constant of the field, cosine and error of the gradient are against "
            "the true one (dopri5 at 1e-5), the contraction is that of the corrector of adaptive "
            "Adams at 1e-3, and stuck the steps in which the corrector of fixed-step implicit "
            "Adams, step 0.25, did not converge in 4 or in 16 iterations (of the two after the "
            "start-up).\n",
            table(["", "loss", "NFE", *LOOKED.values()], first),
        ]
    )


def thresholds(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Largest rate that trains, next rate, and the end there, for each seed."""
    columns: list[list[str]] = [[], [], []]
    for seed in sorted({run["seed"] for run in runs}):
        mine = sorted((r for r in runs if r["seed"] == seed), key=lambda r: r["lr"])
        good = [r["lr"] for r in mine if r["trained"]]
        bad = [r for r in mine if not r["trained"] and r["lr"] > max(good, default=0)]
        columns[0].append(f"{max(good):g}" if good else f"below {mine[0]['lr']:g}")
        columns[1].append(f"{bad[0]['lr']:g}" if bad else "-")
        columns[2].append(_end(bad[0]) if bad else "-")
    return [", ".join(column) for column in columns]


def _end(run: dict[str, Any]) -> str:
    if run["failure"]:
        return f"{run['failure']} at step {len(run['losses'])}"
    return f"loss {run['loss']:.2f}"


LOOKED = {
    "lipschitz": "L",
    "gradient_error": "gradient error",
    "gradient_cosine": "cosine",
    "state_error": "state error",
    "adams_order": "Adams order",
    "adams_contraction": "contraction",
    "nonconverged_0.25_4": "stuck, 4",
    "nonconverged_0.25_16": "stuck, 16",
}


def at_first_rate(runs: Sequence[dict[str, Any]]) -> list[Any]:
    """Loss and NFE of the runs at rate 0.1, and what was seen before and after."""
    of = [run for run in runs if run["lr"] == 0.1]
    nfe = [run["nfe"] for run in of if run["nfe"]]
    counts = "/".join(f"{n:.0f}" for n in np.median(nfe, axis=0)) if nfe else "-"

    def seen(key: str) -> str:
        looks = [[run["looks"][at][key] for run in of] for at in (0, -1)]
        ends = [median(value for value in values if value is not None) for values in looks]
        return " → ".join(end if isinstance(end, str) else f"{end:.2g}" for end in ends)

    loss = median(run["loss"] for run in of if run["loss"] is not None)
    return [loss, counts, *map(seen, LOOKED)]


SEEN = {
    "mean loss of the last steps": lambda run: run["loss"],
    "Lipschitz constant of the field": lambda run: run["looks"][-1]["lipschitz"],
    # Zero where the field has gone flat: there is no error of a gradient that is nothing.
    "relative error of the gradient": lambda run: run["looks"][-1]["gradient_error"] or None,
}
COLOURS = (BLUE, LIGHT_BLUE, ORANGE, LIGHT_ORANGE, PURPLE, LIGHT_GREEN, "black")


def stability_figure(cases: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """What was seen at the end of each run against the learning rate; solvers over conditions."""
    figure = Figure(figsize=(13, 7), dpi=100, layout="constrained")
    conditions = {name: runs for name, runs in cases.items() if ";" in name}
    solvers = {name: runs for name, runs in cases.items() if name not in conditions}
    grid = figure.subplots(2, len(SEEN), sharex=True, sharey="col")
    for row, mine in zip(grid, (solvers, conditions), strict=True):
        for axis, (title, value) in zip(row, SEEN.items(), strict=True):
            for colour, (name, runs) in zip(COLOURS, mine.items(), strict=False):
                axis.plot(*_by_rate(runs, value), "o-", ms=4, lw=1.2, label=name, color=colour)
            axis.set(xscale="log", yscale="log", title=title)
            bare(axis)
        row[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    for axis in grid[-1]:
        axis.set_xlabel("learning rate")
    save(path, figure)


def _by_rate(
    runs: Sequence[dict[str, Any]], value: Callable[[dict[str, Any]], float | None]
) -> tuple[list[float], list[float]]:
    """Learning rates at which the value is known, and its median over seeds at each."""
    rates = sorted({run["lr"] for run in runs})
    medians = {
        r: median(v for x in runs if x["lr"] == r and (v := value(x)) is not None) for r in rates
    }
    known = {rate: v for rate, v in medians.items() if isinstance(v, float)}
    return list(known), list(known.values())
