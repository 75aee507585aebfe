"""Runs of a task as one JSON file, a line a run: what is in it is not run again."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.harness.errors import ConfigError, RunError
from experiments.harness.files import write_atomic, writing
from experiments.paying import protocol
from experiments.paying.protocol import Part, Task, Trivial, Verdict, judge

Run = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A run to be made; a trivial method has no rate and no size, and counts for every budget."""

    method: str
    seed: int
    rate: float | None = None
    size: int | None = None
    budget: float | None = None
    search: bool = False


KEY = [field.name for field in dataclasses.fields(Job)]  # tells a run of a record from others


class Record:
    """The runs of one task, in the order in which they were made, and their file."""

    def __init__(self, path: Path, task: Task):
        self.path, self.task = path, task
        self.runs: list[Run] = []
        if not path.exists():
            return
        try:
            saved = json.loads(path.read_text())
            name, self.runs = saved["task"], saved["runs"]
            for run in self.runs:
                Job(**{name: run[name] for name in KEY})
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise RunError(f"{path} is no record of pays.py ({error!r}).") from None
        if name != task.name:
            raise ConfigError(f"{path} has the runs of {name}, not of {task.name}.")

    def find(self, job: Job) -> Run | None:
        """The run of a job, if it has been made."""
        key = dataclasses.asdict(job)
        return next((run for run in self.runs if run.items() >= key.items()), None)

    def add(self, job: Job, found: Run) -> None:
        """Keep a run, and write the file."""
        self.runs.append(dataclasses.asdict(job) | _finite(found))
        lines = ",\n".join(json.dumps(run, separators=(",", ":")) for run in self.runs)
        text = f'{{"task": {json.dumps(self.task.name)}, "runs": [\n{lines}\n]}}\n'
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, text)

    def budgets(self) -> list[float]:
        """Those that runs were made with, the smallest first."""
        return sorted({run["budget"] for run in self.runs if run["budget"] and not run["search"]})

    def chosen(self, name: str, budget: float) -> Job | None:
        """Rate and size of a method by the least validation score; None before the search's end.

        A method of which every search failed is left as it is first in the search.
        """
        jobs = list(searches(name, budget))
        runs = [self.find(job) for job in jobs]
        if any(run is None for run in runs):
            return None
        score = lambda pair: _number(pair[1]["validation"])
        return min(zip(jobs, runs, strict=True), key=score)[0]

    def jobs(self, name: str, budget: float) -> list[Job]:
        """The runs to be tested, a seed each; none before the end of the method's search."""
        if isinstance(self.task.methods[name], Trivial):
            return [Job(name, seed) for seed in self.task.seeds]
        if chosen := self.chosen(name, budget):
            return [Job(name, s, chosen.rate, chosen.size, budget) for s in self.task.seeds]
        return []

    def tests(self, name: str, budget: float) -> list[Run]:
        """The tested runs of a method, in the order of the seeds."""
        return [run for job in self.jobs(name, budget) if (run := self.find(job))]

    def scores(self, name: str, budget: float) -> dict[Part, list[float]]:
        """Validation and test scores, infinite where training failed."""
        runs = self.tests(name, budget)
        parts: tuple[Part, ...] = ("validation", "test")
        return {part: [_number(run[part]) for run in runs] for part in parts}

    def verdict(self, budget: float) -> Verdict | None:
        """What the rule says; None before every method has a run for every seed."""
        scores = {name: self.scores(name, budget) for name in self.task.methods}
        if any(len(found["test"]) < len(self.task.seeds) for found in scores.values()):
            return None
        whole = {n: f for n, f in scores.items() if all(map(math.isfinite, f["validation"]))}
        return judge(self.task, whole)


def searches(name: str, budget: float) -> Iterator[Job]:
    """The runs that choose a method's rate and size."""
    share = round(budget * protocol.SEARCH_SHARE, 3)
    for size in protocol.SIZES:
        for rate in protocol.RATES:
            yield Job(name, protocol.SEARCH_SEED, rate, size, share, search=True)


def _finite(found: Run) -> Run:
    """JSON has no infinity: null."""
    bad = lambda value: isinstance(value, float) and not math.isfinite(value)
    return {k: None if bad(v) else float(f"{v:.6g}") if isinstance(v, float) else v
            for k, v in found.items()}  # fmt: skip


def _number(value: float | None) -> float:
    return math.inf if value is None else value
