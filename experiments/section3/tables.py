"""The tables of docs/results-*.md, from a study's record (see `collect`)."""

from __future__ import annotations

import collections
import math
import statistics
from collections.abc import Sequence

from experiments.classify.summary import PAPER, count
from experiments.harness.markdown import Table
from experiments.section3 import evidence, grid, rates
from experiments.section3.collect import Record
from experiments.section3.evidence import Pair, done, over_images
from experiments.section3.intervals import Interval, Verdict, disagreement

# Of activations, in the number of layers L and of solver steps (section 3 of the paper).
MEMORY = {"direct": "O(steps)", "checkpoint": "O(√steps)", "adjoint": "O(1)", "handwritten": "O(1)"}
GRADIENT = {
    "rknet": "direct",
    "odenet": "direct",
    "odenet-adjoint": "adjoint",
    "odenet-adams": "checkpoint",
    "odenet-adams-adam": "checkpoint",
    "torch-euler": "handwritten",
    "torch-odenet": "adjoint",
}
LAST = 3  # epochs before the end, to which its training loss is compared
# Test error of the work we follow up on: full MNIST, 160 epochs, no final ReLU, other optimisers.
FOLLOW_UP = {
    "resnet6": 0.45,
    "resnet1": 0.64,
    "rknet": 0.73,
    "odenet-adjoint": 0.65,
    "torch-euler": 0.78,
    "odenet-adams": 1.33,
    "odenet-adams-adam": 0.71,
}


def values(record: Record, variant: str, key: str) -> list[float]:
    """A number of summary.json, one a run."""
    found = [run["summary"].get(key) for run in done(record, variant)]
    return [value for value in found if value is not None]


def seconds(record: Record, variant: str, key: str) -> str:
    """The median over runs: other work on the machine disturbs some runs and not all."""
    found = values(record, variant, key)
    return f"{statistics.median(found):.1f}" if found else "-"


COST = ("model", "test error (%)", "test loss (nats)", "runs", "rate", "parameters",
        "NFE forward", "NFE backward", "CPU s an epoch")  # fmt: skip


def table1(record: Record) -> Table:
    """The paper's Table 1 with ours beside it."""
    headers = (*COST, "s an epoch", "peak memory (MiB)", "memory of the gradient",
               "paper: error (%)", "paper: parameters", "follow-up: error (%)")  # fmt: skip
    rows = []
    for name in grid.TABLE1:
        if not done(record, name):
            continue
        paper = PAPER.get({"odenet-adjoint": "odenet", "odenet": ""}.get(name, name))
        rows.append(
            (
                *_cost(record, name),
                seconds(record, name, "seconds_per_epoch"),
                f"{average(values(record, name, 'peak_memory_mib')):.0f}",
                MEMORY[GRADIENT[name]] if name in GRADIENT else "O(L)",
                f"{paper[1]:.2f}" if paper else "",
                f"{paper[2]:.2f} M" if paper else "",
                f"{FOLLOW_UP[name]:.2f}" if name in FOLLOW_UP else "",
            )
        )
    return Table(headers, rows)


def comparisons(record: Record, verdicts: dict[Pair, Verdict], pairs: Sequence[Pair]) -> Table:
    """Differences of the first from the second; pairs without common images are left out."""
    headers = ("model", "against", "difference in error (points)", "level of the interval",
               "verdict", "difference in loss (nats, 95%)")  # fmt: skip
    rows = []
    for a, b in pairs:
        if (a, b) not in verdicts:
            continue
        verdict = verdicts[a, b]
        loss = evidence.compare(record, a, b, "loss")
        rows.append(
            (
                grid.VARIANTS[a].title,
                grid.VARIANTS[b].title,
                shown(verdict.interval, sign=True),
                f"{100 * verdict.interval.level:.2f}%",
                verdict.words,
                shown(loss.interval(), sign=True, digits=4) if loss else "-",
            )
        )
    return Table(headers, rows)


def convergence(record: Record, names: Sequence[str]) -> Table:
    """Whether training had come to rest: the training loss at its end, and what selection did."""
    rows = []
    for name in names:
        runs = done(record, name)
        if not runs or any(len(run["rows"]) <= LAST for run in runs):
            continue
        loss = lambda at, runs=runs: average([run["rows"][at]["train_loss"] for run in runs])
        end, before = loss(-1), loss(-1 - LAST)
        chosen = [run["summary"].get("selected_epoch") for run in runs]
        rows.append(
            (
                grid.VARIANTS[name].title,
                f"{before:.4f}",
                f"{end:.4f}",
                f"{100 * (end / before - 1):+.0f}%",
                f"{statistics.median(chosen):g}" if None not in chosen else "last",
                f"{average([run['rows'][-1]['test_error'] for run in runs]):.2f}",
                f"{average([run['summary']['test_error'] for run in runs]):.2f}",
            )
        )
    headers = ("model", f"training loss {LAST} epochs before the end", "at the end", "change",
               "epoch selected (median)", "test error of the last epoch (%)",
               "of the selected (%)")  # fmt: skip
    return Table(headers, rows)


def disagreements(record: Record, names: Sequence[str]) -> Table:
    """Per cent of images that two networks class differently: of one model, and of two."""
    known = [name for name in names if done(record, name)]
    rows = []
    for name in known:
        cells = []
        for other in known:
            share = _disagreement(record, name, other)
            cells.append("-" if math.isnan(share) else f"{share:.2f}")
        rows.append((grid.VARIANTS[name].title, *cells))
    return Table(("", *(grid.VARIANTS[name].title for name in known)), rows)


def _disagreement(record: Record, a: str, b: str) -> float:
    """Of two networks of `a`, or of one of each; the mean over folds, weighted by their images."""
    found = evidence.by_image(record, [a] if a == b else [a, b], "class")
    if found is None:
        return math.nan
    shares = [disagreement(*of) for of in zip(*found, strict=True)]
    known = [(s, of.shape[1]) for s, of in zip(shares, found[0], strict=True) if not math.isnan(s)]
    return sum(s * n for s, n in known) / sum(n for _, n in known) if known else math.nan


def chosen_rates(record: Record) -> Table:
    """Mean validation loss over the folds at each rate, and the rate that was chosen."""
    rows = []
    for name in grid.RATED:
        variant = grid.VARIANTS[name]
        found = rates.losses(record, variant)
        if not found:
            continue
        rate = rates.chosen(record, variant)
        tried = rates.rates_of(variant)
        edge = ", at the edge" if rate in (tried[0], tried[-1]) else ""
        cells = [f"{r}: {found[r]:.4f}" if r in found else f"{r}: not run" for r in tried]
        rows.append((variant.title, ", ".join(cells), f"{rate}{edge}" if rate else "open"))
    return Table(("model", "rate: validation loss (nats)", "chosen"), rows)


def costs(record: Record, names: Sequence[str]) -> Table:
    """Error and cost of variants that differ in one thing."""
    return Table(COST, [_cost(record, name) for name in names if done(record, name)])


def _cost(record: Record, name: str) -> tuple[str, ...]:
    """A row of `costs`."""
    mean = lambda key: average(values(record, name, key))
    used = sorted({run["rate"] for run in done(record, name) if "rate" in run})
    return (
        grid.VARIANTS[name].title,
        shown(over_images(record, name)),
        shown(over_images(record, name, "loss"), digits=4),
        str(len(done(record, name))),
        ", ".join(f"{rate:g}" for rate in used) or "-",
        f"{mean('parameters'):,.0f}",
        count(mean("nfe_forward")),
        count(mean("nfe_backward")),
        seconds(record, name, "cpu_seconds_per_epoch"),
    )


def failures(record: Record) -> Table:
    """Runs without results, and why; those not begun by variant."""
    runs = record["runs"]
    rows = [
        (name_of(run), run["status"], run["reason"].replace("|", "/"))
        for run in runs
        if run["status"] in ("failed", "unfinished")
    ]
    missing = collections.Counter(run["variant"] for run in runs if run["status"] == "missing")
    rows += [(variant, "missing", f"{n} not begun") for variant, n in missing.items()]
    return Table(("run", "state", "reason"), rows)


def name_of(run: Record) -> str:
    """Variant, seed and fold of a run."""
    fold = f", fold {run['fold']}" if "fold" in run else ""
    return f"{run['variant']}, seed {run['seed']}{fold}"


def shown(found: Interval, *, sign: bool = False, digits: int = 2) -> str:
    """`3.10 (2.89 to 3.31)`, and what the interval lacks; the mean alone where it has none."""
    if found.n == 0:
        return "-"
    number = lambda value: f"{value:{'+' if sign else ''}.{digits}f}"
    if math.isnan(found.half):
        return number(found.mean)
    lacks = f"; {found.lacks}" if found.lacks else ""
    return f"{number(found.mean)} ({number(found.low)} to {number(found.high)}{lacks})"


def average(numbers: Sequence[float]) -> float:
    """The mean, NaN of none."""
    return sum(numbers) / len(numbers) if numbers else math.nan
