"""One coarse step by both gradients, for longer or on more images: losses and a picture."""

from __future__ import annotations

import statistics
from typing import Any

from matplotlib.figure import Figure

from experiments.harness.figures import bare, plain_log
from experiments.harness.markdown import table
from experiments.section3 import coarse_adjoint
from experiments.section3.coarse_adjoint import final_loss, least_loss, name_of
from experiments.section3.coarse_adjoint_page import (
    GRADIENT_COLOURS,
    checks_of,
    clause_table,
    commits,
)
from experiments.section3.evidence import done
from experiments.section3.follow_up_page import draw_theirs, selected


def text(record: dict[str, Any]) -> str:
    """A row for every run, in Markdown; of the long runs their rule's table before it."""
    rows = [
        [
            gradient,
            run["seed"],
            len(run["rows"]),
            f"{least_loss(run):.2g}",
            f"{final_loss(run):.2g}",
            f"{statistics.median(check['cosine'] for check in checks_of(run)[-5:]):.2f}",
            selected(run)["epoch"],
            f"{selected(run)['test_error']:.1f}",
        ]
        for gradient in coarse_adjoint.GRADIENTS
        for run in done(record, name_of("one-step", gradient))
    ]
    headers = ["one rk4 step by", "seed", "epochs", "least training loss", "at the end",
               "cosine at the end", "selected epoch", "its test error (%)"]  # fmt: skip
    clauses = coarse_adjoint.clauses(record)
    rule = f"{clause_table(clauses)}\n" if clauses else ""
    return (
        f"{rule}{table(headers, rows)}\n"
        f"`python experiments/study.py --preset {record['preset']}`, "
        f"{record['data']['title']}, commit {commits(record)}; least and at the end are "
        f"medians of {coarse_adjoint.LAST} epochs' means in a row, the selected epoch that of "
        "least mean, as theirs is; the cosine is that of the gradient to the computed loss's, on "
        "64 training images, the median of the last 5 checks.\n"
    )


def curves(record: dict[str, Any]) -> Figure | None:
    """Training loss over the epochs by either gradient; theirs beside it if ours are as long."""
    panels = 2 if record["preset"] == coarse_adjoint.LONG else 1
    figure = Figure(figsize=(5 * panels, 4.4), dpi=120, layout="constrained")
    axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    ours = axes[0]
    for gradient, colour in GRADIENT_COLOURS.items():
        for k, run in enumerate(done(record, name_of("one-step", gradient))):
            epochs, losses = zip(*((r["epoch"], r["train_loss"]) for r in run["rows"]), strict=True)
            label = None if k else f"one rk4 step, {gradient}"
            ours.plot(epochs, losses, color=colour, linewidth=1, alpha=0.8, label=label)
    if not ours.lines:
        return None
    data = record["data"]["title"].split(" + ")[0]
    title = f"Ours: {data}; a line a seed"
    ours.set(title=title, ylabel="training loss (nats)", yscale="log")
    plain_log(ours.yaxis, (1, 3) if panels == 2 else (1, 2, 5))
    ours.legend(frameon=False)
    if panels == 2:
        draw_theirs(axes[1])
    for axis in axes:
        axis.set_xlabel("epoch")
        bare(axis)
    return figure
