"""The command as a user runs it: its exit code and its one sentence, as a process where it matters.

A process takes seconds to import a framework, so that most are asked within this one.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import mnist

# One thread: two of torch's that wait for each other on busy cores are a hundred times slower.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
SCRIPTS = Path(__file__).parents[2] / "experiments"


def command(script, *flags):
    return [sys.executable, str(SCRIPTS / script), *map(str, flags)]


def call(*flags, script="mnist.py", cwd=None):
    return subprocess.run(
        command(script, *flags),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env=ENVIRONMENT,
        check=False,
    )


@pytest.fixture
def within(capsys):
    """`call`, but in this process."""

    def run(*flags):
        capsys.readouterr()
        code = mnist.main([str(flag) for flag in flags])
        return subprocess.CompletedProcess(flags, code, *capsys.readouterr())

    return run


def start(*flags, script="mnist.py"):
    return subprocess.Popen(
        command(script, *flags),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


def assert_one_sentence(done, code, *parts):
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    sentence = done.stderr.strip()
    assert sentence.startswith("mnist.py: ")
    assert "\n" not in sentence
    for part in parts:
        assert str(part) in sentence


@pytest.fixture
def small(flags):
    """Flags of the smallest training: 64 images, ResNet-1."""
    return [*flags, "--model", "resnet1", "--limit-train", 64, "--limit-test", 20]


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--rtol", "-1"], ["--rtol is -1"]),
        (["--batch-size", "0"], ["--batch-size is 0"]),
        (["--model", "vgg"], ["--model vgg is unknown", "odenet"]),
        (["--epochs", "many"], ["--epochs"]),
        (["--resume", "nowhere"], ["nowhere holds no run"]),
    ],
)
def test_bad_flags(flags, parts, within, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_sentence(within(*flags), 2, *parts)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_flag_ends_the_process_without_a_traceback(tmp_path):
    assert_one_sentence(call("--rtol", "-1", cwd=tmp_path), 2, "--rtol is -1")
    assert list(tmp_path.iterdir()) == []


def test_unknown_solver_is_answered_with_the_list(flags, within):
    assert_one_sentence(within(*flags, "--solver", "dopri6"), 2, "dopri6", "dopri5", "rk4")


def test_fixed_step_solver_without_a_step(flags, within):
    assert_one_sentence(within(*flags, "--solver", "rk4"), 2, "--step-size")


def test_truncated_idx(flags, within, image_folder, tmp_path):
    for path in image_folder.iterdir():
        content = path.read_bytes()
        short = "t10k-images" in path.name
        (tmp_path / path.name).write_bytes(content[:-100] if short else content)
    done = within(*flags, "--data-dir", tmp_path, "--out", tmp_path / "run")
    assert_one_sentence(done, 2, "t10k-images-idx3-ubyte is truncated")
    assert not (tmp_path / "run").exists()


def test_folder_not_writable(small, within, tmp_path):
    (tmp_path / "file").write_text("")
    # Below a regular file, because root may write into a folder of mode 0.
    assert_one_sentence(within(*small, "--out", tmp_path / "file" / "run"), 2, "cannot be written")
    done = within(*small, "--tfds-dir", tmp_path / "file" / "tfds")
    assert_one_sentence(done, 2, "cannot be written", "--tfds-dir")


def test_batch_larger_than_the_data(small, within):
    assert_one_sentence(within(*small, "--batch-size", 65), 2, "65", "64 training images")


def test_nan_loss_keeps_what_was_saved(small, within, tmp_path):
    run = tmp_path / "run"
    done = within(*small, "--lr", "1e30", "--epochs", 1, "--out", run)
    assert_one_sentence(done, 1, "epoch 1", "last good state")
    stopped = json.loads((run / "checkpoints" / "index.json").read_text())["stopped"]
    assert (run / "checkpoints" / stopped).is_dir()


def test_checkpoint_of_another_model(small, within, tmp_path):
    run = tmp_path / "run"
    assert within(*small, "--epochs", 1, "--out", run).returncode == 0
    config = run / "config.json"
    config.write_text(config.read_text().replace('"name": "resnet1"', '"name": "resnet2"'))
    assert_one_sentence(within("--evaluate", run), 2, "does not fit this run")


def wait_for(condition, process, seconds=300):
    began = time.perf_counter()
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.perf_counter() - began < seconds
        time.sleep(0.002)


def last_state(run):
    index = json.loads((run / "checkpoints" / "index.json").read_text())
    folder = run / "checkpoints" / index["last"]
    return index["epoch"], folder


def tensors(framework, folder):
    if framework == "torch":
        import torch

        saved = torch.load(folder / "state.pt", weights_only=True)
        return {name: value.numpy().tobytes() for name, value in saved.items()}
    from jax_node import checkpoint

    saved = checkpoint.read(folder)
    return {name: np.asarray(value).tobytes() for name, value in saved.items()}


@pytest.mark.parametrize(
    ("framework", "devices"),
    [
        ("torch", 1),
        *(pytest.param("jax", n, marks=pytest.mark.slow) for n in (1, 2)),  # compiled three times
    ],
)
def test_resume_after_kill_is_bit_identical(framework, devices, small, tmp_path):
    flags = [*small, "--framework", framework, "--epochs", 4, "--augment", "--devices", devices]
    assert call(*flags, "--out", tmp_path / "whole").returncode == 0
    broken = tmp_path / "broken"
    process = start(*flags, "--out", broken)
    index = broken / "checkpoints" / "index.json"
    wait_for(lambda: index.exists() and json.loads(index.read_text())["epoch"] >= 1, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert last_state(broken)[0] < 4
    done = call("--resume", broken)
    assert done.returncode == 0, done.stderr
    states = []
    for run in (tmp_path / "whole", broken):
        epoch, folder = last_state(run)
        assert epoch == 4
        states.append(tensors(framework, folder))
    assert len(states[0]) > 10
    assert states[0] == states[1]


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["jax", "torch"])
@pytest.mark.parametrize("script", ["dynamics.py", "latent_ode.py", "cnf.py", "augmented.py"])
def test_resume_of_an_application_after_kill_is_bit_identical(script, framework, tmp_path):
    flags = ["--smoke", "--framework", framework, "--epochs", 6]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = call(*flags, "--out", whole, script=script)
    assert done.returncode == 0, done.stderr
    process = start(*flags, "--out", broken, script=script)
    wait_for((broken / "checkpoints" / "index.json").exists, process)
    process.kill()
    process.communicate()
    assert last_state(broken)[0] < 6
    done = call("--resume", broken, script=script)
    assert done.returncode == 0, done.stderr
    states = [tensors(framework, last_state(run)[1]) for run in (whole, broken)]
    assert len(states[0]) > 2
    assert states[0] == states[1]


def test_a_run_in_progress_is_locked_and_an_interrupt_keeps_its_epochs(small, within, tmp_path):
    run = tmp_path / "run"
    process = start(*small, "--epochs", 1000, "--out", run)
    try:
        wait_for((run / "checkpoints" / "index.json").exists, process)
        assert_one_sentence(within("--resume", run), 2, f"in use by process {process.pid}")
        process.send_signal(signal.SIGINT)
        _, message = process.communicate(timeout=300)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert "--resume" in message
    assert "Traceback" not in message
    epoch, folder = last_state(run)
    assert epoch >= 1
    assert folder.is_dir()


@pytest.mark.parametrize("module", ["pages", "examine", "verdict", "collect", "report"])
def test_help_says_how_the_command_is_called(module, capsys):
    assert importlib.import_module(f"experiments.{module}").main(["--help"]) == 0
    assert f"{module}.py" in capsys.readouterr().out


def test_a_reader_that_goes_early_gets_no_traceback():
    process = subprocess.Popen(
        command("mnist.py", "--help"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 128 + signal.SIGPIPE
