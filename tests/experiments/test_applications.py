"""What all applications share, in their smoke forms: they write, resume bit for bit, and refuse."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from experiments import augmented, cnf, dynamics, latent_ode
from experiments.harness import figures
from experiments.harness.application import page
from experiments.harness.page_blocks import block
from experiments.harness.run_folder import RunFolder
from jax_node import checkpoint


@dataclasses.dataclass(frozen=True)
class Promise:
    """Flags of a run, its pictures, what its summary holds, and flags that it cannot be given."""

    command: ModuleType
    flags: list[str]
    pictures: list[str]
    summary: Callable[[dict[str, Any], str], bool]
    refused: list[str]
    complaint: str
    smaller: dict[str, Any] = dataclasses.field(default_factory=dict)  # constants of the command


PROMISES = [
    Promise(
        dynamics,
        ["--lr-schedule", "plateau", "--warmup", "0.5", "--missing", "0.1"],
        ["phase.png", "training.gif"],
        lambda summary, text: (
            set(summary["rmse"]) >= {"neural ODE", "GRU", "last value", "mean"}
            and set(summary["rmse"]["GRU"])
            == {"new initial states", "the same, later in time", "initial states outside"}
            and "| GRU |" in text
        ),
        ["--noise", "0.2"],
        "--noise 0.2 (the run has 0.05)",
    ),
    Promise(
        latent_ode,
        ["--lr-schedule", "constant", "--observations", "30"],
        ["series.png", "walk.png", "training.gif"],
        lambda summary, text: (
            set(summary["rmse"]["latent ODE, ODE-RNN encoder"]) == {"inside", "beyond", "before"}
            and summary["padding"]["own clocks"] == 0
            and "| paper, latent ODE |  | 0.1642 |" in text
        ),
        ["--noise", "0.2"],
        "--noise 0.2 (the run has 0.3)",
    ),
    Promise(
        cnf,
        ["--lr-schedule", "constant"],
        ["densities.png", "flow.gif"],
        lambda summary, text: (
            abs(summary["mass"]["continuous, likelihood"] - 1) < 1e-3
            and summary["round_trip_error"] < 1e-3
        ),
        ["--trace", "hutchinson"],
        "--trace hutchinson (the run has exact)",
        {"GRID": 48},  # its sum over a density of width 1 is exact but for rounding
    ),
    Promise(
        augmented,
        ["--lr-schedule", "plateau"],
        ["end.png", "flow.gif"],
        lambda summary, text: summary["epochs"] == 2 and 0 <= summary["last"]["error_plain"] <= 100,
        ["--extra", "2"],
        "--extra 2 (the run has 1)",
    ),
]
DOCS = Path(__file__).parents[2] / "docs"
NAMES = {command: command.__name__.rpartition(".")[2] for command in (p.command for p in PROMISES)}


def rows(run):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in found]


def state(run):
    index = json.loads((run / "checkpoints" / "index.json").read_text())
    saved = checkpoint.read(run / "checkpoints" / index["last"])
    return {name: array.tobytes() for name, array in saved.items()}


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: NAMES[promise.command])
def test_a_run_writes_all_that_it_promises_and_resumes_bit_for_bit(
    promise, tmp_path, capsys, monkeypatch
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    main, flags, commit = promise.command.main, ["--smoke", *promise.flags], RunFolder.commit_epoch

    def copied(folder, row, *arguments, **options):
        """Keeps a copy of what a run leaves that is killed after its first epoch."""
        commit(folder, row, *arguments, **options)
        if row["epoch"] == 1:
            shutil.copytree(folder.path, broken)

    for name, value in promise.smaller.items():
        monkeypatch.setattr(promise.command, name, value)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "commit_epoch", copied)
        assert main([*flags, "--out", str(whole)]) == 0
    assert "epoch 2/2" in capsys.readouterr().out
    summary = json.loads((whole / "summary.json").read_text())
    written = (whole / "summary.md").read_text()
    assert promise.summary(summary, written)
    assert written == page(summary, promise.command.text)
    for name in promise.pictures:
        magic = (whole / name).read_bytes()[:4]
        assert magic == {"png": b"\x89PNG", "gif": b"GIF8"}[name[-3:]]
    assert [row["epoch"] for row in rows(broken)] == [1]
    first_frame = lambda path, figure, draw, frames: draw(0)  # all take seconds to draw again
    monkeypatch.setattr(figures, "animation", first_frame)
    assert main(["--resume", str(broken)]) == 0
    assert "after epoch 1" in capsys.readouterr().out
    assert rows(broken) == rows(whole)
    assert state(broken) == state(whole)
    assert main(["--resume", str(whole), *promise.refused]) == 2
    assert promise.complaint in capsys.readouterr().err


REFUSED = {
    dynamics: [
        (["--noise", "-1"], "--noise is -1"),
        (["--missing", "1"], "--missing is 1"),
        (["--observations", "1"], "--observations is 1; a whole number of at least 2"),
        (["--window", "0"], "--window is 0"),
        (["--solver", "dopri5"], "choose euler, midpoint, rk4"),
        (["--system", "csv"], "--csv FILE go together"),
        (["--system", "saturn"], "invalid choice"),
        (["--resume", "nowhere"], "holds no run"),
    ],
    latent_ode: [
        (["--observations", "1"], "--observations is 1; a whole number of at least 2"),
        (["--observations", "101"], "a spiral has 100 times"),
        (["--noise", "nan"], "--noise is nan"),
        (["--latent", "0"], "--latent is 0"),
        (["--solver", "dopri5"], "choose euler, midpoint, rk4"),
        (["--data", "csv"], "--csv FILE go together"),
        (["--stretch", "-1"], "--stretch is -1"),
        (["--data", "mauna-loa", "--stretch", "50"], "no window to learn from"),
        (["--resume", "nowhere"], "holds no run"),
    ],
    cnf: [
        (["--steps", "0"], "--steps is 0"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--lr", "-1"], "--lr is -1"),
        (["--epochs", "2", "--warmup", "2"], "--warmup is 2"),
        (["--density", "saturn"], "invalid choice"),
    ],
    augmented: [(["--extra", "0"], "--extra is 0")],
}


@pytest.mark.parametrize(
    ("command", "flags", "complaint"),
    [
        pytest.param(command, *case, id=f"{NAMES[command]} {' '.join(case[0])}")
        for command, cases in REFUSED.items()
        for case in cases
    ],
)
def test_bad_flags_end_in_one_sentence_and_leave_nothing(
    command, flags, complaint, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert command.main(flags) == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (dynamics, ["--system", "lorenz"]),
        (cnf, ["--density", "wine", "--trace", "hutchinson"]),
        (augmented, []),
    ],
    ids=lambda value: NAMES.get(value) if isinstance(value, ModuleType) else None,
)
def test_torch_runs_the_same_command(command, flags, tmp_path):
    run = tmp_path / "run"
    assert command.main(["--smoke", "--framework", "torch", *flags, "--out", str(run)]) == 0
    assert len(rows(run)) == 2
    assert all(np.isfinite(row["train_loss"]) for row in rows(run))
    if command is cnf:  # of thirteen dimensions there is no picture
        assert not (run / "flow.gif").exists()


@pytest.mark.parametrize(
    ("command", "record"),
    [
        (command, record)
        for command, name in NAMES.items()
        for record in (DOCS / "results").glob(f"{name}-*.json")
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else None,
)
def test_committed_pages_have_the_tables_of_their_records(command, record):
    found = block(DOCS / f"{NAMES[command]}.md", record.stem.partition("-")[2])
    assert found.startswith(page(json.loads(record.read_text()), command.text).strip())
