"""Is the adjoint of a coarse step what spoilt training? `python experiments/verdict.py STUDY`.

Applies the rule of section3/coarse_adjoint.py to the runs of `study.py --preset coarse-adjoint`,
in their folder or in the JSON file made of it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments.harness.command import guard
from experiments.harness.errors import ConfigError
from experiments.section3 import coarse_adjoint, collect


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return guard("verdict.py", run, arguments)


def run(arguments: list[str], console: Console) -> None:
    """Print the rule's clauses, the quotient of every seed, and the verdict."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise ConfigError(
            "usage: verdict.py STUDY, the folder of study.py --preset coarse-adjoint or the JSON "
            "file made of it."
        )
    path = Path(arguments[0])
    if not path.exists():
        raise ConfigError(f"{path} is not there.")
    clauses = coarse_adjoint.rule(collect.load(path))
    for clause in clauses:
        bound = f"{'above' if clause.above else 'at most'} {coarse_adjoint.FACTOR:g}"
        found = ", ".join(f"{q:.3g} (seed {s})" for s, q in clause.quotients.items()) or "no runs"
        word = {True: "holds", False: "fails", None: "open"}[clause.holds]
        console.print(f"{word:6s} {clause.text}, {bound}: {found}", highlight=False, soft_wrap=True)
    console.print(coarse_adjoint.verdict(clauses), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
