"""Numbers of a study for prose: `{{name}}` in a template becomes the number of that name."""

from __future__ import annotations

import math
import re
import statistics
from pathlib import Path

from experiments.harness import page_blocks
from experiments.harness.errors import ConfigError
from experiments.section3 import grid
from experiments.section3.intervals import interval, statement
from experiments.section3.tables import (
    Record,
    compare,
    done,
    error,
    image_errors,
    shown,
    solver_rows,
    values,
)


def fill(template: str, record: Record, docs: Path) -> str:
    """The template with its numbers, of the record and of the pages in the folder `docs`.

    In a row of a table a number that the study does not have becomes `not run`; elsewhere, where a
    sentence would be left without its ground, it is a `ConfigError` that names it.

    Names are `error:VARIANT`, `n:VARIANT`, `SUMMARY_KEY:VARIANT`, `difference:A:B`,
    `statement:A:B`, `images:VARIANT:KIND:AMOUNT`, `images-difference:A:B:KIND:AMOUNT`,
    `solver:VARIANT:SOLVER:SETTING`, `solver-nfe:VARIANT:SOLVER:SETTING`,
    `logits:VARIANT:SOLVER:SETTING`, `table:PAGE:BLOCK:ROW:COLUMN` (see `pages.cell`), `data` and
    `epochs`.
    """
    lines = []
    for line in template.splitlines(keepends=True):
        otherwise = "not run" if line.startswith("|") else None
        put = lambda found, default=otherwise: number(record, docs, found[1].strip(), default)
        lines.append(re.sub(r"\{\{(.+?)\}\}", put, line))
    return "".join(lines)


def number(record: Record, docs: Path, name: str, default: str | None = None) -> str:
    """One number as text; `default`, or `ConfigError` without one, if the study lacks it."""
    kind, *of = name.split(":")
    try:
        text = (
            page_blocks.cell(docs / of[0], *of[1:])
            if kind == "table"
            else _number(record, kind, of)
        )
    except (OSError, ValueError, LookupError, ZeroDivisionError):
        text = None
    if text is not None and "nan" not in text:
        return text
    if default is None:
        raise ConfigError(f"the findings ask for {name!r}, which this study does not have.")
    return default


def _number(record: Record, kind: str, of: list[str]) -> str | None:
    if kind == "data":
        return record["data"]["title"]
    if kind == "epochs":
        return str(values(record, "odenet", "epochs")[0])
    if kind == "error":
        return shown(error(record, of[0])) + "%" if done(record, of[0]) else None
    if kind == "n":
        return str(len(done(record, of[0])))
    if kind == "difference":
        return shown(compare(record, *of).both, sign=True)
    if kind == "statement":
        found = compare(record, *of).both
        return statement(found) if found.n > 1 else None
    if kind in ("images", "images-difference"):
        change = of[-2], float(of[-1])
        errors = [image_errors(record, variant)[change] for variant in of[:-2]]
        if kind == "images":
            return shown(interval(list(errors[0].values()))) + "%"
        seeds = sorted(errors[0].keys() & errors[1].keys())
        return shown(interval([errors[0][s] - errors[1][s] for s in seeds]), sign=True)
    if kind.startswith(("solver", "logits")):
        rows = solver_rows(record, of[0])[of[1], float(of[2])]
        if kind == "solver":
            return shown(interval([row["test_error"] for row in rows])) + "%"
        key = "nfe_forward" if kind == "solver-nfe" else "logit_error"
        return f"{sum(row[key] for row in rows) / len(rows):.3g}"
    if of and of[0] in grid.VARIANTS:
        numbers = values(record, of[0], kind)
        mean = statistics.median(numbers) if "seconds" in kind else statistics.mean(numbers)
        return None if math.isnan(mean) else f"{mean:,.0f}" if mean >= 100 else f"{mean:.1f}"
    return None
