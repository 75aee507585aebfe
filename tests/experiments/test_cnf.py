"""The cnf command in its smoke form, and the densities it is measured against."""

import json

import numpy as np
import pytest

from experiments import cnf
from experiments.flows import densities, pictures


def rows(run):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in found]


@pytest.mark.parametrize("name", ["moons", "circles", "checkerboard", "gaussians"])
def test_known_densities_are_those_of_the_samples(name):
    points, area = pictures.grid(5.0, 250)
    p = np.exp(densities.log_density(name, points))
    # The checkerboard's edges fall between cells: up to 0.04 of a field's side of 1.5 either way.
    assert p.sum() * area == pytest.approx(1, abs=0.03 if name == "checkerboard" else 1e-3)
    drawn = densities.sample(name, np.random.default_rng(0), 20_000)
    assert np.isfinite(densities.log_density(name, drawn)).all()
    # First and second moments: a standard error of 20,000 samples of deviation < 3 is < 0.03.
    for power in (1, 2):
        expected = (points**power * p[:, None]).sum(0) * area
        assert (drawn**power).mean(0) == pytest.approx(expected, abs=0.12)
    # And the entropy, within 5 standard errors of the mean of 20,000 log-densities.
    logp = densities.log_density(name, drawn)
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum() * area
    error = 5 * logp.std() / np.sqrt(len(logp)) + (0.1 if name == "checkerboard" else 1e-3)
    assert -logp.mean() == pytest.approx(entropy, abs=error)


def test_a_normal_distribution_fits_its_own_samples():
    table = np.random.default_rng(0).normal(size=(500, 2)) @ np.array([[2.0, 0.5], [0.0, 0.3]])
    points, area = pictures.grid(12.0, 400)
    p = np.exp(densities.gaussian(table, points))
    assert p.sum() * area == pytest.approx(1, abs=1e-3)
    assert (points * p[:, None]).sum(0) * area == pytest.approx(table.mean(0), abs=1e-3)


def test_an_unknown_density_is_answered_with_the_list():
    with pytest.raises(ValueError, match="moons, circles"):
        densities.sample("saturn", np.random.default_rng(0), 1)


def test_a_run_writes_all_that_it_promises_and_resumes(tmp_path, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    flags = ["--smoke", "--lr-schedule", "constant"]
    assert cnf.main([*flags, "--out", str(whole)]) == 0
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["mass"]["continuous, likelihood"] == pytest.approx(1, abs=1e-3)
    assert summary["round_trip_error"] < 1e-3
    assert (whole / "densities.png").read_bytes()[1:4] == b"PNG"
    assert (whole / "flow.gif").read_bytes()[:3] == b"GIF"
    assert cnf.main([*flags, "--epochs", "1", "--out", str(broken)]) == 0
    assert cnf.main(["--resume", str(broken), "--epochs", "2"]) == 0
    assert rows(broken) == rows(whole)
    assert cnf.main(["--resume", str(broken), "--trace", "hutchinson"]) == 2
    assert "--trace hutchinson (the run has exact)" in capsys.readouterr().err


def test_torch_and_a_table(tmp_path):
    flags = ["--smoke", "--framework", "torch", "--density", "wine", "--trace", "hutchinson"]
    assert cnf.main([*flags, "--out", str(tmp_path / "run")]) == 0
    assert not (tmp_path / "run" / "flow.gif").exists()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--steps", "0"], "--steps is 0"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--lr", "-1"], "--lr is -1"),
        (["--epochs", "2", "--warmup", "2"], "--warmup is 2"),
        (["--density", "saturn"], "invalid choice"),
    ],
)
def test_bad_flags(flags, complaint, capsys):
    assert cnf.main(flags) == 2
    assert complaint in capsys.readouterr().err
