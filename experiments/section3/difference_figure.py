"""The comparisons of a study in one picture: how far models are apart, and what that decides."""

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.harness.figures import BLUE, GREY, ORANGE, bare, dotted, intervals
from experiments.section3 import evidence
from experiments.section3.collect import Record
from experiments.section3.look import title

LOOK = {"equal within the margin": BLUE, "different": ORANGE, "not decided": GREY}


def differences(record: Record) -> Figure | None:
    """Difference in test error of every pair with its interval: a row a pair, coloured by verdict.

    None of a study without folds, whose runs conclude nothing.
    """
    found = evidence.compared(record)
    if not found or any(set(evidence.by_fold(record, a)) == {"all"} for a, _ in found):
        return None
    rows = sorted(found.items(), key=lambda row: -row[1].interval.mean)
    margin = evidence.margin(record)
    figure = Figure(figsize=(8, 1.4 + 0.33 * len(rows)), dpi=110, layout="constrained")
    axis = figure.subplots()
    axis.axvspan(-margin, margin, color=GREY, alpha=0.15, lw=0)
    axis.axvline(0, color=GREY, lw=1)
    shown = []
    for pair, verdict in rows:
        of, words = verdict.interval, verdict.words.partition(" (")[0].partition(",")[0]
        shown.append((" and ".join(map(title, pair)), of.low, of.mean, of.high, LOOK[words]))
    intervals(axis, shown)
    axis.invert_yaxis()
    axis.set_xlabel("test error of the first minus that of the second (points)", fontsize=9)
    bare(axis)
    band = Patch(color=GREY, alpha=0.15, label=f"margin, {margin:g} points")
    figure.legend(handles=[*dotted(LOOK), band], loc="outside upper center", ncols=4, frameon=False)
    return figure
