"""The benchmark: it runs, it writes what it says, and it never calls different work the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import benchmark
from experiments.speed import contests, measure, roofline
from experiments.speed import ratios as report

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmark.py"
WORK = {"nfe_forward": 32.0, "nfe_backward": 30.0, "steps": 5.0, "rejected": 0.0}


def side(name, **changes):
    return {"side": name, "samples": [2.0, 4.0], "seconds": 3.0, **WORK, **changes}


QUICK = [contest for contest in contests.CONTESTS if contest.quick]


def test_quick_runs_and_writes(tmp_path):
    flags = ["--quick", "--batch-size", "2", "--repeats", "2", "--out", str(tmp_path / "out")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # see test_command_line.py
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *flags, "--only", "small MLP"],
        capture_output=True, text=True, timeout=600, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    (contest,) = record["contests"]
    assert contest["name"] == "Small MLP, solve and gradient"
    ours, theirs, *_ = contest["sides"]
    assert (ours["side"], theirs["side"]) == ("jax direct", "torch direct")
    assert len(ours["samples"]) == len(theirs["samples"]) == 2
    assert ours["steps"] == theirs["steps"]
    assert ours["ratios"][0]["ratio"] > 0
    assert "Small MLP, solve" in (tmp_path / "out" / "summary.md").read_text()
    assert (tmp_path / "out" / "ratios.png").stat().st_size > 0


@pytest.mark.parametrize("contest", [c for c in QUICK if c.flags], ids=lambda c: c.name)
def test_the_first_sides_of_a_contest_do_the_same_work(contest):
    """The same weights, images and tolerances: the same steps, and so a ratio."""
    (quick,) = benchmark.chosen(
        benchmark.Measurement(only=contest.name, quick=True, batch_size=2, repeats=2)
    )
    ours, theirs = (
        side | contests.make_call(contest, side["side"], 2)()
        for side in ({"side": name, "samples": [1.0]} for name in quick.sides[:2])
    )
    assert ours["side"].startswith("jax")
    assert theirs["side"].startswith("torch")
    assert ours.get("steps") == theirs.get("steps")
    assert report.ratio(ours, theirs)["ratio"] > 0


def test_two_states_are_solved_alike_by_jax_and_torch_and_nearly_so_by_scipy():
    options = benchmark.Measurement(only="two states", repeats=2)
    (chosen,) = benchmark.chosen(options)
    contest = benchmark.compete(chosen, options, {})
    ours, theirs, scipy = contest["sides"]
    work = ("nfe_forward", "steps", "rejected")
    assert [ours[key] for key in work] == [theirs[key] for key in work]
    assert scipy["nfe_forward"] == pytest.approx(ours["nfe_forward"], rel=0.1)
    attempts = scipy["steps"] + scipy["rejected"]
    assert scipy["nfe_forward"] == 6 * attempts + 2  # or the count of rejected steps is wrong
    ((_, notes),) = report.cells(contest)
    assert notes[0].startswith("scipy: accepted steps")


def test_the_same_work_has_a_plain_ratio():
    ours, theirs = side("jax direct"), side("torch direct", samples=[4.0, 4.0], nfe_backward=0.0)
    found = report.ratio(ours, theirs)
    assert found["difference"] == ""
    assert (found["lowest"], found["ratio"], found["highest"]) == (0.5, 0.75, 1.0)


@pytest.mark.parametrize(
    ("ours", "theirs", "difference", "has_ratio"),
    [
        (
            {},
            {"steps": 6.0, "nfe_forward": 38.0},
            "accepted steps 5 against 6, NFE 32 against 38",
            False,
        ),
        ({"rejected": 1.0}, {}, "rejected steps 1 against 0", False),
        ({"nfe_forward": 33.0}, {}, "NFE 33 against 32", True),
        ({}, {"side": "torch adjoint"}, "gradient by the steps against adjoint", True),
        (
            {"side": "jax adjoint", "nfe_backward": 26.0},
            {"side": "torch adjoint", "nfe_backward": 32.0},
            "backward NFE 26 against 32",
            True,
        ),
    ],
)
def test_different_work_is_named(ours, theirs, difference, has_ratio):
    ours, theirs = side("jax direct") | ours, side("torch direct") | theirs
    ours["ratios"] = [report.ratio(ours, theirs)]
    assert ours["ratios"][0]["difference"] == difference
    assert (ours["ratios"][0]["ratio"] is not None) == has_ratio
    ((row, notes),) = report.cells({"name": "contest", "sides": [ours, theirs]})
    took = "" if has_ratio else "; it took 3e+03 ms"
    assert notes == [f"{theirs['side']}: {difference}{took}"]
    ratios = row[4 : 4 + len(report.RIVALS)]
    assert ("1.00*" if has_ratio else "-*") in ratios
    assert "1.00" not in ratios


def test_roofline_counts_what_convolutions_by_winograd_multiply(monkeypatch, tmp_path):
    monkeypatch.setattr(roofline, "SIDE", 64)
    monkeypatch.setattr(roofline, "COPIED", 2**16)
    images = 16
    found = roofline.measure(images, 1)
    gflop = {part["part"]: part["gflop"] for part in found["parts"]}
    product = 2 * images * 64 * 64 / 1e9  # of all images' channels at one point
    assert 2 * 64 * product < gflop["residual block"] < 2 * 9 * 36 * product
    assert gflop["residual block, with gradient"] > 2 * gflop["residual block"]
    assert "residual block" in roofline.markdown({"roofline": found})
    roofline.plot(found, tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").stat().st_size > 0


def test_peak_memory_is_what_a_call_takes():
    """A megabyte is 2^20 bytes, and ones are resident; the kernel counts some pages late."""
    import numpy as np

    peak = measure.peak_memory(lambda: np.ones(100 * 2**20 // 8).sum())
    if peak is None:
        pytest.skip("the peak of the resident set can be reset on Linux only")
    assert 99 <= peak < 110


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--repeats", "0"], "--repeats is 0"),
        (["--only", "VGG"], "--only VGG names none of: ODE-Net"),
        (["--out", str(SCRIPT / "folder")], "cannot be written"),
    ],
)
def test_bad_flags(flags, part, capsys):
    assert benchmark.main(flags) == 2
    assert part in capsys.readouterr().err
