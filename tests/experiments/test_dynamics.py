"""The dynamics command in its smoke form: what it writes, resumes and refuses."""

import json
import subprocess
import sys

import numpy as np
import pytest

from experiments import dynamics
from experiments.trajectories.shooting import errors, prepare
from experiments.trajectories.task import Data, load, resolve


def smoke(run, *flags):
    return dynamics.main(["--smoke", "--out", str(run), *flags])


def rows(run):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in found]


def state(run):
    from jax_node import checkpoint

    index = json.loads((run / "checkpoints" / "index.json").read_text())
    saved = checkpoint.read(run / "checkpoints" / index["last"])
    return {name: array.tobytes() for name, array in saved.items()}


def test_a_run_writes_all_that_it_promises_and_resumes_bit_for_bit(tmp_path, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    flags = ["--lr-schedule", "plateau", "--warmup", "0.5", "--missing", "0.1"]
    assert smoke(whole, *flags) == 0
    summary = json.loads((whole / "summary.json").read_text())
    assert set(summary["rmse"]) >= {"neural ODE", "GRU", "last value", "mean"}
    assert set(summary["rmse"]["GRU"]) == {
        "new initial states", "the same, later in time", "initial states outside"
    }  # fmt: skip
    assert (whole / "phase.png").read_bytes()[1:4] == b"PNG"
    assert (whole / "training.gif").read_bytes()[:3] == b"GIF"
    assert "| GRU |" in (whole / "summary.md").read_text()
    assert "epoch 2/2" in capsys.readouterr().out
    assert smoke(broken, *flags, "--epochs", "1") == 0
    assert dynamics.main(["--resume", str(broken), "--epochs", "2"]) == 0
    assert rows(broken) == rows(whole)
    assert state(broken) == state(whole)
    assert dynamics.main(["--resume", str(whole), "--noise", "0.2"]) == 2
    assert "--noise 0.2 (the run has 0.05)" in capsys.readouterr().err


def test_torch_runs_the_same_command(tmp_path):
    assert smoke(tmp_path / "run", "--framework", "torch", "--system", "lorenz") == 0
    assert len(rows(tmp_path / "run")) == 2


def test_a_real_series_is_forecast(tmp_path):
    assert smoke(tmp_path / "run", "--system", "lynx-hare", "--window", "4") == 0
    assert "forecast" in json.loads((tmp_path / "run" / "summary.json").read_text())["rmse"]["GRU"]


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--noise", "-1"], "--noise is -1"),
        (["--missing", "1"], "--missing is 1"),
        (["--observations", "1"], "--observations is 1; a whole number of at least 2"),
        (["--window", "0"], "--window is 0"),
        (["--solver", "dopri5"], "choose euler, midpoint, rk4"),
        (["--system", "csv"], "--csv FILE go together"),
        (["--system", "saturn"], "invalid choice"),
        (["--resume", "nowhere"], "holds no run"),
    ],
)
def test_bad_flags(flags, complaint, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert dynamics.main(flags) == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_bad_series_end_the_command_in_one_sentence(tmp_path):
    path = tmp_path / "series.csv"
    path.write_text("t,a\n0,1\n2,2\n1,3\n")
    done = subprocess.run(
        [sys.executable, dynamics.__file__, "--system", "csv", "--csv", str(path)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("dynamics.py: time 2 is followed by 1")
    assert "Traceback" not in done.stderr


def test_errors_are_zero_for_the_truth_and_count_from_where_they_should():
    series, tests = load(resolve(Data()), seed=0)
    problem = prepare(series, 5, log=False)
    truth = lambda y0, ts: problem.scale(test.truth)
    for test in tests:
        assert errors(problem, truth, test) == pytest.approx(0, abs=1e-12)
    later = tests[1]
    wrong_early = lambda y0, ts: problem.scale(
        np.where((later.times <= later.since)[None, :, None], 7.0, later.truth)
    )
    assert errors(problem, wrong_early, later) == pytest.approx(0, abs=1e-12)
    assert errors(problem, wrong_early, tests[1].__class__("all", later.times, later.truth)) > 1
