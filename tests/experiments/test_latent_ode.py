"""The latent ODE command in its smoke form: what it writes, resumes and refuses."""

import json

import numpy as np
import pytest

from experiments import latent_ode


def smoke(run, *flags):
    return latent_ode.main(["--smoke", "--out", str(run), *flags])


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
    flags = ["--lr-schedule", "constant", "--observations", "30"]
    assert smoke(whole, *flags) == 0
    summary = json.loads((whole / "summary.json").read_text())
    assert set(summary["rmse"]["latent ODE, ODE-RNN encoder"]) == {"inside", "beyond", "before"}
    assert summary["padding"]["own clocks"] == 0
    for name in ("series.png", "walk.png"):
        assert (whole / name).read_bytes()[1:4] == b"PNG"
    assert (whole / "training.gif").read_bytes()[:3] == b"GIF"
    assert "| paper, latent ODE |  | 0.1642 |" in (whole / "summary.md").read_text()
    assert "epoch 2/2" in capsys.readouterr().out
    assert smoke(broken, *flags, "--epochs", "1") == 0
    assert latent_ode.main(["--resume", str(broken), "--epochs", "2"]) == 0
    assert rows(broken) == rows(whole)
    assert state(broken) == state(whole)
    assert latent_ode.main(["--resume", str(whole), "--noise", "0.2"]) == 2
    assert "--noise 0.2 (the run has 0.3)" in capsys.readouterr().err


def test_torch_and_a_series_of_ones_own_with_gaps(tmp_path):
    generator, path = np.random.default_rng(0), tmp_path / "series.csv"
    times = np.sort(generator.uniform(0, 60, 150))
    lines = [f"{t},{np.sin(t)},{np.cos(t) if t % 1 < 0.7 else ''}" for t in times]
    path.write_text("\n".join(["t,a,b", *lines]))
    flags = ["--framework", "torch", "--data", "csv", "--csv", str(path), "--stretch", "6"]
    assert smoke(tmp_path / "run", *flags, "--ahead", "2") == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert np.isfinite(summary["rmse"]["RNN"]["beyond"])


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
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
)
def test_bad_flags(flags, complaint, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert latent_ode.main(flags) == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("0,1\n2,2\n1,3", "time 2 is followed by 1"),
        ("0,1\n2,2\n2,3", "time 2 is there twice"),
        ("0,1", "1 observation"),
        ("0,\n1,nan\n2,", "never observed"),
        ("0,1\n1,inf\n2,3", "infinite at time 1"),
    ],
)
def test_bad_series(lines, complaint, capsys, tmp_path):
    path = tmp_path / "series.csv"
    path.write_text(f"t,a\n{lines}\n")
    assert latent_ode.main(["--data", "csv", "--csv", str(path)]) == 2
    assert complaint in capsys.readouterr().err
