"""The grid with a stub for the run: whatever happens to one run, the others are made and kept."""

import json
import os
import signal
import subprocess
import sys
import time
import typing
from pathlib import Path

import pytest

from experiments import report, study
from experiments.harness import workers
from experiments.harness.workers import Task
from experiments.section3 import collect, findings, grid, rates
from experiments.section3.execution import Progress

HERE = Path(__file__).parent
STUB = (sys.executable, str(HERE / "stub_run.py"))
EXAMINED = (sys.executable, "-c", "import sys, pathlib; pathlib.Path(sys.argv[-1], 'examined.json')"
            ".write_text('{}')")  # fmt: skip
DRIVER = (
    "import sys; from experiments import study; "
    f"sys.exit(study.main(sys.argv[1:], {STUB!r}, {EXAMINED!r}))"
)
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [HERE.parents[1], HERE]))}
ONLY = "resnet1,odenet"
RUNS = {f"{name}-seed{seed}" for name in ONLY.split(",") for seed in (0, 1)}


@pytest.fixture
def run_study(tmp_path, monkeypatch, capsys):
    """Run the smoke study of two variants with faults in some runs: (exit code, output, error)."""
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])

    def run(faults=None, *more):
        monkeypatch.setenv("STUB_FAULTS", json.dumps(faults or {}))
        flags = ["--preset", "smoke", "--only", ONLY, "--out", str(tmp_path / "study"), *more]
        code = study.main(flags, STUB, EXAMINED)
        return code, *capsys.readouterr()

    return run


def finished(folder):
    return {path.parent.name for path in folder.glob("*/summary.json") if "test_error" in
            path.read_text()}  # fmt: skip


def calls(folder):
    return sorted((folder / "calls").read_text().splitlines())


def test_all_run_once_and_nothing_is_run_again(run_study, tmp_path):
    code, out, err = run_study()
    assert (code, err) == (0, "")
    assert finished(tmp_path / "study") == RUNS
    assert "4/4" in out
    assert "left" in out
    assert (tmp_path / "study" / "resnet1-seed0" / "examined.json").exists()
    assert not (tmp_path / "study" / "resnet1-seed1" / "examined.json").exists()
    made = calls(tmp_path / "study")
    assert made == sorted(f"{name} new" for name in RUNS)
    code, out, err = run_study()
    assert code == 0
    assert "4 runs are there already" in out
    assert calls(tmp_path / "study") == made


REASONS = {
    "crash": "ZeroDivisionError: an error nobody foresaw",
    "kill": "killed by SIGKILL",
    "disk": "cannot be written (No space left on device)",
    "nothing": "ended without results",
}


@pytest.mark.parametrize(
    "faults",
    [
        {"odenet-seed0": "nothing"},
        {"odenet-seed0": "crash", "odenet-seed1": "kill", "resnet1-seed0": "disk"},
    ],
    ids=["one", "several"],
)
def test_failed_runs_are_named_and_taken_up_again(faults, run_study, tmp_path):
    code, out, err = run_study(faults)
    assert code == 1
    for name, fault in faults.items():
        (line,) = (line for line in out.splitlines() if f"{name}: " in line)
        assert REASONS[fault] in line
        assert name in err
    assert f"{len(faults)} of 4 runs failed: " in err
    assert "Traceback" not in out + err
    assert finished(tmp_path / "study") == RUNS - faults.keys()
    code, _, _ = run_study()
    assert code == 0
    assert finished(tmp_path / "study") == RUNS
    assert {f"{name} resume" for name in faults} <= set(calls(tmp_path / "study"))


def test_a_diverged_run_is_a_result_and_not_repeated(run_study, tmp_path):
    code, out, err = run_study({"odenet-seed1": "diverge"})
    assert code == 1
    assert "odenet-seed1: mnist.py: the loss is not finite" in out
    made = calls(tmp_path / "study")
    code, out, err = run_study()
    assert code == 1
    assert "odenet-seed1 (earlier): the loss is not finite" in out
    assert calls(tmp_path / "study") == made


def test_a_damaged_checkpoint_is_named_and_the_others_go_on(run_study, tmp_path):
    run_study({"odenet-seed0": "kill", "resnet1-seed1": "kill"})
    for state in (tmp_path / "study" / "odenet-seed0").glob("checkpoints/*/state"):
        state.unlink()
    code, out, err = run_study()
    assert code == 1
    assert "does not fit this run" in out
    assert "1 of 4 runs failed: odenet-seed0" in err
    assert finished(tmp_path / "study") == RUNS - {"odenet-seed0"}


def test_a_damaged_summary_counts_as_missing(run_study, tmp_path):
    run_study()
    for name, damage in zip(sorted(RUNS), ("", "{", "[]", "null"), strict=True):
        (tmp_path / "study" / name / "summary.json").write_text(damage)
    code, _, _ = run_study()
    assert code == 0
    assert {f"{name} resume" for name in RUNS} <= set(calls(tmp_path / "study"))
    assert finished(tmp_path / "study") == RUNS


def test_a_run_killed_before_it_had_a_configuration_is_made_anew(run_study, tmp_path):
    path = tmp_path / "study" / "odenet-seed0"
    path.mkdir(parents=True)
    (path / ".lock").write_text("1")
    code, _, _ = run_study()
    assert code == 0
    assert "odenet-seed0 new" in calls(tmp_path / "study")


def start_study(folder, faults):
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, "--preset", "smoke", "--only", ONLY, "--out", str(folder),
         "--jobs", "1"],
        env=ENVIRONMENT | {"STUB_FAULTS": json.dumps(faults)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_study_killed_in_a_run_takes_it_along_and_is_gone_on_with(run_study, tmp_path):
    folder = tmp_path / "study"
    process = start_study(folder, {"odenet-seed0": "hang"})
    wait_for((folder / "odenet-seed0" / "metrics.jsonl").exists)
    process.kill()
    process.communicate()
    code, out, err = run_study()  # the hanging run must have freed its folder
    assert code == 0, out + err
    assert finished(folder) == RUNS
    assert {"odenet-seed0 resume", "resnet1-seed0 new"} <= set(calls(folder))
    assert calls(folder).count("resnet1-seed0 new") == 1


def test_interrupted_study_says_so_and_leaves_no_process(tmp_path):
    folder = tmp_path / "study"
    process = start_study(folder, {"odenet-seed0": "hang"})
    wait_for((folder / "odenet-seed0" / "metrics.jsonl").exists)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted; the same command goes on" in err
    pid = int((folder / "odenet-seed0" / ".lock").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_two_studies_in_one_folder(run_study, tmp_path):
    process = start_study(tmp_path / "study", {"resnet1-seed0": "hang"})
    wait_for((tmp_path / "study" / "study.json").exists)
    code, _, err = run_study()
    process.kill()
    process.communicate()
    assert code == 2
    assert f"is in use by process {process.pid}" in err


def test_a_folder_of_another_study(run_study, tmp_path):
    run_study()
    code, _, err = run_study(None, "--dataset", "fashion_mnist")
    assert code == 2
    assert "holds a study with other flags" in err


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code = study.main(["--preset", "smoke", "--out", str(tmp_path / "file" / "study")], STUB)
    assert code == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--only", "vgg"], "--only has 'vgg', which this preset has not; it has odenet"),
        (["--only", "resnet1,resnet12", "--preset", "smoke"], "--only has 'resnet12'"),
        (["--jobs", "0"], "--jobs is 0"),
        (["--shard", "3/2"], "--shard is 3/2; I/N expected"),
        (["--shard", "half"], "--shard is half"),
        (["--shard", "1/2", "--preset", "coarse-adjoint"], "start from each other's weights"),
        (["--preset", "depth", "--rates", "nowhere.json"], "nowhere.json is not there"),
        (["--rates", "nowhere.json"], "takes no chosen rates"),
        (["--results", "nowhere.json"], "neither a study's folder nor a record"),
        (["--minutes", "-1"], "--minutes is -1"),
        (["--minutes", "nan"], "--minutes is nan"),
    ],
)
def test_bad_flags(flags, part, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert study.main(flags, STUB) == 2
    assert part in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_no_run_begins_after_the_time_is_over(run_study, tmp_path):
    code, out, _ = run_study(None, "--minutes", "1e-9")
    assert code == 0
    assert "4 runs not begun" in out


def test_clock_of_the_wall_is_not_asked(run_study, tmp_path, monkeypatch):
    clock = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: next(clock))
    code, _, _ = run_study()
    assert code == 0
    assert finished(tmp_path / "study") == RUNS


def test_a_command_that_cannot_be_started(tmp_path):
    ended = []
    task = Task("a", (("/no/such/command",),), tmp_path / "a.log")
    workers.run([task, task], 1, ended.append)
    assert [outcome.name for outcome in ended] == ["a", "a"]
    assert "could not be started" in ended[0].failure


def test_a_log_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    ended = []
    good = Task("good", ((sys.executable, "-c", ""),), tmp_path / "logs" / "good.log")
    bad = Task("bad", good.commands, tmp_path / "file" / "bad.log")
    workers.run([bad, good], 1, ended.append)
    assert {outcome.name: outcome.failure is None for outcome in ended} == {
        "bad": False, "good": True,
    }  # fmt: skip


def test_a_process_stays_on_its_cores(tmp_path):
    cores = workers.available_cores()
    log = tmp_path / "log"
    code = "import os; print(sorted(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS'])"
    workers.run([Task("a", ((sys.executable, "-c", code),), log)], len(cores), lambda _: None)
    assert log.read_text().strip() == f"{[cores[0]]} 1"


def test_shares_of_the_cores():
    assert workers.shares([0, 1, 2, 3], 2) == [[0, 1], [2, 3]]
    assert workers.shares([0, 1, 2], 2) == [[0], [1, 2]]
    assert workers.shares([4], 2) == [[4], [4]]


def test_every_variant_has_flags_that_mnist_takes():
    from experiments.classify.resolve import learner_options

    assert set(typing.get_args(typing.get_type_hints(study.Study)["preset"])) == set(grid.PRESETS)
    asked = set()
    for preset in grid.PRESETS.values():
        cells = grid.cells(preset)
        assert len({cell.name for cell in cells}) == len(cells)
        for cell in cells:
            numbers = dict(zip(cell.flags[::2], cell.flags[1::2], strict=True))
            assert int(numbers.pop("--seed")) >= 0
            folds, fold = (int(numbers.pop(name, k)) for name, k in (("--folds", 1), ("--fold", 0)))
            assert 0 <= fold < folds
            assert not numbers
            # Parsing takes tenths of a second, and the flags of a variant are the same in each run.
            given = (*preset.flags.split(), *cell.variant.flags.split(), *cell.flags[::2])
            if given not in asked:
                asked.add(given)
                learner_options([*preset.flags.split(), *cell.variant.flags.split(), *cell.flags])


def test_all_models_meet_the_same_images_first():
    cells = grid.cells(grid.PRESETS["converged"])
    first = [(cell.variant.name, cell.seed, cell.fold) for cell in cells[: len(grid.ROWS) - 1]]
    assert first == [(name, 1, 0) for name in grid.ROWS if name != "torch-odenet"]
    assert cells[0].flags == ["--seed", "5", "--folds", "5", "--fold", "0"]
    seeds = [cell.flags[1] for cell in cells if cell.variant.name == "odenet"]
    assert len(set(seeds)) == len(seeds)


RECORD = {"tested": {k: {"true": ""} for k in ("all", "0", "1")}, "sessions": [{"jobs": 1,
          "cores": 1}], "data": {"sha256": "ab", "title": "MNIST"}}  # fmt: skip
DONE = {"status": "done", "commit": None, "device": "cpu", "summary": {"test_error": 1.0},
        "rows": [], "wrong": ""}  # fmt: skip


def rate_record(losses, status="done"):
    """A record of the rates of ResNet-1: its validation losses by rate and fold."""
    runs = [
        {**DONE, "variant": rates.name_of("resnet1", rate), "seed": 0, "fold": fold,
         "status": status, "summary": {"test_error": 1.0, "validation_loss": loss}}
        for rate, of in losses.items() for fold, loss in enumerate(of)
    ]  # fmt: skip
    flags = [*grid.PRESETS["rates"].flags.split(), "--source", "embedded"]
    return {**RECORD, "preset": "rates", "flags": flags, "runs": runs}


LOSSES = {"0.03": [0.3, 0.1], "0.1": [0.15, 0.15], "0.2": [0.1, 0.25]}


def test_the_rate_is_that_of_least_pooled_validation_loss():
    resnet = grid.VARIANTS["resnet1"]
    record = rate_record(LOSSES)
    assert rates.losses(record, resnet) == pytest.approx({"0.03": 0.2, "0.1": 0.15, "0.2": 0.175})
    assert rates.chosen(record, resnet) == "0.1"
    record["runs"][2] |= {"status": "failed"}  # it diverged: that rate is out
    assert rates.chosen(record, resnet) == "0.2"
    record["runs"][2] |= {"status": "missing"}
    assert rates.chosen(record, resnet) is None
    norelu = grid.VARIANTS["resnet1-norelu"]
    assert rates.flags_for(rate_record(LOSSES), norelu, grid.VARIANTS) == ["--lr", "0.1"]
    assert "3e-4" in rates.rates_of(grid.VARIANTS["odenet-adams-adam"])


def test_the_run_at_the_chosen_rate_is_a_repeat():
    record = rate_record(LOSSES)
    runs = rates.repeat(record, [grid.VARIANTS[name] for name in grid.RATED])
    assert [(run["variant"], run["seed"], run["fold"]) for run in runs] == [
        ("resnet1", 0, 0), ("resnet1", 0, 1),
    ]  # fmt: skip
    assert [run["summary"]["validation_loss"] for run in runs] == LOSSES["0.1"]
    ((name, main),) = report.joined([record]).items()
    assert name == findings.MAIN
    assert main["runs"][-2:] == runs


def test_chosen_rates_and_folds_reach_the_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    path = tmp_path / "rates.json"
    path.write_text(collect.text(rate_record(LOSSES)))
    flags = ["--preset", "converged", "--rates", str(path), "--out", str(tmp_path / "study")]
    quick = [*flags, "--only", "resnet1", "--shard", "2/5"]
    assert study.main(quick, STUB, EXAMINED) == 0
    made = finished(tmp_path / "study")
    assert made == {f"resnet1-seed{seed}-fold1" for seed in range(1, 5)}
    config = json.loads((tmp_path / "study" / "resnet1-seed3-fold1" / "config.json").read_text())
    (given,) = config["commands"]
    for flag, value in (("--lr", "0.1"), ("--seed", "16"), ("--folds", "5"), ("--fold", "1")):
        assert given[given.index(flag) + 1] == value
    assert study.main([*flags, "--only", "resnet6"], STUB, EXAMINED) == 2
    assert "no learning rate was chosen for resnet6" in capsys.readouterr().err


def test_what_a_record_has_is_not_run_again(run_study, tmp_path):
    record = {
        **RECORD, "preset": "smoke",
        "flags": [*grid.PRESETS["smoke"].flags.split(), "--source", "embedded"],
        "runs": [{"variant": "odenet", "seed": 0, **DONE},
                 {"variant": "odenet", "seed": 1, "status": "failed"}],
    }  # fmt: skip
    path = tmp_path / "record.json"
    path.write_text(collect.text(record))
    code, out, _ = run_study(None, "--results", str(path))
    assert code == 0
    assert "1 runs are in" in out
    assert finished(tmp_path / "study") == RUNS - {"odenet-seed0"}
    del record["runs"][0]["rows"]
    path.write_text(collect.text(record))
    code, _, err = run_study(None, "--results", str(path))
    assert code == 2
    assert "run 1 in" in err
    assert "it has no rows" in err
    path.write_text(collect.text(record | {"runs": [], "flags": ["--epochs", "2"]}))
    code, _, err = run_study(None, "--results", str(path))
    assert code == 2
    assert "other flags" in err


def test_time_left():
    import io

    from rich.console import Console

    tasks = [Task(f"{name}-seed{seed}", (), Path()) for name in "ab" for seed in (0, 1)]
    progress = Progress(tasks, 2, Console(file=io.StringIO()))
    assert progress.seconds_left() is None
    progress.ended(workers.Outcome("a-seed0", None, 10.0), None)
    progress.ended(workers.Outcome("b-seed0", None, 30.0), None)
    assert progress.seconds_left() == pytest.approx((10 + 30) / 2)
    progress.ended(workers.Outcome("b-seed1", "failed", 1.0), "failed")
    assert progress.seconds_left() == pytest.approx(10 / 2)
