"""Tables and pictures of a study: `python experiments/report.py STUDY [--out FOLDER]`.

STUDY is a study's folder, or the JSON record that this command writes of one. Written are
results.md, results.html (with its pictures inside), pictures/ and results/study-PRESET.json; and,
where FOLDER has a findings.template.md, findings.md with the study's numbers in it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments.harness.command import guard, say
from experiments.harness.errors import ConfigError, RunError
from experiments.harness.files import write_atomic
from experiments.harness.markdown import Block, Heading, Picture, Table, Text, markdown, page
from experiments.harness.provenance import short
from experiments.section3 import figures, findings, grid, tables
from experiments.section3.collect import load
from experiments.section3.tables import Record, done

USAGE = "expected STUDY [--out FOLDER], STUDY being a study's folder or a record of one"
EXAMINED = ("odenet", "odenet-adjoint", "rknet")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return guard("report.py", run, arguments)


def run(arguments: list[str], console: Console) -> None:
    """Everything `main` does, with errors as exceptions."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    study, out = parse(arguments)
    record = load(study)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "results").mkdir(exist_ok=True)
        write_atomic(out / "results" / f"study-{record['preset']}.json", compact(record))
        names = figures.draw(record, out / "pictures", f"study-{record['preset']}")
        blocks = results(record, names)
        write_atomic(out / "results.md", markdown(blocks))
        write_atomic(out / "results.html", page(blocks, out / "pictures"))
        template = out / "findings.template.md"
        if template.exists():
            write_atomic(out / "findings.md", findings.fill(template.read_text(), record, out))
    except OSError as error:
        raise RunError(f"the report cannot be written to {out}: {error}.") from None
    failed = [run for run in record["runs"] if run["status"] == "failed"]
    missing = [run for run in record["runs"] if run["status"] == "missing"]
    total = len(record["runs"])
    say(console, "runs", f"{total - len(failed) - len(missing)} of {total} finished")
    for word, runs in (("failed", failed), ("missing", missing)):
        if runs:
            say(console, word, ", ".join(f"{run['variant']}-seed{run['seed']}" for run in runs))
    say(console, "written", f"{out / 'results.md'}, {out / 'results.html'}")


def parse(arguments: Sequence[str]) -> tuple[Path, Path]:
    """The study, and the folder for the report (by default `report` in the study's folder)."""
    given = list(arguments)
    out = None
    if "--out" in given:
        at = given.index("--out")
        if at + 1 == len(given):
            raise ConfigError("--out needs a folder.")
        out = Path(given[at + 1])
        del given[at : at + 2]
    if len(given) != 1 or given[0].startswith("-"):
        raise ConfigError(f"{USAGE}; see --help.")
    study = Path(given[0])
    if not study.exists():
        raise ConfigError(f"{study} is not there; {USAGE}.")
    return study, out or (study if study.is_dir() else study.parent) / "report"


def compact(record: Record) -> str:
    """The record as JSON, a line a run: small, and readable as a diff."""
    head = {key: value for key, value in record.items() if key != "runs"}
    lines = ",\n".join(json.dumps(run, separators=(",", ":")) for run in record["runs"])
    return json.dumps(head, indent=1)[:-2] + f',\n "runs": [\n{lines}\n]}}\n'


def results(record: Record, pictures: dict[str, str]) -> list[Block]:
    """The page of results."""
    blocks: list[Block] = [Heading("Results of the study", 1), Text(introduction(record))]

    def section(title: str, text: str, found: Sequence[Table], picture: str = "") -> None:
        filled = [table for table in found if table.rows]
        if filled:
            blocks.append(Heading(title))
            if text:
                blocks.append(Text(text))
            blocks.extend(filled)
            if picture in pictures:
                blocks.append(Picture(pictures[picture], title))

    section(
        "Table 1",
        "Test error after the last epoch, mean and 95% interval (Student's t) over seeds. NFE: "
        "evaluations of the vector field in a training step of the last epoch; those backward of "
        "direct and checkpointed gradients are the ones recomputed to be differentiated. Seconds "
        "are medians over seeds. Memory "
        "is the largest that the process held, libraries and compiler included. Where the network "
        "has a row in the paper's Table 1 it stands at the right.",
        [tables.table1(record)],
        "curves",
    )
    others = [name for name in grid.TABLE1 if name != "odenet"]
    section(
        "Differences from ODE-Net",
        "Differences in test error of runs with the same seed, hence the same order of the "
        "images. Two things vary: the training (± seeds, Student's t) and the choice of test "
        "images (± test images; only those count on which the two models disagree, as in "
        "McNemar's test). The statement rests on both together; it is not corrected for there "
        "being many comparisons.",
        [tables.comparisons(record, [(name, "odenet") for name in others])],
    )
    section(
        "Depth",
        "ResNets of several depths against ODE-Net, whose parameters are those of about one "
        "block, and whose compute is that of several.",
        [
            tables.costs(record, grid.DEPTH),
            tables.comparisons(record, [(n, "odenet") for n in grid.DEPTH if n != "odenet"]),
        ],
        "depth",
    )
    for title, names in (
        ("Tolerance", grid.TOLERANCE),
        ("Time span", grid.T1),
        ("Regularised dynamics", grid.REGULARISED),
    ):
        changed = [name for name in names if name != "odenet"]
        if any(done(record, name) for name in changed):
            pairs = [(name, "odenet") for name in changed]
            section(title, "", [tables.costs(record, names), tables.comparisons(record, pairs)])
    section(
        "Without the final ReLU",
        "",
        [tables.comparisons(record, [(without, name) for name, without in grid.RELU])],
    )
    if "characteristics" in pictures:
        blocks.append(Heading("Characteristics of ODE-Net (Figure 3 of the paper)"))
        blocks.append(
            Text(
                "Panels a to c solve trained networks again at tolerances from 1e-1 to 1e-6. The "
                "error is that of the logits against those at 1e-6, in relative 2-norm."
            )
        )
        blocks.append(Picture(pictures["characteristics"], "Characteristics of ODE-Net"))
    section(
        "Another solver after training",
        "The same weights, tested with other tolerances and solvers than they were trained with. "
        "Change: test error minus that of the same network as it was trained.",
        [tables.changed_solvers(record, EXAMINED)],
        "solvers",
    )
    section(
        "Noise, shift and rotation",
        "Test error (%) on test images changed in ways not seen in training.",
        [tables.robustness(record, ("odenet", "resnet6", "resnet1", "rknet"), "resnet6")],
        "robustness",
    )
    section("Runs without results", "", [tables.failures(record)])
    return blocks


def introduction(record: Record) -> str:
    """What was run, on what, by which code."""
    session = record["sessions"][-1]
    commits = sorted({short(run["commit"]) for run in record["runs"] if run.get("commit")})
    devices = sorted({run["device"] for run in record["runs"] if run.get("device")})
    finished = sum(run["status"] == "done" for run in record["runs"])
    embedded = record["data"]["source"] == "embedded"
    return (
        f"`python experiments/study.py --preset {record['preset']}`, then "
        f"`python experiments/report.py`: {finished} of {len(record['runs'])} runs finished. "
        f"**Data: {record['data']['title']}.** Flags of every run: `{' '.join(record['flags'])}`. "
        f"Device: {', '.join(devices)}, {session['cores']} cores, {session['jobs']} runs at once, "
        f"each on its share of the cores; seconds depend on that. "
        f"Commit {', '.join(commits)}. No number on this page is typed by hand."
        + (
            "\n\nThese are small runs: few images, few epochs. Their errors are not to be held "
            "against the paper's; what they can show is differences between models trained "
            "alike. The learning rate and batch size were chosen while looking at the same test "
            "images. There is no validation split: the error is that after the last epoch, with "
            "no choice of epoch."
            if embedded
            else ""
        )
    )


if __name__ == "__main__":
    sys.exit(main())
