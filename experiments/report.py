"""Tables and pictures of studies: `python experiments/report.py STUDY ... [--out FOLDER]`.

Each STUDY is a study's folder, or a record that collect.py made of one. Studies made alike are
joined. Of each are written results-NAME.md, results-NAME.html (with its pictures inside) and
pictures/; and, where FOLDER has a findings.template.md, findings.md with all of them in it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments.harness.command import command, say
from experiments.harness.errors import ConfigError, RunError
from experiments.harness.files import write_atomic
from experiments.harness.markdown import Table, page
from experiments.harness.provenance import short
from experiments.section3 import collect, evidence, examined, figures, findings, grid, rates, tables
from experiments.section3.collect import Record
from experiments.section3.evidence import done

USAGE = "expected STUDY ... [--out FOLDER], STUDY being a study's folder or a record of one"
EXAMINED = ("odenet", "odenet-adjoint", "rknet", *grid.COARSE)


def run(arguments: list[str], console: Console) -> None:
    """Everything `main` does, with errors as exceptions."""
    studies, out = parse(arguments)
    records = joined([collect.load(study) for study in studies])
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, record in records.items():
            drawn = figures.draw(record, out / "pictures", f"study-{name}")
            text = results(record, drawn)
            write_atomic(out / f"results-{name}.md", text)
            write_atomic(out / f"results-{name}.html", page(text, out / "pictures"))
            tell(record, console)
            say(console, "written", f"{out / f'results-{name}.md'} and .html")
        template = out / "findings.template.md"
        if template.exists():
            write_atomic(out / "findings.md", findings.fill(template.read_text(), records, out))
    except OSError as error:
        raise RunError(f"the report cannot be written to {out}: {error}.") from None


def joined(records: Sequence[Record]) -> dict[str, Record]:
    """Records made alike joined into one, by the name of a preset of theirs.

    Runs that chose a learning rate are among the repeats of their variant.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        alike = " ".join(record["flags"]), record["data"]["sha256"]
        groups.setdefault(alike, []).append(record)
    found = {}
    for group in groups.values():
        record = collect.join(group)
        record["runs"] += rates.repeat(record, [grid.VARIANTS[name] for name in grid.RATED])
        presets = record["preset"].split("+")
        # The runs that chose the rates are a first repeat of the main study.
        main = {"rates", findings.MAIN} & set(presets)
        found[findings.MAIN if main else presets[0]] = record
    return found


def tell(record: Record, console: Console) -> None:
    """How many runs of a record there are, and which are not."""
    states = collect.states(record)
    say(console, "runs", f"{states['done']} of {sum(states.values())} finished")
    for state in collect.STATES[1:]:
        names = [tables.name_of(run) for run in record["runs"] if run["status"] == state]
        if names:
            more = f" and {len(names) - 9} more" if len(names) > 9 else ""
            say(console, state, "; ".join(names[:9]) + more)


def parse(arguments: Sequence[str]) -> tuple[list[Path], Path]:
    """The studies, and the folder for the report (by default `report` in the first's folder)."""
    given = list(arguments)
    out = None
    if "--out" in given:
        at = given.index("--out")
        if at + 1 == len(given):
            raise ConfigError("--out needs a folder.")
        out = Path(given[at + 1])
        del given[at : at + 2]
    if not given or any(argument.startswith("-") for argument in given):
        raise ConfigError(f"{USAGE}; see --help.")
    studies = [Path(argument) for argument in given]
    for study in studies:
        if not study.exists():
            raise ConfigError(f"{study} is not there; {USAGE}.")
    first = studies[0]
    return studies, out or (first if first.is_dir() else first.parent) / "report"


def results(record: Record, pictures: dict[str, str]) -> str:
    """The page of results, in Markdown; `pictures` are file names in the folder `pictures`."""
    verdicts = evidence.compared(record)
    compared = lambda pairs: tables.comparisons(record, verdicts, pairs)
    blocks = ["# Results of the study\n", f"{introduction(record)}\n"]

    def section(title: str, text: str, found: Sequence[Table], picture: str = "") -> None:
        filled = [str(table) for table in found if table.rows]
        if filled:
            blocks.extend([f"## {title}\n", *([f"{text}\n"] if text else []), *filled])
            if picture in pictures:
                blocks.append(f"![{title}](pictures/{pictures[picture]})\n")

    section("Learning rates", RATES, [tables.chosen_rates(record)])
    section("Table 1", TABLE1, [tables.table1(record)], "curves")
    section(
        "Has training come to rest?",
        "Means over runs. Crops are drawn anew each epoch, so that the loss does not reach 0.",
        [tables.convergence(record, [*grid.TABLE1, *grid.DEPTH[1:3], "resnet12", *grid.COARSE])],
    )
    section(
        "How often two networks disagree",
        "Per cent of the test images; on the diagonal two trainings of one model.",
        [tables.disagreements(record, grid.TABLE1)],
    )
    to_odenet = lambda names: [(name, "odenet") for name in names if name != "odenet"]
    section("Differences", DIFFERENCES, [compared(grid.MAIN_PAIRS)], "differences")
    section(
        "Depth",
        "ResNets of several depths against ODE-Net, whose parameters are those of about one "
        "block, and whose compute is that of several.",
        [tables.costs(record, grid.DEPTH), compared(grid.DEPTH_PAIRS)],
        "depth",
    )
    for title, names in (
        ("Tolerance", grid.TOLERANCE),
        ("Time span", grid.T1),
        ("Regularised dynamics", grid.REGULARISED),
    ):
        if any(done(record, name) for name in names if name != "odenet"):
            section(title, "", [tables.costs(record, names), compared(to_odenet(names))])
    section(
        "Without the final ReLU", "", [compared([(without, name) for name, without in grid.RELU])]
    )
    if any(done(record, name) for name in grid.NORMED if name.split("-")[1:2] == ["batch"]):
        section(
            "The final ReLU and the normalisation",
            "The vector field of ODE-Net keeps 32 groups where its other layers normalise over the "
            "batch.",
            [tables.costs(record, grid.NORMED), compared(grid.NORM_PAIRS)],
        )
    if "characteristics" in pictures:
        blocks += [
            "## Characteristics of ODE-Net (Figure 3 of the paper)\n",
            "Panel d: means over runs. Panels a to c, of networks that were looked at after "
            "training: solved again at tolerances from 1e-1 to 1e-6; the error is that of the "
            "logits against those at 1e-6, in relative 2-norm.\n",
            f"![Characteristics of ODE-Net](pictures/{pictures['characteristics']})\n",
        ]
    section(
        "Another solver after training",
        "The same weights, tested with other tolerances and solvers than they were trained with. "
        f"Change: test error minus that of the same network as it was trained; {UNITS}",
        [examined.changed_solvers(record, EXAMINED)],
        "solvers",
    )
    section(
        "Noise, shift and rotation",
        f"Test error (%) on test images changed in ways not seen in training; {UNITS}",
        [examined.robustness(record, (evidence.ode_net(record), *grid.MAIN[:-1]), "resnet6")],
        "robustness",
    )
    section("Runs without results", "", [tables.failures(record)])
    return "\n".join(blocks)


def introduction(record: Record) -> str:
    """What was run, on what, by which code."""
    session = record["sessions"][-1]
    commits = sorted({short(run["commit"]) for run in record["runs"] if run.get("commit")})
    devices = sorted({run["device"] for run in record["runs"] if run.get("device")})
    states = collect.states(record)
    presets = ", ".join(record["preset"].split("+"))
    chosen = "--validation" in record["flags"]
    return (
        f"Runs of `python experiments/study.py --preset {presets}`, pages by `python "
        f"experiments/report.py`: {states['done']} of {sum(states.values())} runs finished. "
        f"**Data: {record['data']['title']}.** Flags of every run: `{' '.join(record['flags'])}`. "
        f"Device: {', '.join(devices)}, {session['cores']} cores, {session['jobs']} runs at once, "
        f"each on its share of the cores; seconds depend on that. "
        f"Commit {', '.join(commits)}. No number on this page is typed by hand.\n\n"
        + (CHOSEN if chosen else NOT_CHOSEN)
    )


CHOSEN = (
    "The tested weights are those of the epoch of least validation loss; no test image had a say "
    "in anything. Intervals are 95%, over test images and repeats together, for training on these "
    "images: the choice of the training images is not in them."
)
NOT_CHOSEN = (
    "These are small runs: few epochs, and no validation images. Their errors are not to be held "
    "against the paper's; what they can show is differences between models trained alike. The "
    "learning rate and batch size were chosen while looking at the same test images; the error is "
    "that after the last epoch. Intervals are 95%, over test images and repeats together."
)
RATES = (
    "Every model at three rates, and a lower one where the least won, once on each fold; the least "
    "mean validation loss over the folds decides. No test image was looked at."
)
TABLE1 = (
    "NFE: evaluations of the vector field in a training step of the last epoch; those backward of "
    "direct and checkpointed gradients are the ones recomputed to be differentiated. Seconds are "
    "medians over runs. Memory is the largest that the process held, libraries and compiler "
    "included. The paper's and the follow-up's errors are of 60,000 images and 160 epochs; the "
    "follow-up's implicit Adams was one Runge-Kutta step."
)
DIFFERENCES = (
    "Test error of the model minus that of the other, on the same images. The variance is that of "
    "images and repeats together (two-way random effects). Claims are corrected by Holm's method "
    "for all comparisons on this page, and each interval has the level at which its claim was "
    "tested; margins were fixed before the runs. The difference in loss (mean negative "
    "log-likelihood) has an interval of 95% and no claim."
)
UNITS = "intervals are Student's t over folds, or over seeds where there are no folds."


main = command("report.py", run, usage=__doc__)

if __name__ == "__main__":
    sys.exit(main())
