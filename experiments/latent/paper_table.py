"""The paper's table 2 from run folders: `python experiments/latent_table.py PAGE RUN ...`.

Between `<!-- table -->` and `<!-- end table -->` of the page comes a column for each run of
latent_ode.py on spirals, in order of the number of observations.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.harness import page_blocks
from experiments.harness.command import command
from experiments.harness.errors import ConfigError
from experiments.harness.markdown import table
from experiments.latent.predictions import PAPER


def run(arguments: list[str], console: Console) -> None:
    """Everything `main` does, with errors as exceptions."""
    page, *runs = arguments or [""]
    if not runs:
        raise ConfigError("expected PAGE RUN ...")
    try:
        found = compare([json.loads((Path(r) / "summary.json").read_text()) for r in runs])
        page_blocks.replace(Path(page), "table", found)
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from None


main = command("latent_table.py", run, usage=__doc__)


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
