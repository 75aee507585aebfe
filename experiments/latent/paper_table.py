"""The paper's table 2 from run folders: `python experiments/latent_table.py PAGE RUN ...`.

Between `<!-- table -->` and `<!-- end table -->` of the page comes a column for each run of
latent_ode.py on spirals, in order of the number of observations.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.harness import page_blocks
from experiments.harness.markdown import table
from experiments.latent.predictions import PAPER


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) < 2:
        print("latent_table.py: expected PAGE RUN ...", file=sys.stderr)
        return 2
    try:
        table = compare([json.loads((Path(r) / "summary.json").read_text()) for r in given[1:]])
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "summary.md").write_text(table)
            page_blocks.insert(Path(given[0]), "table", Path(folder))
    except (OSError, ValueError) as error:
        print(f"latent_table.py: {error}", file=sys.stderr)
        return 2
    return 0


def compare(summaries: Sequence[dict[str, Any]]) -> str:
    """RMSE beyond the observed stretch: a column for each run, a row for each method."""
    try:
        runs = {s["observations"]: s["rmse"] for s in summaries}
        seconds = ", ".join(f"{s['seconds_total']:.0f}" for s in summaries)
        unknown = [count for count in runs if count not in PAPER]
        if unknown or len(runs) < len(summaries):
            raise ValueError(f"one run each of {', '.join(map(str, PAPER))} observations expected")
        counts = sorted(runs)
        names = dict.fromkeys(name for s in summaries for name in s["rmse"])
        sizes = "; ".join(s["data"] for s in summaries)
        body: list[list[Any]] = [
            [name, *(runs[n].get(name, {}).get("beyond", "") for n in counts)] for name in names
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a summary.json is not of latent_ode.py ({error!r})") from None
    for at, name in ((1, "paper, latent ODE"), (0, "paper, RNN")):
        body.append([name, *(PAPER[n][at] for n in counts)])
    headers = ["RMSE at 100 times beyond", *(f"{n} of 100 observed" for n in counts)]
    return f"{table(headers, body)}\nRuns: {sizes}. Seconds: {seconds}, on a shared machine.\n"
