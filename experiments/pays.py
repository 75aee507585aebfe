"""Where does a Neural ODE pay? `python experiments/pays.py --help`.

Every method of a task gets the same CPU seconds and the same search on validation data; the
protocol is experiments/paying/protocol.py, the answers are docs/where_it_pays.md.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import arg

from experiments.harness import flags
from experiments.harness.command import command, say, show
from experiments.harness.errors import ConfigError
from experiments.harness.files import lock_folder, writing
from experiments.harness.provenance import environment, short
from experiments.paying import page, tasks
from experiments.paying.fit import fit
from experiments.paying.protocol import SEARCH_SEED, Data, Task, Trivial
from experiments.paying.record import Job, Record, searches

PROG = "pays.py"
EXAMPLES = """examples:
  python experiments/pays.py --task moons
      every method on two moons; the same command goes on from what is saved
  python experiments/pays.py --task moons --seconds 200 --record docs/results/pays-moons.json
      with ten times the budget, kept beside the runs that are committed
  python experiments/pays.py --page docs/where_it_pays.md
      the page's tables and pictures anew, from docs/results/pays-*.json
"""


@dataclass(frozen=True)
class What:
    """Which runs."""

    task: Annotated[str | None, flags.named("NAME", "none")] = None
    """What is predicted (an unknown one is answered with the list)."""
    seconds: Annotated[float | None, flags.named("S", "the task's")] = None
    """Budget of each training, in CPU seconds."""
    minutes: Annotated[float, arg(metavar="M")] = 600.0
    """Begin no run after so many minutes."""


@dataclass(frozen=True)
class Where:
    """Where results go."""

    record: Annotated[Path | None, flags.named("FILE", "runs/pays-TASK.json")] = None
    """Record of the runs; what is in it is not run again."""
    page: Annotated[Path | None, flags.named("FILE", "none")] = None
    """Put tables and pictures of the records in results/ beside it into this page; run nothing."""


@dataclass(frozen=True)
class Config:
    """Compare Neural ODEs with baselines that get the same CPU seconds and the same search."""

    what: What = What()
    where: Where = Where()


def run(arguments: list[str], console: Console) -> None:
    """Everything `main` does, with errors as exceptions."""
    config = flags.parse(PROG, EXAMPLES, arguments, Config())
    if config.where.page:
        page.write(config.where.page)
        say(console, "page", str(config.where.page))
        return
    known = {task.name: task for task in tasks.TASKS}
    if config.what.task not in known:
        given = "is missing" if config.what.task is None else f"{config.what.task} is unknown"
        raise ConfigError(f"--task {given}; choose from {', '.join(known)}.")
    task = known[config.what.task]
    seconds = task.seconds if config.what.seconds is None else config.what.seconds
    flags.positive("--seconds", seconds)
    flags.positive("--minutes", config.what.minutes)
    path = config.where.record or Path("runs") / f"pays-{task.name}.json"
    folder = path.parent / f".{path.stem}"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder):
        compare(Record(path, task), seconds, config.what.minutes, console)


def compare(record: Record, seconds: float, minutes: float, console: Console) -> None:
    """Make the runs that are missing, the searches first, and print the table."""
    end = time.monotonic() + 60 * minutes
    data: dict[int, Data] = {}
    commit = short(environment({})["git_commit"])
    left = 0
    for stage in (search_jobs, test_jobs):
        for job in [job for job in stage(record, seconds) if record.find(job) is None]:
            if time.monotonic() >= end:
                left += 1
                continue
            if job.seed not in data:
                data[job.seed] = record.task.data(job.seed)
            found = make(record.task, job, data[job.seed])
            record.add(job, found | {"commit": commit})
            tell(job, found, console)
    if left:
        say(console, "left", f"at least {left} runs not begun; run this again")
    show(console, page.table_of(record, seconds))


def search_jobs(record: Record, seconds: float) -> list[Job]:
    """The runs of the search."""
    learnt = [n for n, m in record.task.methods.items() if not isinstance(m, Trivial)]
    return [job for name in learnt for job in searches(name, seconds)]


def test_jobs(record: Record, seconds: float) -> list[Job]:
    """The tested runs, seed by seed, of methods whose search has ended."""
    jobs = [job for name in record.task.methods for job in record.jobs(name, seconds)]
    return sorted(jobs, key=lambda job: record.task.seeds.index(job.seed))


def make(task: Task, job: Job, data: Data) -> dict:
    """One run."""
    method = task.methods[job.method]
    if isinstance(method, Trivial):
        began = time.process_time()
        scores = {part: method.score(data, part) for part in ("validation", "test")}
        cpu = round(time.process_time() - began, 2)
        return {**scores, "parameters": method.parameters(data), "cpu": cpu}
    assert job.rate is not None
    assert job.size is not None
    assert job.budget is not None
    return fit(
        method, data, rate=job.rate, size=job.size, seed=job.seed, seconds=job.budget,
        test=job.seed != SEARCH_SEED,
    )  # fmt: skip


def tell(job: Job, found: dict, console: Console) -> None:
    """A line for a run that has ended."""
    how = f"rate {job.rate:g} size {job.size}" if job.rate else "no search"
    score = "  ".join(
        f"{part} {found[part]:.4g}" for part in ("validation", "test") if part in found
    )
    why = f"  stopped: {found['stopped']}" if "stopped" in found else ""
    say(console, "run", f"{job.method:12s} seed {job.seed}  {how}  {score}  {found['cpu']} s{why}")


main = command(PROG, run, interrupted="the same command goes on from what is saved")

if __name__ == "__main__":
    sys.exit(main())
