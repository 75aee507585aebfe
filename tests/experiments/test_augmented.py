"""The augmented command in its smoke form."""

import json

import numpy as np

from experiments import augmented


def test_a_run_writes_all_that_it_promises_and_resumes(tmp_path, capsys):
    run = tmp_path / "run"
    assert augmented.main(["--smoke", "--epochs", "1", "--out", str(run)]) == 0
    assert augmented.main(["--resume", str(run), "--epochs", "2"]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["epochs"] == 2
    assert 0 <= summary["error_plain"] <= 100
    assert (run / "end.png").read_bytes()[1:4] == b"PNG"
    assert (run / "flow.gif").read_bytes()[:3] == b"GIF"
    assert augmented.main(["--resume", str(run), "--extra", "2"]) == 2
    assert "--extra 2 (the run has 1)" in capsys.readouterr().err


def test_the_classes_are_a_disc_and_a_ring():
    found = augmented.sample(np.random.default_rng(0), 1000)
    radius = np.linalg.norm(found["x"], axis=1)
    assert radius[found["label"] == 0].max() <= 0.5
    assert radius[found["label"] == 1].min() >= 1
    assert radius.max() <= 1.5


def test_bad_flags(capsys):
    assert augmented.main(["--extra", "0"]) == 2
    assert "--extra is 0" in capsys.readouterr().err
