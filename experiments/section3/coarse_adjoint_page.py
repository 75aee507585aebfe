"""What the runs of coarse_adjoint.py show: the rule's table, the runs' table, two pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.classify.trust import LIMIT
from experiments.harness.figures import BLUE, GREEN, GREY, LIGHT_ORANGE, ORANGE, PURPLE, bare
from experiments.harness.markdown import table
from experiments.section3 import coarse_adjoint, grid
from experiments.section3.coarse_adjoint import Clause, name_of
from experiments.section3.collect import Record
from experiments.section3.evidence import done

Run = Record

# One rk4 step by the adjoint is green: it is the implicit Adams of the work we follow up on.
DRAWN = {
    name_of("one-step", "adjoint"): ("one step, adjoint", GREEN),
    name_of("one-step", "direct"): ("one step, direct", BLUE),
    name_of("dopri5", "adjoint"): ("dopri5 1e-3, adjoint", ORANGE),
}
HIGH = 0.1  # a training loss at which a network is still on its way
# Of one rk4 step: condition, title and colour.
CONDITIONS = [("", "SGD at 0.1", GREEN)] + [
    (name, title, colour)
    for (name, (title, _)), colour in zip(
        coarse_adjoint.CONDITIONS.items(),
        (ORANGE, LIGHT_ORANGE, BLUE, PURPLE, "black", GREY),
        strict=True,
    )
]
GRADIENT_COLOURS = dict(zip(coarse_adjoint.GRADIENTS, (GREEN, BLUE), strict=True))


def text(record: Record) -> str:
    """The rule and its verdict, and a row for every variant that has runs, in Markdown."""
    clauses = coarse_adjoint.rule(record)
    rule, why = clause_table(clauses), clause_table(coarse_adjoint.why(record))
    rows = [_row(name, runs) for name, runs in _by_variant(record)]
    headers = ["trained by", "seeds", "training loss", "test error (%)", "cosine", "size",
               "reconstruction", "L"]  # fmt: skip
    return (
        f"**{coarse_adjoint.verdict(clauses)}**\n\n{rule}\n"
        "With other optimisers, one rk4 step, adjoint / direct; the bounds follow if long steps "
        f"of the optimiser flatten the field:\n\n{why}\n{table(headers, rows)}\n"
        "Numbers are one a seed. `python experiments/study.py --preset coarse-adjoint`, "
        f"{record['data']['title']}, commit {commits(record)}; the training loss is the "
        f"median of the last {coarse_adjoint.LAST} epochs' means (three after a switch); cosine "
        "and size (quotient of norms) are those of the gradient against the computed loss's on 64 "
        "training images, L the "
        "field's Lipschitz constant, all at the last check; the reconstruction is the last epoch's "
        "median.\n"
    )


def commits(record: Record) -> str:
    """The commits of the runs that are done."""
    found = {run["commit"][:10] for run in record["runs"] if run["status"] == "done"}
    return ", ".join(sorted(found))


def clause_table(clauses: Sequence[Clause]) -> str:
    """A row for every clause of a rule: its quotients by seed, its bound, and whether it holds."""
    seeds = coarse_adjoint.SEEDS
    quotients = lambda clause: [
        f"{clause.quotients[seed]:.3g}" if seed in clause.quotients else "not run" for seed in seeds
    ]
    return table(
        ["quotient of final training losses", "must be", *(f"seed {s}" for s in seeds), ""],
        [[one.text, one.bound, *quotients(one), one.state] for one in clauses],
    )


def training(record: Record) -> Figure | None:
    """Training loss, and what the adjoint's gradient is worth, over the epochs."""
    figure = Figure(figsize=(12.6, 4.2), dpi=120, layout="constrained")
    loss, cosine, reconstruction = figure.subplots(1, 3)
    drawn = [(name, runs) for name, runs in _by_variant(record) if name in DRAWN]
    if not drawn:
        return None
    for name, runs in drawn:
        colour = DRAWN[name][1]
        for run in runs:
            epochs = [row["epoch"] for row in run["rows"]]
            _line(loss, epochs, [row["train_loss"] for row in run["rows"]], colour)
            if "adjoint" not in name:
                continue
            checks = checks_of(run)
            steps = [check["step"] for check in checks]
            _line(cosine, steps, [check["cosine"] for check in checks], colour)
            _line(reconstruction, epochs, [row["reconstruction"] for row in run["rows"]], colour)
    loss.set(title="Training loss", ylabel="mean cross-entropy (nats)", yscale="log")
    cosine.set(title="Gradient", ylabel="cosine to that of the computed loss", ylim=(None, 1.03))
    reconstruction.set(
        title="Reconstruction", ylabel="distance from y(0) / size of y(0)", yscale="log"
    )
    reconstruction.axhline(LIMIT, color="black", linestyle="--", linewidth=1)
    reconstruction.annotate("warning", (1, LIMIT), xytext=(2, 4), textcoords="offset points")
    for axis, unit in ((loss, "epoch"), (cosine, "training step"), (reconstruction, "epoch")):
        axis.set_xlabel(unit)
        bare(axis)
    keys = [Line2D([], [], color=DRAWN[name][1], label=DRAWN[name][0]) for name, _ in drawn]
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False)
    return figure


def switch(record: Record) -> Figure | None:
    """The training loss after the gradient was switched, and where it was kept."""
    runs = dict(_by_variant(record))
    figure = Figure(figsize=(9, 3.9), dpi=120, layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    found = False
    for axis, first in zip(axes, coarse_adjoint.GRADIENTS, strict=True):
        for then, colour in GRADIENT_COLOURS.items():
            for run in runs.get(coarse_adjoint.switched(first, then), []):
                found = True
                checks = checks_of(run)
                _line(axis, [c["step"] for c in checks], [c["loss"] for c in checks], colour)
        axis.set(title=f"From the weights found by {first}", xlabel="steps after", yscale="log")
        bare(axis)
    axes[0].set_ylabel("loss of 64 training images (nats)")
    keys = [Line2D([], [], color=c, label=f"on by {then}") for then, c in GRADIENT_COLOURS.items()]
    figure.legend(handles=keys, loc="outside lower center", ncols=2, frameon=False)
    return figure if found else None


def why(record: Record) -> Figure | None:
    """What other optimisers and the ReLU make of the field, and of the step back through it."""
    runs = dict(_by_variant(record))
    named = [(name_of("one-step", "adjoint", name), *of) for name, *of in CONDITIONS]
    shown = [of for of in named if of[0] in runs]
    if len(shown) < 2:
        return None
    figure = Figure(figsize=(11, 4.2), dpi=120, layout="constrained")
    slope, reconstruction = figure.subplots(1, 2)
    for name, _, colour in shown:
        run = runs[name][0]
        checks, rows = checks_of(run), run["rows"]
        steps = [check["step"] for check in checks]
        _line(slope, steps, [check["lipschitz"] for check in checks], colour)
        epochs = [row["epoch"] for row in rows]
        _line(reconstruction, epochs, [row["reconstruction"] for row in rows], colour)
    slope.set(title="Steepness of the field (seed 0)", ylabel="Lipschitz constant L", yscale="log")
    slope.set_xlabel("training step")
    reconstruction.set(
        title="Reconstruction (seed 0)", ylabel="distance from y(0) / size of y(0)", yscale="log"
    )
    reconstruction.set_xlabel("epoch")
    for axis in (slope, reconstruction):
        bare(axis)
    keys = [Line2D([], [], color=colour, label=title) for _, title, colour in shown]
    figure.legend(handles=keys, loc="outside right center", frameon=False)
    return figure


def cost(record: Record) -> Figure | None:
    """What a wrong gradient costs, early and late: adjoint runs against their likes by direct."""
    pairs = [("one-step", *of, "o") for of in CONDITIONS]
    pairs.insert(1, ("dopri5", "", "SGD at 0.1, dopri5 1e-3", GREEN, "s"))
    figure = Figure(figsize=(11, 4.4), dpi=120, layout="constrained")
    early, late = figure.subplots(1, 2, sharey=True)
    for solver, condition, title, colour, marker in pairs:
        names = coarse_adjoint.by_both(solver, condition)
        quotients = coarse_adjoint.quotients(record, *names)
        runs = {r["seed"]: r for r in done(record, names[0])}
        points = [
            (_worst_cosine(runs[seed]), runs[seed]["rows"][-1].get("reconstruction"), quotient)
            for seed, quotient in quotients.items()
        ]
        if points:
            *at, found = zip(*points, strict=True)
            for axis, x, label in zip((early, late), at, (title, None), strict=True):
                axis.plot(x, found, marker, color=colour, label=label)
    if not early.lines:
        return None
    late.axvline(LIMIT, color="black", linestyle="--", linewidth=1)
    late.annotate(
        "warning", (LIMIT, 0.02), xycoords=late.get_xaxis_transform(), rotation=90,
        xytext=(-11, 4), textcoords="offset points",
    )  # fmt: skip
    for axis in (early, late):
        axis.axhline(1, color=GREY, linewidth=1)
        bare(axis)
    early.set(
        yscale="log",
        xlabel=f"gradient's worst cosine until the loss is {HIGH}",
        ylabel="final training loss, adjoint / direct",
    )
    late.set(xscale="log", xlabel="reconstruction in the last epoch")
    figure.legend(loc="outside right center", frameon=False)
    return figure


def _worst_cosine(run: Run) -> float:
    """The least cosine of the checks up to the first epoch whose mean loss is at most `HIGH`."""
    found = []
    for row in run["rows"]:
        found += [check["cosine"] for check in row.get("gradient_checks", [])]
        if row["train_loss"] <= HIGH:
            break
    return min(found, default=math.nan)


def _by_variant(record: Record) -> Iterator[tuple[str, list[Run]]]:
    """Variants whose gradients were checked: ResNets, which have no solve, are the follow-up's."""
    for variant in coarse_adjoint.VARIANTS:
        runs = done(record, variant.name)
        if runs and all(checks_of(run) for run in runs):
            yield variant.name, runs


def _row(name: str, runs: list[Run]) -> list[Any]:
    last = [checks_of(run)[-1] for run in runs]
    number = lambda values: " / ".join("-" if v is None else f"{v:.2g}" for v in values)
    by_adjoint = "reconstruction" in runs[0]["rows"][-1]
    return [
        grid.VARIANTS[name].title,
        " / ".join(str(run["seed"]) for run in runs),
        number([coarse_adjoint.final_loss(run) for run in runs]),
        number([run["summary"]["test_error"] for run in runs]),
        number([check["cosine"] for check in last]),
        number([check["size"] for check in last]),
        number([run["rows"][-1]["reconstruction"] for run in runs]) if by_adjoint else "",
        number([check["lipschitz"] for check in last]),
    ]


def checks_of(run: Run) -> list[dict[str, Any]]:
    """The gradient checks of all epochs of a run."""
    return [check for row in run["rows"] for check in row.get("gradient_checks", [])]


def _line(axis: Axes, x: list[float], y: list[float | None], colour: str) -> None:
    known = [(a, b) for a, b in zip(x, y, strict=True) if b is not None]
    if known:
        axis.plot(*zip(*known, strict=True), color=colour, linewidth=1.2, alpha=0.85)
