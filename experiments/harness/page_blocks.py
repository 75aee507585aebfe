"""Put a run's table and pictures into a page: `python experiments/pages.py PAGE NAME=RUN ...`.

In the page, what is between `<!-- NAME -->` and `<!-- end NAME -->` is replaced by the run's
summary.md and its pictures, which are copied to `pictures/` beside the page.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.harness.files import write_atomic


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) < 2 or not all("=" in pair for pair in given[1:]):
        print("pages.py: expected PAGE NAME=RUN ...", file=sys.stderr)
        return 2
    try:
        for pair in given[1:]:
            name, run = pair.split("=", 1)
            insert(Path(given[0]), name, Path(run))
    except (OSError, ValueError) as error:
        print(f"pages.py: {error}", file=sys.stderr)
        return 2
    return 0


def insert(page: Path, name: str, run: Path) -> None:
    """Put a run's summary and pictures into the block `name` of a page; see `replace`."""
    lines = [(run / "summary.md").read_text()]
    pictures = page.parent / "pictures"
    pictures.mkdir(exist_ok=True)
    for picture in sorted([*run.glob("*.png"), *run.glob("*.gif")]):
        copy = pictures / f"{page.stem}-{name}-{picture.name}"
        shutil.copyfile(picture, copy)
        lines.append(f"![{name}, {picture.stem}](pictures/{copy.name})\n")
    replace(page, name, "\n".join(lines))


def replace(page: Path, name: str, content: str) -> None:
    """Replace the block `name` of a page; ValueError if it has none."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end {name} -->\n"
    text = page.read_text()
    if begin not in text or end not in text:
        raise ValueError(f"{page} has no block {begin.strip()} ... {end.strip()}")
    block = f"{begin}\n{content}\n{end}"
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    write_atomic(page, re.sub(pattern, lambda _: block, text, flags=re.DOTALL))


def block(page: Path, name: str) -> str:
    """What is in a block of a page; LookupError if it has none."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end {name} -->\n"
    found = page.read_text().partition(begin)[2]
    if end not in found:
        raise LookupError(f"{page} has no block {name}")
    return found.partition(end)[0].strip()
