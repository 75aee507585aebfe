"""docs/where_it_pays.md from the records beside it: blocks of tables, and pictures."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean

from experiments.harness import figures, page_blocks
from experiments.harness.markdown import table
from experiments.latent.predictions import PAPER
from experiments.paying import pictures, protocol
from experiments.paying.protocol import Task, Verdict
from experiments.paying.record import Record
from experiments.paying.tasks import TASKS
from experiments.section3.intervals import Interval, interval

ORDER = ("does not pay", "not decided", "pays", "unfinished", "not run")


def write(page: Path) -> None:
    """Fill the page's blocks: `summary`, `table-2`, and one for each task.

    Raises ValueError if one lacks.
    """
    records = load(page.parent / "results")
    page_blocks.replace(page, "summary", summary(records))
    page_blocks.replace(page, "table-2", table_2(records))
    for task in TASKS:
        page_blocks.replace(page, task.name, block(records.get(task.name), task))
    found = [(record.task, record.verdict(record.task.seconds)) for record in records.values()]
    if decided := [(task, verdict) for task, verdict in found if verdict]:
        figures.save(page.parent / "pictures" / "where_it_pays-gains.png", pictures.gains(decided))
    names = {task.name for task, _ in decided}
    spirals = {n: records[f"spirals-{n}"] for n in (10, *PAPER) if f"spirals-{n}" in names}
    if len(spirals) > 1:
        path = page.parent / "pictures" / "where_it_pays-sparser.png"
        figures.save(path, pictures.sparser(spirals))
    for record in records.values():
        for budget in record.budgets():
            path = page.parent / picture(record.task, budget)
            figures.save(path, pictures.scores(record, budget))


def load(folder: Path) -> dict[str, Record]:
    """The records in a folder by task."""
    paths = [(task, folder / f"pays-{task.name}.json") for task in TASKS]
    return {task.name: Record(path, task) for task, path in paths if path.exists()}


def block(record: Record | None, task: Task) -> str:
    """The tables of a task, one for each budget."""
    if record is None or not record.budgets():
        return f"*Not run yet*: `python experiments/pays.py --task {task.name}`.\n"
    parts = []
    for budget in record.budgets():
        caption = f"{task.title}: what every method reached"
        parts += [table_of(record, budget), f"![{caption}]({picture(task, budget)})\n"]
    return "\n".join(parts)


def picture(task: Task, budget: float) -> str:
    """Where the picture of a comparison is, beside the page."""
    return f"pictures/where_it_pays-{task.name}-{budget:g}.png"


def table_of(record: Record, budget: float) -> str:
    """What every method reached with a budget, the best first, and the verdict."""
    task = record.task
    rows = []
    for name, method in task.methods.items():
        runs = record.tests(name, budget)
        if not runs:
            continue
        scores = record.scores(name, budget)
        numbers = [math.nan if math.isinf(s) else s for s in scores["test"]]
        first = runs[0]
        rows.append(
            (
                fmean(scores["validation"]),
                [
                    method.title,
                    method.kind,
                    f"{first['rate']:g}" if first["rate"] else "",
                    first["size"] or "",
                    f"{first['parameters']:,}",
                    f"{fmean(run['cpu'] for run in runs):.1f}",
                    f"{fmean(run['steps'] for run in runs):,.0f}" if "steps" in first else "",
                    len(runs),
                    shown(interval(numbers)),
                ],
            )
        )
    headers = ["method", "kind", "rate", "size", "parameters", "CPU s", "steps", "seeds",
               task.measure]  # fmt: skip
    body = [row for _, row in sorted(rows, key=lambda pair: pair[0])]
    verdict = record.verdict(budget)
    words = (
        f"**{verdict.words}**: {explained(task, verdict)}" if verdict else "not all runs made yet"
    )
    commits = ", ".join(sorted({run["commit"] for run in record.runs}))
    return (
        f"{budget:g} CPU seconds a training: {words}.\n\n{table(headers, body)}\n"
        f"`python experiments/pays.py --task {task.name} --seconds {budget:g}`, commit {commits}; "
        "the order is that of the validation scores.\n"
    )


def explained(task: Task, verdict: Verdict) -> str:
    """The comparison that a verdict rests on, in words."""
    ode, rival = (task.methods[name].title for name in (verdict.ode, verdict.rival))
    unit = f" {task.unit}" if task.unit else ""
    margin = f"{100 * task.margin:g}%" if task.relative else f"{task.margin:g}{unit}"
    return f"{ode} against {rival}, gain {gain(task, verdict.gain)}{unit}, margin {margin}"


def gain(task: Task, found: Interval) -> str:
    """A gain with its interval; of relative ones in per cent of the rival's score."""
    if not task.relative:
        return f"{found.mean:+.3g} ({found.low:+.3g} to {found.high:+.3g})"
    low, mean, high = (100 * -math.expm1(-g) for g in (found.low, found.mean, found.high))
    return f"{mean:+.0f}% ({low:+.0f}% to {high:+.0f}%)"


def shown(found: Interval) -> str:
    """A mean and the half width of its interval, which one seed does not have."""
    return f"{found.mean:.4g}" + (f" ± {found.half:.2g}" if found.n > 1 else "")


def summary(records: dict[str, Record]) -> str:
    """Task by task the best Neural ODE, its best rivals and the verdict; refutations first."""
    rows = []
    for task in TASKS:
        record = records.get(task.name)
        for budget in record.budgets() if record else [None]:
            verdict = record.verdict(budget) if record and budget else None
            words = verdict.words if verdict else "unfinished" if budget else "not run"
            cells = [words] * 3 + ["", words]
            if record and budget and verdict:
                cells = [
                    *(best(record, budget, kind) for kind in ("Neural ODE", "baseline", "trivial")),
                    gain(task, verdict.gain),
                    f"**{words}**",
                ]
            row = [f"{task.title} ({task.measure})", f"{budget:g}" if budget else "", *cells]
            rows.append((ORDER.index(words), row))
    headers = ["task (measure)", "CPU s", "Neural ODE", "best baseline", "best trivial", "gain",
               "verdict"]  # fmt: skip
    return table(headers, [row for _, row in sorted(rows, key=lambda pair: pair[0])])


def best(record: Record, budget: float, kind: protocol.Kind) -> str:
    """The method of a kind with the least mean validation score: test score and title."""
    names = [n for n, m in record.task.methods.items() if m.kind == kind]
    name = min(names, key=lambda n: fmean(record.scores(n, budget)["validation"]))
    found = interval(record.scores(name, budget)["test"])
    return f"{shown(found)} ({record.task.methods[name].title})"


def table_2(records: dict[str, Record]) -> str:
    """The paper's table 2 beside the tasks on its spirals, each at the task's own budget."""
    tasks = {n: task for n in PAPER for task in TASKS if task.name == f"spirals-{n}"}

    def here(kind: protocol.Kind) -> list[str]:
        found = [(records.get(task.name), task.seconds) for task in tasks.values()]
        # Methods whose runs are not all made have no mean to be the best by.
        return [best(r, s, kind) if r and r.verdict(s) else "not finished" for r, s in found]

    rows: list[list[str | float]] = [
        ["latent ODE", *here("Neural ODE")],
        ["paper, latent ODE", *(ode for _, ode in PAPER.values())],
        ["best of the others", *here("baseline")],
        ["paper, RNN", *(rnn for rnn, _ in PAPER.values())],
    ]
    headers = ["RMSE at 100 times beyond", *(f"{n} of 100 observed" for n in tasks)]
    first = tasks[min(tasks)]
    return (
        f"{table(headers, rows)}\nMeans of {len(first.seeds)} seeds, {first.seconds:g} CPU seconds "
        "a training; of each kind the method of the least mean validation error.\n"
    )
