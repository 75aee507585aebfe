"""A training state of one framework goes on in the other."""

import copy
import functools
import json
import re

import jax
import numpy as np
import pytest
import torch

import jax_node.checkpoint
import jax_node.classify
import torch_node.checkpoint
import torch_node.classify
from crosscheck import __main__ as command
from crosscheck import trained
from crosscheck.check import difference
from crosscheck.convert import ConvertError, convert
from experiments import dynamics, mnist

# Momentum of what the next batch norm takes away: zero but for rounding.
BEFORE_BATCH_NORM = re.compile(r"optimizer\..*downsample\.conv[123]\.bias")


def learner(framework, optimizer, norm="group"):
    """A new one; in JAX, where a step changes nothing but which state it holds, compiled once."""
    if framework == "jax":
        return copy.copy(in_jax(optimizer, norm))
    return torch_node.classify.learner(**options(optimizer, norm, seed=2))


@functools.cache
def in_jax(optimizer, norm):
    return jax_node.classify.learner(**options(optimizer, norm, seed=1))


def options(optimizer, norm, seed):
    return trained.LEARNER | {
        "model": "resnet1",
        "solver": None,
        "adjoint": None,
        "step_size": None,
        "optimizer": optimizer,
        "norm": norm,
        "precision": "float64",
        "seed": seed,
    }


def read(path):
    if (path / "state.pt").is_file():
        state = torch_node.checkpoint.read(path, torch.device("cpu"))
        return {name: tensor.numpy() for name, tensor in state.items()}
    return jax_node.checkpoint.read(path)


@pytest.mark.parametrize(("optimizer", "norm"), [("sgd", "batch"), ("adam", "group")])
@pytest.mark.parametrize(("start", "end"), [("jax", "torch"), ("torch", "jax")])
def test_training_goes_on(tmp_path, start, end, optimizer, norm):
    ours, theirs = learner(start, optimizer, norm), learner(end, optimizer, norm)
    rate = {"sgd": 0.05, "adam": 1e-3}[optimizer]
    for step in range(2):
        ours.train_step(trained.batch(step, 4), rate)
    ours.save(tmp_path / "start")
    theirs.load(convert(tmp_path / "start", end, tmp_path / "end"))
    images = trained.batch(2, 4)["images"]
    logits = [{"logits": side.predict(images)} for side in (ours, theirs)]
    assert difference(*logits).error < 1e-12

    # Two more steps on both sides: the optimiser's state matters from the first on.
    for step in (2, 3):
        for side in (ours, theirs):
            side.train_step(trained.batch(step, 4), rate)
    ours.save(tmp_path / "ours")
    theirs.save(tmp_path / "theirs")
    back = convert(tmp_path / "theirs", start, tmp_path / "back")
    # Adam divides by the root of a second moment that may be tiny: rounding grows there.
    bound = {"sgd": 1e-11, "adam": 1e-8}[optimizer]
    found, expected = read(back), read(tmp_path / "ours")
    for name in [n for n in expected if norm == "batch" and BEFORE_BATCH_NORM.search(n)]:
        assert np.abs(found.pop(name) - expected.pop(name)).max() < 1e-14
    assert difference(found, expected).error < bound


@pytest.mark.parametrize("start", ["jax", "torch"])
@pytest.mark.parametrize(("optimizer", "norm"), [("sgd", "group"), ("adam", "batch")])
def test_there_and_back_is_exact_even_before_the_first_step(tmp_path, start, optimizer, norm):
    end = {"jax": "torch", "torch": "jax"}[start]
    side = learner(start, optimizer, norm)
    side.save(tmp_path / "start")
    there = convert(tmp_path / "start", end, tmp_path / "there")
    learner(end, optimizer, norm).load(there) if start == "jax" else None
    first, last = read(tmp_path / "start"), read(convert(there, start, tmp_path / "back"))
    if start == "torch":
        assert first.keys() == last.keys()
    else:  # JAX's zeros are not known to a torch checkpoint without steps
        first = {name: value for name, value in first.items() if name.startswith("model.")}
    for name in first:
        assert np.array_equal(first[name], last[name]), name


@pytest.mark.parametrize(("start", "end"), [("jax", "torch"), ("torch", "jax")])
def test_a_run_goes_on_in_the_other_framework(tmp_path, monkeypatch, capsys, start, end):
    monkeypatch.chdir(tmp_path)
    data = ["--source", "embedded", "--tfds-dir", str(tmp_path / "tfds")]
    small = ["--limit-train", "16", "--limit-test", "16", "--batch-size", "8", "--epochs", "1"]
    flags = ["--framework", start, "--model", "resnet1", "--precision", "float64", "--out", "run"]
    flags += ["--norm", "batch"]
    assert mnist.main([*flags, *data, *small]) == 0
    if start == "jax":  # as if on two free cores, which is what a user has by default
        settled = json.loads((tmp_path / "run" / "config.json").read_text())
        settled["flags"]["model"]["devices"] = 2
        (tmp_path / "run" / "config.json").write_text(json.dumps(settled))
    assert command.main(["convert", "run", "--to", end]) == 0
    out = capsys.readouterr().out
    assert f"wrote run-{end}" in out
    assert ("note: devices 2 is 1 in torch" in out) == (start == "jax")

    errors = []
    for run in ("run", f"run-{end}"):
        assert mnist.main(["--evaluate", run, "--devices", "1"]) == 0
        errors.append(re.search(r"test error (\S+) %", capsys.readouterr().out)[1])
    assert errors[0] == errors[1]

    assert mnist.main(["--resume", f"run-{end}", "--epochs", "2"]) == 0
    metrics = (tmp_path / f"run-{end}" / "metrics.jsonl").read_text()
    rows = [json.loads(row) for row in metrics.splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    record = json.loads((tmp_path / f"run-{end}" / "config.json").read_text())
    assert record["flags"]["model"]["framework"] == end


def test_a_bfloat16_run_goes_on_in_float32_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = ["--source", "embedded", "--tfds-dir", str(tmp_path / "tfds"), "--out", "run"]
    small = ["--limit-train", "8", "--limit-test", "8", "--batch-size", "8", "--epochs", "1"]
    flags = ["--model", "resnet1", "--precision", "bfloat16"]
    assert mnist.main([*flags, *data, *small]) == 0
    assert command.main(["convert", "run", "--to", "torch"]) == 0
    assert "note: precision bfloat16 is float32 in torch" in capsys.readouterr().out
    assert mnist.main(["--resume", "run-torch", "--epochs", "2"]) == 0


@pytest.mark.parametrize(("start", "end"), [("jax", "torch"), ("torch", "jax")])
def test_a_run_of_an_application_goes_on_in_the_other_framework(tmp_path, start, end):
    run = tmp_path / "run"
    flags = ["--smoke", "--epochs", "1", "--framework", start, "--precision", "float64"]
    assert dynamics.main([*flags, "--out", str(run)]) == 0
    there = convert(run, end)
    assert dynamics.main(["--resume", str(there), "--epochs", "2"]) == 0
    assert dynamics.main(["--resume", str(run), "--epochs", "2"]) == 0
    rows = [
        json.loads((folder / "metrics.jsonl").read_text().splitlines()[1])
        for folder in (there, run)
    ]
    # Rounding, through three steps of Adam, whose second moments may be tiny.
    assert rows[0]["train_loss"] == pytest.approx(rows[1]["train_loss"], rel=1e-8)


def test_the_folder_one_is_in_can_be_converted(tmp_path, monkeypatch):
    learner("torch", "sgd").save(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    assert convert(".", "jax") == tmp_path / "here-jax"
    assert (tmp_path / "here-jax").is_dir()


def test_what_cannot_be_converted_is_refused_in_one_sentence(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConvertError, match="holds neither a run"):
        convert(tmp_path / "empty", "torch", tmp_path / "out")
    with pytest.raises(ConvertError, match="is not a folder"):
        convert(tmp_path / "nothing", "torch")
    torch_side = learner("torch", "sgd")
    torch_side.save(tmp_path / "here")
    with pytest.raises(ConvertError, match="is a checkpoint of torch already"):
        convert(tmp_path / "here", "torch")
    with pytest.raises(ConvertError, match="exists already; choose a new folder"):
        convert(tmp_path / "here", "jax", tmp_path / "here")
    with pytest.raises(ConvertError, match="'numpy' is no framework"):
        convert(tmp_path / "here", "numpy")
    with pytest.raises(ConvertError, match="is inside of"):
        convert(tmp_path / "here", "jax", tmp_path / "here" / "there")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "config.json").write_text("[]")
    with pytest.raises(ConvertError, match="list cannot be converted"):
        convert(tmp_path / "list", "jax")
    torch_node.checkpoint.write(
        tmp_path / "flat", {"steps": torch.tensor(0), "model.weight": torch.ones(2, 2),
                            "model.kernel": torch.ones(2, 2)},
    )  # fmt: skip
    with pytest.raises(ConvertError, match="two tensors that become model.kernel"):
        convert(tmp_path / "flat", "jax")
    (tmp_path / "here" / "state.pt").write_bytes(b"damaged")
    assert command.main(["convert", str(tmp_path / "here"), "--to", "jax"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("crosscheck: ")
    assert message.count("\n") == 1
    assert "unreadable" in message
    assert jax.tree.leaves(list(tmp_path.glob("here-*"))) == []
