"""Put a run's table and pictures into a page: `python experiments/pages.py PAGE NAME=RUN ...`.

In the page, what is between `<!-- NAME -->` and `<!-- end NAME -->` is replaced by the run's
summary.md and its pictures, which are copied to `pictures/` beside the page; its summary.json, if
it has one, to `results/`.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from rich.console import Console

from experiments.harness.command import command
from experiments.harness.errors import ConfigError
from experiments.harness.files import write_atomic


def run(arguments: list[str], console: Console) -> None:
    """Everything `main` does, with errors as exceptions."""
    page, *pairs = arguments or [""]
    if not pairs or not all("=" in pair for pair in pairs):
        raise ConfigError("expected PAGE NAME=RUN ...")
    try:
        for pair in pairs:
            name, folder = pair.split("=", 1)
            insert(Path(page), name, Path(folder))
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from None


main = command("pages.py", run, usage=__doc__)


def insert(page: Path, name: str, run: Path) -> None:
    """Put a run's summary and pictures into the block `name` of a page; see `replace`."""
    lines = [(run / "summary.md").read_text()]
    pictures, results = page.parent / "pictures", page.parent / "results"
    pictures.mkdir(exist_ok=True)
    if (run / "summary.json").exists():
        results.mkdir(exist_ok=True)
        shutil.copyfile(run / "summary.json", results / f"{page.stem}-{name}.json")
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
