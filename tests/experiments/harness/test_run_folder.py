import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.harness import run_folder
from experiments.harness.errors import RunError
from experiments.harness.files import write_atomic
from experiments.harness.provenance import git_commit
from experiments.harness.run_folder import RunFolder


def row(epoch, test_error):
    return {"epoch": epoch, "test_error": test_error}


def save(text):
    def write(path):
        path.mkdir()
        (path / "state").write_text(text)

    return write


def state(path):
    return (path / "state").read_text()


def names(run):
    return sorted(path.name for path in (run.path / "checkpoints").iterdir())


def test_selected_and_last_are_kept_and_the_rest_removed(tmp_path):
    run = RunFolder.create(tmp_path / "run", {"flags": 1})
    for epoch, error in enumerate([9.0, 3.0, 3.0, float("nan"), 5.0], start=1):
        run.commit_epoch(row(epoch, error), save(f"state {epoch}"), score="test_error")
    assert (run.epoch, run.best_epoch) == (5, 2)
    assert (state(run.last), state(run.best)) == ("state 5", "state 2")
    assert names(run) == ["epoch-0002", "epoch-0005", "index.json"]
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["test_error"] for line in rows] == [9.0, 3.0, 3.0, None, 5.0]


def test_what_was_written_after_the_last_commit_is_dropped(tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    run.commit_epoch(row(1, 5.0), save("one"))
    (run.path / "checkpoints" / "epoch-0002").mkdir()
    (run.path / "checkpoints" / "epoch-0002.tmp").mkdir()
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row(2, 4.0)) + "\n")
    run.close()
    run = RunFolder.open(tmp_path / "run")
    assert run.rewind() == [row(1, 5.0)]
    assert names(run) == ["epoch-0001", "index.json"]
    run.commit_epoch(row(2, 9.0), save("two"))  # without a score the last is selected
    assert state(run.best) == "two"


class CrashError(Exception):
    """Stands in for the moment at which a process is killed."""


@pytest.fixture
def crash_at(monkeypatch):
    """Make the n-th file operation of a commit the last one."""
    count = 0

    def arm(limit):
        nonlocal count
        count = 0
        for owner, name in ((os, "replace"), (os, "fsync"), (run_folder.shutil, "rmtree")):
            monkeypatch.setattr(owner, name, counted(getattr(owner, name), limit))

    def counted(function, limit):
        original = getattr(function, "original", function)

        def wrapper(*arguments, **keywords):
            nonlocal count
            count += 1
            if count > limit:
                raise CrashError
            return original(*arguments, **keywords)

        wrapper.original = original
        return wrapper

    return arm


def test_a_crash_at_any_operation_leaves_the_old_or_the_new_epoch(tmp_path, crash_at):
    seen = set()
    for limit in range(100):
        crash_at(10**6)
        run = RunFolder.create(tmp_path / f"run{limit}", {})
        run.commit_epoch(row(1, 5.0), save("one"))
        crash_at(limit)
        try:
            run.commit_epoch(row(2, 4.0), save("two"))
            crashed = False
        except CrashError:
            crashed = True
        crash_at(10**6)
        run.close()
        run = RunFolder.open(run.path)
        rows = run.rewind()
        assert [line["epoch"] for line in rows] == list(range(1, run.epoch + 1))
        assert state(run.last) == {1: "one", 2: "two"}[run.epoch]
        assert names(run) == [f"epoch-{run.epoch:04d}", "index.json"]
        seen.add(run.epoch)
        run.close()
        if not crashed:
            break
    assert seen == {1, 2}
    assert limit > 5  # the crashes were where the writes are


def test_a_stopped_state_is_kept_until_the_run_goes_on(tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    run.commit_epoch(row(1, 5.0), save("one"))
    path = run.save_stopped(2, 3, save("broken"))
    assert state(path) == "broken"
    assert (state(run.last), run.epoch) == ("one", 1)
    run.close()
    run = RunFolder.open(tmp_path / "run")
    assert path.exists()
    run.rewind()
    assert not path.exists()
    assert state(run.last) == "one"


def test_a_run_that_stops_in_its_first_epoch_can_start_again(tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    run.save_stopped(1, 0, save("first"))
    run.close()
    run = RunFolder.open(tmp_path / "run")
    assert (run.epoch, run.last, run.rewind()) == (0, None, [])


def test_two_processes_on_one_folder(tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    program = (
        "import sys; from pathlib import Path\n"
        "from experiments.harness.errors import RunError\n"
        "from experiments.harness.run_folder import RunFolder\n"
        "try: RunFolder.open(Path(sys.argv[1]))\n"
        "except RunError as error: print(error)"
    )
    command = [sys.executable, "-c", program, str(run.path)]
    message = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"in use by process {os.getpid()}" in message
    run.close()
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""


def test_folders_that_cannot_hold_a_run(tmp_path):
    RunFolder.create(tmp_path / "run", {}).close()
    with pytest.raises(RunError, match="already holds a run.*--resume"):
        RunFolder.create(tmp_path / "run", {})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    with pytest.raises(RunError, match="not empty"):
        RunFolder.create(tmp_path / "other", {})
    with pytest.raises(RunError, match="cannot be written"):
        RunFolder.create(tmp_path / "other" / "file" / "run", {})
    with pytest.raises(RunError, match="holds no run"):
        RunFolder.open(tmp_path / "nothing")


def test_damaged_files_are_named(tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    (run.path / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"config\.json cannot be read"):
        run.read_json("config.json")
    (run.path / "metrics.jsonl").write_text("{\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl cannot be read"):
        run.rewind()


def without(path, key):
    found = json.loads(path.read_text())
    del found[key]
    path.write_text(json.dumps(found))


@pytest.mark.parametrize("key", ["epoch", "last", "best", "best_epoch"])
def test_an_index_that_lacks_what_it_had_is_refused(tmp_path, key):
    with RunFolder.create(tmp_path / "run", {}) as run:
        run.commit_epoch(row(1, 5.0), save("one"))
    without(tmp_path / "run" / "checkpoints" / "index.json", key)
    with pytest.raises(RunError, match=rf"index\.json is damaged: it has no {key}"):
        RunFolder.open(tmp_path / "run")


@pytest.mark.parametrize(
    "lines", ["", "[1]\n", '{"epoch": 2}\n', '{"epoch": 1}\n', '{"epoch": 1}\n{"epoch": 3}\n']
)
def test_metrics_without_a_line_of_every_epoch_are_refused(tmp_path, lines):
    with RunFolder.create(tmp_path / "run", {}) as run:
        for epoch in (1, 2):
            run.commit_epoch(row(epoch, 5.0), save("one"))
        (run.path / "metrics.jsonl").write_text(lines)
        with pytest.raises(RunError, match=r"metrics\.jsonl is damaged"):
            run.rewind()


def test_atomic_write_keeps_the_old_content_when_it_fails(tmp_path, crash_at):
    path = tmp_path / "file"
    write_atomic(path, "old")
    crash_at(0)
    with pytest.raises(CrashError):
        write_atomic(path, "new")
    assert path.read_text() == "old"


def test_git_commit_is_null_outside_of_git(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit(tmp_path) is None


def test_code_that_was_changed_is_kept_with_the_run(tmp_path):
    command = ["git", "-C", str(Path(__file__).parent), "diff", "--binary", "HEAD"]
    found = subprocess.run(command, capture_output=True, check=False)
    if found.returncode:
        pytest.skip("not a work tree of git")
    RunFolder.create(tmp_path / "dirty", {"git_commit": "ab-dirty"})
    RunFolder.create(tmp_path / "clean", {"git_commit": "ab"})
    assert (tmp_path / "dirty" / "changes.diff").read_bytes() == found.stdout
    assert not (tmp_path / "clean" / "changes.diff").exists()
