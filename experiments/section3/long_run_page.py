"""As many epochs as theirs by the adjoint of one coarse step: a table of losses and a picture."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from experiments.harness.figures import BLUE, GREEN, bare
from experiments.harness.markdown import table
from experiments.section3 import coarse_adjoint
from experiments.section3.coarse_adjoint import final_loss, least_loss, name_of
from experiments.section3.coarse_adjoint_page import clause_table
from experiments.section3.evidence import done
from experiments.section3.follow_up_page import draw_theirs, selected

COLOURS = dict(zip(coarse_adjoint.GRADIENTS, (GREEN, BLUE), strict=True))


def text(record: dict[str, Any]) -> str:
    """The rule's table, and a row for every run, in Markdown."""
    rows = [
        [
            gradient,
            run["seed"],
            f"{run['rows'][29]['train_loss']:.2g}",
            f"{least_loss(run):.2g}",
            f"{final_loss(run):.2g}",
            selected(run)["epoch"],
            f"{selected(run)['test_error']:.1f}",
        ]
        for gradient in coarse_adjoint.GRADIENTS
        for run in done(record, name_of("one-step", gradient))
    ]
    headers = ["one rk4 step by", "seed", "training loss, epoch 30", "least", "at the end",
               "selected epoch", "its test error (%)"]  # fmt: skip
    commits = {run["commit"][:10] for run in record["runs"] if run["status"] == "done"}
    return (
        f"{clause_table(coarse_adjoint.long_run(record))}\n{table(headers, rows)}\n"
        "`python experiments/study.py --preset coarse-adjoint-long`, "
        f"{record['data']['title']}, commit {', '.join(sorted(commits))}; least and at the end are "
        f"medians of {coarse_adjoint.LAST} epochs' means in a row, the selected epoch that of "
        "least mean, as theirs is.\n"
    )


def curves(record: dict[str, Any]) -> Figure | None:
    """Training loss over 160 epochs: ours by either gradient, and what is known of theirs."""
    figure = Figure(figsize=(10, 4.4), dpi=120, layout="constrained")
    ours, theirs = figure.subplots(1, 2, sharey=True)
    for gradient, colour in COLOURS.items():
        for k, run in enumerate(done(record, name_of("one-step", gradient))):
            epochs, losses = zip(*((r["epoch"], r["train_loss"]) for r in run["rows"]), strict=True)
            label = None if k else f"one rk4 step, {gradient}"
            ours.plot(epochs, losses, color=colour, linewidth=1, alpha=0.8, label=label)
    if not ours.lines:
        return None
    ours.set(title="Ours: 4,000 images", ylabel="training loss (nats)", yscale="log")
    ours.legend(frameon=False)
    draw_theirs(theirs)
    for axis in (ours, theirs):
        axis.set_xlabel("epoch")
        bare(axis)
    return figure
