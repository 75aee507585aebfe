"""The tables of docs/results-*.md, from a study's record (see `collect`)."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

from experiments.classify.summary import PAPER
from experiments.harness.markdown import Table
from experiments.section3 import evidence, grid, rates
from experiments.section3.collect import Record
from experiments.section3.evidence import Pair, by_unit, done, error
from experiments.section3.intervals import Interval, Verdict, disagreement, interval

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
                f"{_mean(values(record, name, 'peak_memory_mib')):.0f}",
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
        end, before = (
            _mean([run["rows"][at]["train_loss"] for run in runs]) for at in (-1, -1 - LAST)
        )
        chosen = [run["summary"].get("selected_epoch") for run in runs]
        rows.append(
            (
                grid.VARIANTS[name].title,
                f"{before:.4f}",
                f"{end:.4f}",
                f"{100 * (end / before - 1):+.0f}%",
                f"{statistics.median(chosen):g}" if None not in chosen else "last",
                f"{_mean([run['rows'][-1]['test_error'] for run in runs]):.2f}",
                f"{_mean([run['summary']['test_error'] for run in runs]):.2f}",
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
        rows.append((variant.title, *cells, f"{rate}{edge}" if rate else "open"))
    return Table(("model", *("validation loss (nats)",) * 3, "chosen"), rows)


def costs(record: Record, names: Sequence[str]) -> Table:
    """Error and cost of variants that differ in one thing."""
    return Table(COST, [_cost(record, name) for name in names if done(record, name)])


def _cost(record: Record, name: str) -> tuple[str, ...]:
    """A row of `costs`."""
    mean = lambda key: _mean(values(record, name, key))
    used = sorted({run["rate"] for run in done(record, name) if "rate" in run})
    return (
        grid.VARIANTS[name].title,
        shown(error(record, name)),
        shown(evidence.loss(record, name), digits=4),
        str(len(done(record, name))),
        ", ".join(f"{rate:g}" for rate in used) or "-",
        f"{mean('parameters'):,.0f}",
        _count(mean("nfe_forward")),
        _count(mean("nfe_backward")),
        seconds(record, name, "cpu_seconds_per_epoch"),
    )


def solver_rows(record: Record, variant: str) -> dict[tuple[str, float], list[dict[str, Any]]]:
    """Rows of examined.json by (solver, tolerance or step size), one a run."""
    found: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for run in done(record, variant):
        for row in run.get("examined", {}).get("solvers", []):
            key = row["solver"], row["tolerance"] or row["step_size"]
            found.setdefault(key, []).append(row)
    return found


def changed_solvers(record: Record, names: Sequence[str]) -> Table:
    """Trained networks solved otherwise than in training."""
    headers = ("trained as", "tested with", "NFE forward", "test error (%)",
               "change from training (points)", "error of the logits")  # fmt: skip
    rows = []
    for name in names:
        for (solver, setting), runs in solver_rows(record, name).items():
            kind = "step" if runs[0]["step_size"] else "tolerance"
            rows.append(
                (
                    grid.VARIANTS[name].title,
                    f"{solver}, {kind} {setting:g}",
                    f"{_mean([row['nfe_forward'] for row in runs]):.0f}",
                    f"{_mean([row['test_error'] for row in runs]):.2f}",
                    shown(change(record, name, solver, setting), sign=True),
                    f"{_mean([row['logit_error'] for row in runs]):.1e}",
                )
            )
    return Table(headers, rows)


def change(record: Record, name: str, solver: str, setting: float) -> Interval:
    """Test error with another solver minus that of the same network as it was trained."""
    changes = []
    for runs in by_unit(record, name).values():
        of = [
            row["test_error"] - run["summary"]["test_error"]
            for run in runs
            for row in run.get("examined", {}).get("solvers", [])
            if (row["solver"], row["tolerance"] or row["step_size"]) == (solver, setting)
        ]
        changes += [_mean(of)] if of else []
    return interval(changes)


def image_errors(record: Record, variant: str) -> dict[tuple[str, float], dict[str, float]]:
    """Test error by (kind of change, amount) and fold or seed (see `evidence.by_unit`)."""
    found: dict[tuple[str, float], dict[str, list[float]]] = {}
    for unit, runs in by_unit(record, variant).items():
        for row in (row for run in runs for row in run.get("examined", {}).get("images", [])):
            change = found.setdefault((row["kind"], row["amount"]), {})
            change.setdefault(unit, []).append(row["test_error"])
    return {key: {u: _mean(of) for u, of in units.items()} for key, units in found.items()}


def image_difference(record: Record, a: str, b: str, change: tuple[str, float]) -> Interval:
    """Test error of `a` on changed images minus that of `b`, over the folds or seeds of both."""
    mine, its = (image_errors(record, name).get(change, {}) for name in (a, b))
    return interval([mine[unit] - its[unit] for unit in sorted(mine.keys() & its.keys())])


def image_error(record: Record, variant: str, change: tuple[str, float]) -> Interval:
    """Test error on changed images, over folds or seeds."""
    found = interval(list(image_errors(record, variant).get(change, {}).values()))
    return dataclasses.replace(found, bounds=evidence.PERCENT)


def robustness(record: Record, names: Sequence[str], against: str) -> Table:
    """Test error under changed images, and the difference of the first from `against`."""
    known = {name: found for name in names if (found := image_errors(record, name))}
    titles = [f"{grid.VARIANTS[name].title} (%)" for name in known]
    pair = names[0] in known and against in known
    extra = [f"{grid.VARIANTS[names[0]].title} minus {grid.VARIANTS[against].title}"] * pair
    rows = []
    for key in next(iter(known.values()), {}):
        cells = [shown(image_error(record, name, key)) for name in known]
        if pair:
            cells.append(shown(image_difference(record, names[0], against, key), sign=True))
        rows.append((_change(*key), *cells))
    return Table(("images", *titles, *extra), rows)


def failures(record: Record) -> Table:
    """Runs without results, and why."""
    rows = [
        (name_of(run), run["status"], run["reason"].replace("|", "/"))
        for run in record["runs"]
        if run["status"] != "done"
    ]
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


def _change(kind: str, amount: float) -> str:
    unit = {"noise": "of white, Gaussian", "shift": "pixels", "rotation": "degrees"}.get(kind, "")
    return "as they are" if kind == "none" else f"{kind}, {amount:g} {unit}"


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else math.nan


def _count(value: float) -> str:
    return f"{value:.1f}" if value else "-"
