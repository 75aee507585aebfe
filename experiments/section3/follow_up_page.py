"""The seven networks of the work we follow up on, repeated: a table and a picture like theirs."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness.figures import (
    BLUE,
    GREEN,
    GREY,
    LIGHT_GREEN,
    ORANGE,
    PURPLE,
    bare,
    plain_log,
)
from experiments.harness.markdown import table
from experiments.section3.coarse_adjoint import FOLLOW_UP, final_loss
from experiments.section3.evidence import done

COLOURS = ("black", GREY, ORANGE, PURPLE, GREEN, LIGHT_GREEN, BLUE)  # implicit Adams is green
# Their training loss with implicit Adams and SGD, read off their picture: between two values for
# the first epochs, then least, then at the end.
JUMPS, LEAST, END = (20, 0.06, 0.15), (63, 0.036), (160, 0.058)


def text(record: dict[str, Any]) -> str:
    """A row for every network that has runs: their test error and ours, in Markdown."""
    rows = [
        [
            title,
            f"{error:.2f}",
            " / ".join(f"{selected(run)['test_error']:.1f}" for run in runs) or "not run",
            " / ".join(f"{final_loss(run):.2g}" for run in runs),
            " / ".join(str(run["seed"]) for run in runs),
        ]
        for title, name, error in FOLLOW_UP
        for runs in [done(record, name)]
    ]
    headers = ["network", "theirs: test error (%)", "ours: test error (%)", "ours: training loss",
               "seeds"]  # fmt: skip
    return (
        f"{table(headers, rows)}\n"
        "Numbers of ours are one a seed; the test error is that of the epoch of least training "
        "loss, as theirs is. `python experiments/study.py --preset follow-up`, "
        f"{record['data']['title']}; theirs: 60,000 + 10,000 images and 160 epochs.\n"
    )


def curves(record: dict[str, Any]) -> Figure | None:
    """Training loss over the epochs: ours, the first seed, and what is known of theirs."""
    figure = Figure(figsize=(10, 4.4), dpi=120, layout="constrained")
    ours, theirs = figure.subplots(1, 2, sharey=True)
    for (title, name, _), colour in zip(FOLLOW_UP, COLOURS, strict=True):
        for run in done(record, name)[:1]:
            rows = run["rows"]
            losses = [row["train_loss"] for row in rows]
            ours.plot([row["epoch"] for row in rows], losses, color=colour, label=title)
    if not ours.lines:
        return None
    ours.set(title="Ours: 4,000 images, seed 0", ylabel="training loss (nats)", yscale="log")
    draw_theirs(theirs)
    for axis in (ours, theirs):
        axis.set_xlabel("epoch")
        bare(axis)
    plain_log(ours.yaxis, (1, 3))
    figure.legend(*ours.get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def draw_theirs(axis: Axes) -> None:
    """What is known of their training loss with implicit Adams and SGD."""
    epochs, low, high = JUMPS
    axis.fill_between([1, epochs], low, high, color=GREEN, alpha=0.3, linewidth=0)
    axis.plot(*zip(LEAST, END, strict=True), "o--", color=GREEN)
    axis.annotate(f"jumps between {low} and {high}", (epochs, high), xytext=(4, -4),
                  textcoords="offset points")  # fmt: skip
    axis.annotate(f"least: {LEAST[1]}", LEAST, xytext=(0, -14), textcoords="offset points",
                  ha="center")  # fmt: skip
    axis.annotate(f"end: {END[1]}", END, xytext=(-4, 6), textcoords="offset points", ha="right")
    axis.set(title="Theirs: 60,000 images,\nimplicit Adams with SGD", xlim=(0, 165))


def selected(run: dict[str, Any]) -> dict[str, Any]:
    """The epoch of least training loss."""
    return min(run["rows"], key=lambda row: row["train_loss"])
