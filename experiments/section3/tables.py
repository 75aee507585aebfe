"""The tables of docs/results.md, from a study's record (see `collect`)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from experiments.classify.summary import PAPER
from experiments.harness.markdown import Table
from experiments.section3 import grid
from experiments.section3.intervals import Difference, Interval, difference, interval, statement

Record = dict[str, Any]
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


def done(record: Record, variant: str) -> dict[int, dict[str, Any]]:
    """The finished runs of a variant by seed."""
    return {
        run["seed"]: run
        for run in record["runs"]
        if run["variant"] == variant and run["status"] == "done"
    }


def values(record: Record, variant: str, key: str) -> list[float]:
    """A number of summary.json, one a seed."""
    found = [run["summary"][key] for run in done(record, variant).values()]
    return [value for value in found if value is not None]


def error(record: Record, variant: str) -> Interval:
    """Test error after the last epoch, over seeds."""
    return interval(values(record, variant, "test_error"))


def seconds(record: Record, variant: str, key: str) -> str:
    """The median over seeds: other work on the machine disturbs some runs and not all."""
    found = values(record, variant, key)
    return f"{statistics.median(found):.1f}" if found else "-"


def compare(record: Record, a: str, b: str) -> Difference:
    """Test error of variant `a` minus that of `b`."""
    predicted = lambda name: {s: run["predicted"] for s, run in done(record, name).items()}
    return difference(predicted(a), predicted(b), record["true"])


def table1(record: Record) -> Table:
    """The paper's Table 1 with ours beside it."""
    headers = ("model", "test error (%)", "seeds", "parameters", "NFE forward", "NFE backward",
               "CPU s an epoch", "s an epoch", "peak memory (MiB)", "memory of the gradient",
               "paper: error (%)", "paper: parameters")  # fmt: skip
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
            )
        )
    return Table(headers, rows)


def comparisons(record: Record, pairs: Sequence[tuple[str, str]]) -> Table:
    """Paired differences; pairs without common seeds are left out."""
    headers = ("model", "against", "seeds", "difference (points)", "± seeds", "± test images",
               "what may be said of the test error")  # fmt: skip
    rows = []
    for a, b in pairs:
        found = compare(record, a, b)
        if found.seeds.n == 0:
            continue
        rows.append(
            (
                grid.VARIANTS[a].title,
                grid.VARIANTS[b].title,
                str(found.seeds.n),
                f"{found.seeds.mean:+.2f}",
                _half(found.seeds),
                _half(found.images),
                statement(found.both),
            )
        )
    return Table(headers, rows)


def costs(record: Record, names: Sequence[str]) -> Table:
    """Error and cost of variants that differ in one thing."""
    headers = ("model", "test error (%)", "seeds", "parameters", "NFE forward", "NFE backward",
               "CPU s an epoch")  # fmt: skip
    return Table(headers, [_cost(record, name) for name in names if done(record, name)])


def _cost(record: Record, name: str) -> tuple[str, ...]:
    """Title, error, seeds, parameters, NFE and CPU time of a variant: a row of `costs`."""
    mean = lambda key: _mean(values(record, name, key))
    return (
        grid.VARIANTS[name].title,
        shown(error(record, name)),
        str(len(done(record, name))),
        f"{mean('parameters'):,.0f}",
        _count(mean("nfe_forward")),
        _count(mean("nfe_backward")),
        seconds(record, name, "cpu_seconds_per_epoch"),
    )


def solver_rows(record: Record, variant: str) -> dict[tuple[str, float], list[dict[str, Any]]]:
    """Rows of examined.json by (solver, tolerance or step size), one a seed."""
    found: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for run in done(record, variant).values():
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
        for (solver, setting), seeds in solver_rows(record, name).items():
            kind = "step" if seeds[0]["step_size"] else "tolerance"
            rows.append(
                (
                    grid.VARIANTS[name].title,
                    f"{solver}, {kind} {setting:g}",
                    f"{_mean([row['nfe_forward'] for row in seeds]):.0f}",
                    shown(interval([row["test_error"] for row in seeds])),
                    shown(change(record, name, solver, setting), sign=True),
                    f"{_mean([row['logit_error'] for row in seeds]):.1e}",
                )
            )
    return Table(headers, rows)


def image_errors(record: Record, variant: str) -> dict[tuple[str, float], dict[int, float]]:
    """Test error by (kind of change, amount) and seed."""
    found: dict[tuple[str, float], dict[int, float]] = {}
    for seed, run in done(record, variant).items():
        for row in run.get("examined", {}).get("images", []):
            found.setdefault((row["kind"], row["amount"]), {})[seed] = row["test_error"]
    return found


def robustness(record: Record, names: Sequence[str], against: str) -> Table:
    """Test error under changed images, and the paired difference of the first from `against`."""
    found = {name: image_errors(record, name) for name in names}
    found = {name: errors for name, errors in found.items() if errors}
    titles = [f"{grid.VARIANTS[name].title} (%)" for name in found]
    pair = names[0] in found and against in found
    extra = [f"{grid.VARIANTS[names[0]].title} minus {grid.VARIANTS[against].title}"] * pair
    rows = []
    for key in next(iter(found.values()), {}):
        cells = [shown(interval(list(errors.get(key, {}).values()))) for errors in found.values()]
        if pair:
            a, b = found[names[0]].get(key, {}), found[against].get(key, {})
            seeds = sorted(a.keys() & b.keys())
            cells.append(shown(interval([a[s] - b[s] for s in seeds]), sign=True))
        rows.append((_change(*key), *cells))
    return Table(("images", *titles, *extra), rows)


def failures(record: Record) -> Table:
    """Runs without results, and why."""
    rows = [
        (f"{run['variant']}, seed {run['seed']}", run["status"], run["reason"].replace("|", "/"))
        for run in record["runs"]
        if run["status"] != "done"
    ]
    return Table(("run", "state", "reason"), rows)


def shown(found: Interval, *, sign: bool = False) -> str:
    """`3.10 ± 0.21`, or without an interval where one seed gives none."""
    if found.n == 0:
        return "-"
    mean = f"{found.mean:+.2f}" if sign else f"{found.mean:.2f}"
    return mean if math.isnan(found.half) else f"{mean} ± {found.half:.2f}"


def change(record: Record, name: str, solver: str, setting: float) -> Interval:
    """Test error with another solver minus that of the same network as it was trained."""
    changes = []
    for run in done(record, name).values():
        for row in run.get("examined", {}).get("solvers", []):
            if (row["solver"], row["tolerance"] or row["step_size"]) == (solver, setting):
                changes.append(row["test_error"] - run["summary"]["test_error"])
    return interval(changes)


def _change(kind: str, amount: float) -> str:
    unit = {"noise": "of white, Gaussian", "shift": "pixels", "rotation": "degrees"}.get(kind, "")
    return "as they are" if kind == "none" else f"{kind}, {amount:g} {unit}"


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else math.nan


def _half(found: Interval) -> str:
    return "-" if math.isnan(found.half) else f"{found.half:.2f}"


def _count(value: float) -> str:
    return f"{value:.1f}" if value else "-"
