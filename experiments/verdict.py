"""Is the adjoint of a coarse step what spoilt training? `python experiments/verdict.py STUDY`.

Applies the rule of section3/coarse_adjoint.py to the runs of `study.py --preset coarse-adjoint` or
`coarse-adjoint-long`, in their folder or in the JSON file made of it. `verdict.py STUDY FOLDER`
writes tables and pictures too, for `pages.py docs/implicit_adams.md verdict=FOLDER
follow-up=FOLDER/follow-up`, or `long=FOLDER`, or, of `coarse-adjoint-full`, `full=FOLDER`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console

from experiments.harness.command import command
from experiments.harness.errors import ConfigError
from experiments.harness.figures import save
from experiments.harness.files import write_atomic, writing
from experiments.section3 import (
    both_gradients_page,
    coarse_adjoint,
    coarse_adjoint_page,
    collect,
    follow_up_page,
)
from experiments.section3.coarse_adjoint import FULL, LONG
from experiments.section3.collect import Record


def run(arguments: list[str], console: Console) -> None:
    """Print the rule's clauses, the quotient of every seed, and the verdict."""
    if len(arguments) not in (1, 2) or arguments[0].startswith("-"):
        raise ConfigError("expected STUDY [FOLDER]; --help says more.")
    path = Path(arguments[0])
    if not path.exists():
        raise ConfigError(f"{path} is not there.")
    record = collect.load(path)
    both = record["preset"] in (LONG, FULL)
    clauses = coarse_adjoint.clauses(record)
    for clause in clauses:
        found = ", ".join(f"{q:.3g} (seed {s})" for s, q in clause.quotients.items()) or "no runs"
        line = f"{clause.state:6s} {clause.text}, {clause.bound}: {found}"
        console.print(line, highlight=False, soft_wrap=True)
    if not both:
        console.print(coarse_adjoint.verdict(clauses), highlight=False, soft_wrap=True)
    if len(arguments) == 2:
        out = Path(arguments[1])
        if both:
            write(record, out, both_gradients_page.text, both_gradients_page.curves)
        else:
            page = coarse_adjoint_page
            write(record, out, page.text, page.training, page.switch, page.why, page.cost)
            write(record, out / "follow-up", follow_up_page.text, follow_up_page.curves)


def write(
    record: Record,
    folder: Path,
    text: Callable[[Record], str],
    *pictures: Callable[[Record], Figure | None],
) -> None:
    """Tables of a record as summary.md, and pictures under their functions' names."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            if figure := picture(record):
                save(folder / f"{picture.__name__}.png", figure)
        write_atomic(folder / "summary.md", text(record))


main = command("verdict.py", run, usage=__doc__)

if __name__ == "__main__":
    sys.exit(main())
