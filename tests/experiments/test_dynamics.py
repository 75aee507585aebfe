"""The dynamics command: real series, bad ones, and what is measured of predictions."""

import json
import subprocess
import sys

import numpy as np
import pytest

from experiments import dynamics
from experiments.harness.errors import DataError
from experiments.series.series import RESOLVED
from experiments.trajectories import sindy
from experiments.trajectories.shooting import check_times, errors, prepare
from experiments.trajectories.sindy import Polynomial
from experiments.trajectories.task import Data, load, resolve


def smoke(run, *flags):
    return dynamics.main(["--smoke", "--out", str(run), *flags])


def test_a_real_series_is_forecast(tmp_path):
    flags = ["--system", "lynx-hare", "--window", "4", "--framework", "torch"]  # compiles nothing
    assert smoke(tmp_path / "run", *flags) == 0
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


def written(path, times):
    steps = 0.3 * np.arange(len(times))
    rows = zip(times, np.sin(steps), np.cos(steps), strict=True)
    path.write_text("t,x,y\n" + "".join(f"{float(t)!r},{x:.6f},{y:.6f}\n" for t, x, y in rows))
    return "--system", "csv", "--csv", str(path)


@pytest.mark.parametrize("framework", ["jax", "torch"])
def test_times_that_float32_makes_equal_get_the_same_forecast(tmp_path, framework):
    # Two are 1e-7 apart, after 30, where float32 has spacings of 2e-6.
    later = [280, 280.001, 290, 300, 300 + 1e-7, 310, 320]
    series = written(tmp_path / "series.csv", [*np.arange(28) * 10, *later])
    assert smoke(tmp_path / "run", *series, "--framework", framework) == 0
    found = json.loads((tmp_path / "run" / "summary.json").read_text())["rmse"]
    assert np.isfinite(found["neural ODE"]["forecast"])


@pytest.mark.parametrize("framework", ["jax", "torch"])
def test_times_that_float32_moves_far_are_refused(tmp_path, framework, capsys):
    # Channels change in about 30, and float32 has spacings of 0.25 at 4e6.
    times = [*np.arange(28) * 10, *(280 + 1e6 * np.arange(1, 9))]
    series = written(tmp_path / "series.csv", times)
    assert smoke(tmp_path / "run", *series, "--framework", framework) == 2
    assert "is too far from 240 for float32" in capsys.readouterr().err


def test_rounding_moves_times_by_less_than_what_is_refused():
    largest = 2 * RESOLVED / float(np.finfo(np.float32).eps)  # that rounds by no more
    check_times([np.linspace(5, 5 + 0.99 * largest, 1001)], 1.0, "float32")
    with pytest.raises(DataError, match="precision float64"):
        check_times([np.linspace(5, 5 + 4 * largest, 1001)], 1.0, "float32")
    check_times([np.linspace(5, 5 + 4 * largest, 1001)], 1.0, "float64")


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


def test_least_squares_that_take_too_long_are_nan(monkeypatch):
    decay = Polynomial(1, np.array([[0.0], [-1.0]]))
    ts = np.linspace(0, 1, 5)
    # To the default bound of steps, exp(-t) to tolerances of 1e-6.
    assert decay.solve(np.ones((1, 1)), ts)[0, :, 0] == pytest.approx(np.exp(-ts), abs=1e-5)
    monkeypatch.setattr(sindy, "EVALUATIONS", 10)  # fewer than two steps of six
    found = decay.solve(np.ones((1, 1)), ts)[0, :, 0]
    assert found[0] == 1
    assert np.isnan(found[1:]).all()


def test_bursts_leave_a_baseline_out_and_say_so(tmp_path, monkeypatch):
    times = np.sort(np.concatenate([10 * np.arange(20.0) + k * 1e-3 for k in range(3)]))
    series = written(tmp_path / "series.csv", times)
    monkeypatch.setattr(sindy, "EVALUATIONS", 500)  # more take seconds
    assert smoke(tmp_path / "run", *series, "--framework", "torch", "--precision", "float64") == 0
    text = (tmp_path / "run" / "summary.md").read_text()
    assert "| least squares | nan |" in text
    assert "took too many steps" in text
