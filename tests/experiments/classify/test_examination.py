import json

import numpy as np
import pytest

from experiments import mnist
from experiments.classify import examination

IMAGES = np.random.default_rng(1).integers(0, 256, (6, 28, 28, 1)).astype(np.uint8)


def test_noise_is_that_asked_for_and_the_same_every_time():
    grey = np.full((50, 28, 28, 1), 128, np.uint8)
    noisy = examination.change(grey, "noise", 0.1)
    assert (noisy == examination.change(grey, "noise", 0.1)).all()
    # 39,200 pixels: the deviation's own is 25.5 / sqrt(2 * 39200) = 0.09; clipping at 5 deviations.
    assert abs((noisy - 128.0).std() - 25.5) < 5 * 0.09
    white = examination.change(np.full((1, 28, 28, 1), 255, np.uint8), "noise", 0.4)
    assert white.max() == 255
    assert (white == 255).mean() > 0.4  # half the noise is clipped, and none wraps around


def test_shift_moves_each_image_and_fills_with_black():
    moved = examination.change(IMAGES, "shift", 3)
    assert (moved[0][:, 3:] == IMAGES[0][:, :-3]).all()
    assert (moved[0][:, :3] == 0).all()
    assert (moved[1][3:] == IMAGES[1][:-3]).all()
    assert (moved[2][:, :-3] == IMAGES[2][:, 3:]).all()
    assert (moved[5][3:] == IMAGES[5][:-3]).all()


def test_rotation_turns_about_the_middle_to_both_sides():
    turned = examination.change(IMAGES, "rotation", 90)
    assert np.abs(turned[0].astype(int) - np.rot90(IMAGES[0], -1).astype(int)).max() <= 1
    assert np.abs(turned[1].astype(int) - np.rot90(IMAGES[1], 1).astype(int)).max() <= 1


@pytest.mark.parametrize(("kind", "amount"), [("none", 0), ("shift", 0), ("rotation", 0)])
def test_no_change(kind, amount):
    assert (examination.change(IMAGES, kind, amount) == IMAGES).all()


@pytest.fixture
def trained_run(fake_framework, flags, tmp_path, capsys):
    assert mnist.main([*flags, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    return tmp_path / "run"


def test_examined_json(trained_run, read_json, capsys):
    assert examination.main([str(trained_run)]) == 0
    found = read_json(trained_run / "examined.json")
    summary = read_json(trained_run / "summary.json")
    untouched = [row["test_error"] for row in found["images"] if row["kind"] == "none"]
    assert untouched == [summary["test_error"]]
    assert len(found["images"]) == sum(len(amounts) for amounts in examination.CHANGES.values())
    # The learner of this test ignores its solver, so no solver can change anything.
    assert {row["test_error"] for row in found["solvers"]} == {summary["test_error"]}
    assert {row["logit_error"] for row in found["solvers"]} == {0.0}
    assert len(found["solvers"]) == 1 + len(examination.TOLERANCES) + len(examination.FIXED)
    assert [row["nfe_forward"] for row in found["solvers"]] == [20.0] * len(found["solvers"])


def test_predictions_agree_with_the_test_error(trained_run, read_json):
    found = read_json(trained_run / "predictions.json")
    wrong = sum(p != t for p, t in zip(found["predicted"], found["true"], strict=True))
    assert 100 * wrong / len(found["true"]) == read_json(trained_run / "summary.json")["test_error"]


def test_summary_that_a_killed_run_lacks_is_written_by_resume(trained_run, read_json):
    whole = read_json(trained_run / "summary.json")
    (trained_run / "summary.json").unlink()
    assert mnist.main(["--resume", str(trained_run)]) == 0
    again = read_json(trained_run / "summary.json")
    assert again == whole | {"peak_memory_mib": again["peak_memory_mib"]}


@pytest.mark.parametrize(
    ("arguments", "part"),
    [([], "expected RUN"), (["a", "b"], "expected RUN"), (["nowhere"], "holds no run")],
)
def test_bad_arguments(arguments, part, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert examination.main(arguments) == 2
    assert part in capsys.readouterr().err


def test_other_images_are_refused(trained_run, capsys):
    config = json.loads((trained_run / "config.json").read_text())
    config["data"]["sha256"] = "0" * 64
    (trained_run / "config.json").write_text(json.dumps(config))
    assert examination.main([str(trained_run)]) == 2
    assert "not those" in capsys.readouterr().err
