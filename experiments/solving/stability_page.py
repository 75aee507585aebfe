"""Tables and figures of solvers in training, from the cells of the solver study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.harness.figures import BLUE, ORANGE, bare, save
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


def stability_figure(cases: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Loss, steepness and gradient error at the end of each run against the learning rate."""
    figure = Figure(figsize=(13, 4.6), dpi=100, layout="constrained")
    axes = figure.subplots(1, 3)
    panels = (
        ("mean loss of the last steps", lambda run: run["loss"]),
        ("Lipschitz constant of the field", lambda run: run["looks"][-1]["lipschitz"]),
        ("relative error of the gradient", lambda run: run["looks"][-1]["gradient_error"]),
    )
    colours = [BLUE, "#5aa0d8", ORANGE, "#f3b78b", "#7a5195", "#8cc5a0", "black"]
    for axis, (title, value) in zip(axes, panels, strict=True):
        for number, (name, runs) in enumerate(cases.items()):
            by_rate = {
                rate: median(v for r in runs if r["lr"] == rate and (v := value(r)) is not None)
                for rate in sorted({run["lr"] for run in runs})
            }
            known = [(rate, v) for rate, v in by_rate.items() if isinstance(v, float)]
            if known:
                style = "o-" if number < len(colours) else "x:"
                axis.plot(
                    *zip(*known, strict=True), style, ms=4, lw=1.2, label=name,
                    color=colours[number % len(colours)],
                )  # fmt: skip
        axis.set(xscale="log", xlabel="learning rate", title=title)
        bare(axis)
    for axis in axes[1:]:
        axis.set_yscale("log")
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8
        )
    save(path, figure)
