"""Join studies into one record: `python experiments/collect.py RECORD.json STUDY ...`.

Each STUDY is a study's folder, finished or not, or a record of one. RECORD.json is written, with
what it holds already kept; study.py --results takes it as done, report.py makes pages of it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from experiments.harness.command import command, say
from experiments.harness.errors import ConfigError
from experiments.harness.files import write_atomic, writing
from experiments.section3 import collect


def run(arguments: list[str], console: Console) -> None:
    """Everything `main` does, with errors as exceptions."""
    paths = [Path(argument) for argument in arguments]
    if len(paths) < 2 or paths[0].suffix != ".json" or any(a.startswith("-") for a in arguments):
        raise ConfigError("expected RECORD.json STUDY ..., the record to write and what to join.")
    for path in paths[1:]:
        if not path.exists():
            raise ConfigError(f"{path} is not there.")
    out = paths[0]
    record = collect.join([collect.load(p) for p in paths[not out.exists() :]])
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, collect.text(record))
    counts = ", ".join(f"{n} {state}" for state, n in collect.states(record).items() if n)
    say(console, "written", f"{out}: {counts}")


main = command("collect.py", run, usage=__doc__)

if __name__ == "__main__":
    sys.exit(main())
