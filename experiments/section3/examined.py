"""Trained networks where they were not trained: other solvers, changed images (examined.json)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from experiments.harness.markdown import Table
from experiments.section3 import grid
from experiments.section3.collect import Record
from experiments.section3.evidence import PERCENT, by_unit, done
from experiments.section3.intervals import Interval, interval
from experiments.section3.tables import average, shown


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
                    f"{average([row['nfe_forward'] for row in runs]):.0f}",
                    f"{average([row['test_error'] for row in runs]):.2f}",
                    shown(change(record, name, solver, setting), sign=True),
                    f"{average([row['logit_error'] for row in runs]):.1e}",
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
        changes += [average(of)] if of else []
    return interval(changes)


def image_errors(record: Record, variant: str) -> dict[tuple[str, float], dict[str, float]]:
    """Test error by (kind of change, amount) and fold or seed (see `evidence.by_unit`)."""
    found: dict[tuple[str, float], dict[str, list[float]]] = {}
    for unit, runs in by_unit(record, variant).items():
        for row in (row for run in runs for row in run.get("examined", {}).get("images", [])):
            change = found.setdefault((row["kind"], row["amount"]), {})
            change.setdefault(unit, []).append(row["test_error"])
    return {key: {u: average(of) for u, of in units.items()} for key, units in found.items()}


def image_difference(record: Record, a: str, b: str, change: tuple[str, float]) -> Interval:
    """Test error of `a` on changed images minus that of `b`, over the folds or seeds of both."""
    mine, its = (image_errors(record, name).get(change, {}) for name in (a, b))
    return interval([mine[unit] - its[unit] for unit in sorted(mine.keys() & its.keys())])


def image_error(record: Record, variant: str, change: tuple[str, float]) -> Interval:
    """Test error on changed images, over folds or seeds."""
    found = interval(list(image_errors(record, variant).get(change, {}).values()))
    return dataclasses.replace(found, bounds=PERCENT)


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


def _change(kind: str, amount: float) -> str:
    unit = {"noise": "of white, Gaussian", "shift": "pixels", "rotation": "degrees"}.get(kind, "")
    return "as they are" if kind == "none" else f"{kind}, {amount:g} {unit}"
