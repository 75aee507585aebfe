"""The dynamics command: real series, bad ones, and what is measured of predictions."""

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


def test_a_real_series_is_forecast(tmp_path):
    assert smoke(tmp_path / "run", "--system", "lynx-hare", "--window", "4") == 0
    assert "forecast" in json.loads((tmp_path / "run" / "summary.json").read_text())["rmse"]["GRU"]


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
