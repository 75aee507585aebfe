"""The page of findings: `{{name}}` in a template becomes a table or text of the studies at hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from experiments.harness import page_blocks
from experiments.harness.errors import ConfigError
from experiments.harness.markdown import Table
from experiments.images.dataset import TITLES
from experiments.section3 import claims, collect, evidence, examined, grid, tables
from experiments.section3.collect import Record
from experiments.section3.intervals import MARGINS

# The studies that findings rest on, of those at hand.
MAIN, FASHION = "converged", ("fashion", "fashion-full")


def fill(template: str, records: Mapping[str, Record], docs: Path) -> str:
    """The template with what the studies, by name, and the pages in the folder `docs` say.

    Names are `runs`, `margins`, `claims`, those of `BLOCKS`, and `block:PAGE:BLOCK`, a block of
    another page (see `page_blocks.block`). What has no runs yet says so. An unknown name raises
    `ConfigError`.
    """
    return re.sub(r"\{\{(.+?)\}\}", lambda found: _put(found[1].strip(), records, docs), template)


def _put(name: str, records: Mapping[str, Record], docs: Path) -> str:
    if name.startswith("block:"):
        _, page, *where = name.split(":")
        try:
            return page_blocks.block(docs / page, *where)
        except (OSError, LookupError, TypeError):
            raise ConfigError(f"the findings ask for {name!r}, which is not there.") from None
    resting = {key: of for key, of in records.items() if key in (MAIN, *FASHION)}
    if name == "runs":
        return "\n".join(f"- {told(of)}" for of in resting.values()) or "- nothing yet"
    if name == "margins":
        return ", ".join(f"{points} points on {TITLES[of]}" for of, points in MARGINS.items())
    if name == "claims":
        return str(claims.judged({title(of): of for of in resting.values()})).strip()
    if name not in BLOCKS:
        raise ConfigError(f"the findings ask for {name!r}; known are {', '.join(BLOCKS)}.")
    found = BLOCKS[name](records[MAIN]) if MAIN in records else ""
    empty = isinstance(found, Table) and not found.rows
    return "*Not run yet.*" if empty or not found else str(found).strip()


def title(record: Record) -> str:
    """The data of a study in a word or two."""
    return record["data"]["title"].partition(",")[0] + (
        ", all" if "fashion-full" in record["preset"] else ""
    )


def told(record: Record) -> str:
    """What was run, in a line."""
    states = collect.states(record)
    return (
        f"`study.py --preset {record['preset'].replace('+', '`, `')}`: {states['done']} of "
        f"{sum(states.values())} runs, on {record['data']['title']}, with "
        f"`{' '.join(record['flags'])}`"
    )


def base_rate(record: Record) -> str:
    """How often two networks disagree on an image, of one model and of two, over all main rows."""
    same: list[float] = []
    other: list[float] = []
    for place, row in enumerate(tables.disagreements(record, grid.ROWS).rows):
        for column, cell in enumerate(row[1:]):
            if cell != "-":
                (same if column == place else other).append(float(cell))
    if not same or not other:
        return ""
    return (
        f"Two trainings of one model disagree on {sum(same) / len(same):.2f}% of the test images, "
        f"two models on {sum(other) / len(other):.2f}%."
    )


def _compared(pairs: Sequence[evidence.Pair]) -> Callable[[Record], Table]:
    return lambda record: tables.comparisons(record, evidence.compared(record), pairs)


BLOCKS: dict[str, Callable[[Record], Table | str]] = {
    "table1": tables.table1,
    "differences": _compared(grid.MAIN_PAIRS),
    "base-rate": base_rate,
    "disagreements": lambda record: tables.disagreements(record, grid.ROWS),
    "rates": tables.chosen_rates,
    "depth": _compared(grid.DEPTH_PAIRS),
    "relu": _compared([(without, name) for name, without in grid.RELU]),
    "norm": lambda record: tables.costs(record, grid.NORMED),
    "solvers": lambda record: examined.changed_solvers(
        record, ("odenet", "odenet-adjoint", *grid.COARSE)
    ),
}
