"""Make a study's runs in processes of their own: what is missing, what fails, how long it takes."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from experiments.harness import workers
from experiments.harness.command import say
from experiments.harness.workers import Outcome, Task
from experiments.section3 import grid
from experiments.section3.cells import Cell
from experiments.section3.collect import summary_of


@dataclass(frozen=True)
class Plan:
    """How runs are made: in `folder`, with the flags of all and those of one, by two commands."""

    folder: Path
    shared: Sequence[str]
    own: Callable[[Cell], Sequence[str]]
    train: Sequence[str]
    examine: Sequence[str]


def execute(
    plan: Plan, cells: Sequence[Cell], jobs: int, minutes: float, console: Console
) -> tuple[set[str], int, int]:
    """Run what is missing: the names of the failed, how many were not begun, how many ended."""
    tasks, failed, skipped = [], set(), 0
    for cell in cells:
        # A run that failed of itself (a loss not finite, a failed solve) would do so again.
        if reason := summary_of(plan.folder / cell.name).get("failed"):
            failed.add(cell.name)
            say(console, "failed", f"{cell.name} (earlier): {reason}")
        elif commands := missing(plan, cell):
            tasks.append(Task(cell.name, commands, plan.folder / "logs" / f"{cell.name}.log"))
        else:
            skipped += 1
    if skipped:
        say(console, "done", f"{skipped} runs are there already")
    progress = Progress(tasks, jobs, console)
    # A monotonic clock: that of the wall may be set back while the study runs.
    end = time.monotonic() + 60 * minutes

    def ended(outcome: Outcome) -> None:
        failure = outcome.failure
        if failure is None and not is_done(plan.folder / outcome.name):
            failure = "it ended without results"
        if failure:
            failed.add(outcome.name)
        progress.ended(outcome, failure)

    left = workers.run(tasks, jobs, ended, may_begin=lambda: time.monotonic() < end)
    return failed, len(left), len(tasks) - len(left)


def missing(plan: Plan, cell: Cell) -> tuple[tuple[str, ...], ...]:
    """The commands that `cell` still needs; nothing is run again that is done."""
    path = plan.folder / cell.name
    commands = []
    if not is_done(path):
        if (path / "config.json").exists():
            commands.append((*plan.train, "--resume", str(path)))
        else:
            # Killed before it had a configuration: nothing in it can be gone on with.
            shutil.rmtree(path, ignore_errors=True)
            own = [*plan.own(cell), *cell.variant.flags.split(), *cell.flags]
            if cell.variant.after:
                earlier = Cell(grid.VARIANTS[cell.variant.after], cell.seed, False)
                own += ["--start-from", str(plan.folder / earlier.name)]
            commands.append((*plan.train, *plan.shared, *own, "--out", str(path)))
    if cell.examined and not (path / "examined.json").exists():
        commands.append((*plan.examine, str(path)))
    return tuple(commands)


def is_done(run: Path) -> bool:
    """Whether a run has trained to its end."""
    return "test_error" in summary_of(run)


class Progress:
    """A line for each run that ends, with the time left over the grid."""

    def __init__(self, tasks: Sequence[Task], jobs: int, console: Console):
        self._waiting = [task.name for task in tasks]
        self._total, self._jobs, self._console = len(tasks), jobs, console
        self._seconds: dict[str, list[float]] = {}

    def ended(self, outcome: Outcome, failure: str | None) -> None:
        """Print how a run ended; `failure` says why it failed."""
        self._waiting.remove(outcome.name)
        if failure is None:
            self._seconds.setdefault(_variant(outcome.name), []).append(outcome.seconds)
        done = self._total - len(self._waiting)
        text = f"{outcome.name}: {failure}" if failure else outcome.name
        left = self.seconds_left()
        rest = "" if left is None else f"  left {left / 60:.0f} min"
        topic = "failed" if failure else "finished"
        say(self._console, topic, f"{done}/{self._total}  {text}  {outcome.seconds:.0f} s{rest}")

    def seconds_left(self) -> float | None:
        """Mean time of the same variant, or of all where it has not ended yet, over the jobs."""
        if not self._seconds:
            return None
        means = {name: statistics.mean(seconds) for name, seconds in self._seconds.items()}
        overall = statistics.mean(means.values())
        return sum(means.get(_variant(name), overall) for name in self._waiting) / self._jobs


def _variant(name: str) -> str:
    return name.rsplit("-seed", 1)[0]
