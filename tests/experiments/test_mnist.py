"""The job with a small learner in place of a framework's: what is written, printed and resumed."""

import io
import itertools
import json

import numpy as np
import pytest
from rich.console import Console

from experiments import mnist
from experiments.classify import curves, training
from experiments.classify.summary import epoch_line, step_status
from experiments.harness import run_folder
from experiments.harness.loop import steady_seconds
from experiments.harness.progress import TrainingProgress
from experiments.harness.schedule import learning_rate

from .conftest import NonFiniteLossError, SoftmaxLearner, SolveError, write_idx_folder

pytestmark = pytest.mark.usefixtures("fake_framework")


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run):
    index = json.loads((run / "checkpoints" / "index.json").read_text())
    with np.load(run / "checkpoints" / index["last"] / "state.npz") as saved:
        return {name: saved[name].tobytes() for name in saved}


def test_a_run_writes_all_that_it_promises(flags, tmp_path, capsys, read_json):
    run = tmp_path / "run"
    assert mnist.main([*flags, "--out", str(run)]) == 0
    config, summary = read_json(run / "config.json"), read_json(run / "summary.json")
    assert config["flags"]["training"]["momentum"] == 0.9
    assert config["flags"]["solver"]["solver"] == "dopri5"
    assert config["flags"]["data"]["source"] == config["data"]["source"] == "idx"
    assert len(config["data"]["sha256"]) == 64
    assert {"versions", "platform", "device", "git_commit", "commands"} <= config.keys()
    assert [row["epoch"] for row in rows(run)] == [1, 2, 3]
    assert rows(run)[0]["nfe_backward"] == 14.0
    assert summary["test_error"] == rows(run)[-1]["test_error"]
    assert (summary["selected_by"], summary["selected_epoch"]) == ("last", 3)
    assert (run / "curves.png").read_bytes()[1:4] == b"PNG"
    out = capsys.readouterr().out
    for text in (
        "dopri5 rtol 0.001",
        "epoch 3/3",
        "7,840",
        "20.0",
        "14.0",
        "paper, ODE-Net",
        "0.42",
    ):
        assert text in out
    assert out.count("train loss") == 3  # a plain line per epoch where there is no terminal


def test_the_learner_sees_the_schedule(flags, tmp_path, monkeypatch):
    seen = []
    step = SoftmaxLearner.train_step

    def train_step(self, batch, learning_rate):
        seen.append(learning_rate)
        return step(self, batch, learning_rate)

    monkeypatch.setattr(SoftmaxLearner, "train_step", train_step)
    assert mnist.main([*flags, "--out", str(tmp_path / "run")]) == 0
    assert len(seen) == 3 * (96 // 16)
    options = {"steps_per_epoch": 6, "epochs": 3}
    assert seen == [learning_rate("cosine", 0.1, step=step, **options) for step in range(18)]


class KilledError(BaseException):
    """Stands in for SIGKILL: nothing catches it."""


PARTS = ["--folds", "4", "--fold", "3", "--validation", "20"]


@pytest.mark.parametrize("when", ["in a step", "in a save", "before the commit", "after it"])
def test_resuming_gives_the_weights_of_the_unbroken_run(flags, tmp_path, monkeypatch, when):
    flags = [*flags, "--augment", "--warmup", "1.5", *PARTS]
    assert mnist.main([*flags, "--out", str(tmp_path / "whole")]) == 0
    count = 0

    def second(function, before):
        def wrapper(*arguments, **keywords):
            nonlocal count
            count += 1
            if count == limit and before:
                raise KilledError
            result = function(*arguments, **keywords)
            if count == limit:
                raise KilledError
            return result

        return wrapper

    with monkeypatch.context() as patch:
        if when == "in a step":
            limit = 7  # the third step of the second epoch
            patch.setattr(SoftmaxLearner, "train_step", second(SoftmaxLearner.train_step, True))
        elif when == "in a save":
            limit = 2
            patch.setattr(SoftmaxLearner, "save", second(SoftmaxLearner.save, False))
        else:
            limit = 6  # config.json, then metrics.jsonl (rewound, and each epoch) and index.json
            before = when == "before the commit"
            patch.setattr(run_folder, "write_atomic", second(run_folder.write_atomic, before))
        broken = str(tmp_path / "broken")
        with pytest.raises(KilledError):
            mnist.main([*flags, "--out", broken])
    assert len(rows(tmp_path / "broken")) in (1, 2)
    assert mnist.main(["--resume", broken]) == 0
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")
    timeless = [
        [{k: v for k, v in row.items() if "seconds" not in k} for row in rows(tmp_path / name)]
        for name in ("broken", "whole")
    ]
    assert timeless[0] == timeless[1]


def test_extending_says_how_the_schedule_goes_on(flags, tmp_path, capsys, read_json):
    run = tmp_path / "run"
    assert mnist.main([*flags, "--out", str(run)]) == 0
    assert mnist.main(["--resume", str(run), "--epochs", "5"]) == 0
    assert "from here on the cosine schedule is the one for 5" in capsys.readouterr().out
    assert [row["epoch"] for row in rows(run)] == [1, 2, 3, 4, 5]
    assert rows(run)[3]["learning_rate"] > rows(run)[2]["learning_rate"]
    config = read_json(run / "config.json")
    assert config["flags"]["training"]["epochs"] == 5
    assert len(config["commands"]) == 2


@pytest.mark.parametrize("flag", ["--resume", "--evaluate"])
def test_a_finished_run_is_evaluated_as_selected(
    flags, tmp_path, monkeypatch, capsys, read_json, flag
):
    run = tmp_path / "run"
    calls, step = itertools.count(), SoftmaxLearner.train_step
    rising = lambda self, *batch: step(self, *batch) | {"loss": float(next(calls))}
    monkeypatch.setattr(SoftmaxLearner, "train_step", rising)
    assert mnist.main([*flags, "--select", "train_loss", "--out", str(run)]) == 0
    before = (run / "metrics.jsonl").read_text()
    capsys.readouterr()
    assert mnist.main([flag, str(run)]) == 0
    summary = read_json(run / "summary.json")
    least = min(rows(run), key=lambda row: row["train_loss"])
    assert summary["selected_epoch"] == least["epoch"] == 1
    assert summary["test_error"] == least["test_error"]
    assert f"test error {least['test_error']:.2f} %" in capsys.readouterr().out
    assert (run / "metrics.jsonl").read_text() == before


def test_validation_selects_the_epoch_and_the_test_fold_is_told_image_by_image(
    flags, tmp_path, monkeypatch, capsys, read_json
):
    seen = []
    evaluate = SoftmaxLearner.evaluate

    def rising(self, images, labels):
        seen.append(len(labels))
        return evaluate(self, images, labels) | {"loss": float(len(seen))}

    monkeypatch.setattr(SoftmaxLearner, "evaluate", rising)
    run = tmp_path / "run"
    assert mnist.main([*flags, *PARTS, "--out", str(run)]) == 0
    summary, first = read_json(run / "summary.json"), rows(run)[0]
    assert (summary["selected_by"], summary["selected_epoch"]) == ("validation", 1)
    for key in ("validation_error", "validation_loss", "test_error", "test_loss"):
        assert summary[key] == first[key]
    assert "82 train + 20 validation + 34 test (fold 3 of 4)" in summary["data"]
    assert "selected as that of least validation loss" in " ".join(capsys.readouterr().out.split())
    found = read_json(run / "predictions.json")
    assert len(found["predicted"]) == len(found["true"]) == len(found["loss"]) == 34
    assert len(set(found["rows"])) == 34
    wrong = sum(p != t for p, t in zip(found["predicted"], found["true"], strict=True))
    assert 100 * wrong / 34 == pytest.approx(summary["test_error"])


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        (["--fold", "2", "--folds", "4"], "--folds 4 (the run has None)"),
        (["--lr", "0.3"], "--lr 0.3 (the run has 0.1)"),
        (["--model", "resnet6"], "--model resnet6 (the run has odenet)"),
        (["--epochs", "2"], "may only grow"),
        (["--out", "elsewhere"], "--out does not go with"),
        (["--evaluate", "elsewhere"], "exclude each other"),
    ],
)
def test_a_resumed_run_keeps_its_flags(flags, tmp_path, capsys, extra, complaint):
    run = str(tmp_path / "run")
    assert mnist.main([*flags, "--out", run]) == 0
    assert mnist.main(["--resume", run, *extra]) == 2
    assert complaint in capsys.readouterr().err


def test_other_data_under_the_same_name_are_refused(flags, tmp_path, capsys):
    run = str(tmp_path / "run")
    assert mnist.main([*flags, "--out", run]) == 0
    other = write_idx_folder(tmp_path / "other", seed=9)
    assert mnist.main(["--resume", run, "--data-dir", str(other)]) == 2
    assert "the run was made with" in capsys.readouterr().err


@pytest.mark.parametrize("error", [NonFiniteLossError("the loss is nan"), SolveError("t=0.3")])
def test_a_failed_step_ends_the_run_and_keeps_the_last_good_state(
    flags, tmp_path, capsys, monkeypatch, read_json, error
):
    good = []
    step = SoftmaxLearner.train_step

    def train_step(self, batch, learning_rate):
        if len(good) == 8:
            raise error
        result = step(self, batch, learning_rate)
        good.append(self.state["weights"].copy())
        return result

    monkeypatch.setattr(SoftmaxLearner, "train_step", train_step)
    run = tmp_path / "run"
    assert mnist.main([*flags, "--out", str(run)]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"epoch 2, step 3 failed: {error}" in message
    with np.load(run / "checkpoints" / "stopped-epoch-0002-step-0002" / "state.npz") as saved:
        assert (saved["weights"] == good[-1]).all()
    assert read_json(run / "summary.json")["failed"] in message
    assert len(rows(run)) == 1
    assert (run / "curves.png").exists()


def test_a_terminal_gets_a_bar_with_loss_accuracy_nfe_and_time_left():
    terminal = Console(file=io.StringIO(), force_terminal=True, width=150)
    metrics = {"loss": 0.123, "accuracy": 0.875, "nfe_forward": 20.0, "nfe_backward": 14.0}
    words = {"status": step_status, "line": epoch_line}
    with TrainingProgress(epochs=2, done=0, steps_per_epoch=2, console=terminal, **words) as bar:
        bar.step(1, metrics)
        bar._bar.refresh()
    shown = terminal.file.getvalue()
    for text in ("epoch 1/2", "loss 0.123", "accuracy 87.5%", "NFE 20+14", "left"):
        assert text in shown


def test_penalties_are_recorded_where_there_are_any():
    step = dict.fromkeys(
        ("loss", "accuracy", "nfe_forward", "nfe_backward", "steps", "rejected"), 1.0
    )
    assert "kinetic" not in training.summarise_steps([step])
    both = training.summarise_steps([step | {"kinetic": 1.0}, step | {"kinetic": 3.0}])
    assert both["kinetic"] == 2.0
    assert "jacobian" not in both


def test_time_per_epoch_is_without_compilation():
    assert steady_seconds([30.0, 1.0, 2.0, 1.0], compiling=True) == 5.0
    assert steady_seconds([1.0, 1.0], compiling=False) == 2.0
    assert steady_seconds([30.0], compiling=True) == 30.0


def test_test_error_weighs_a_short_last_batch_by_its_images(fake_framework):
    class Learner:
        def evaluate(self, images, labels):
            return {"loss": float(len(labels)), "errors": 1.0, "nfe_forward": 6.0}

    class Images:
        validation_images = None

        def test_batches(self, batch_size):
            for count in (4, 4, 2):
                yield np.zeros(count), np.zeros(count)

    result = training.evaluate(Learner(), Images(), 4)
    assert result["test_error"] == 30.0  # 3 of 10
    assert result["test_loss"] == pytest.approx((16 + 16 + 4) / 10)


def test_curves_of_a_resnet_have_no_nfe_panel(tmp_path):
    row = {"epoch": 1, "train_loss": 1.0, "test_loss": None, "test_error": 9.0}
    sizes = []
    for nfe in (0.0, 20.0):
        path = tmp_path / f"{nfe}.png"
        curves.plot_curves([{**row, "nfe_forward": nfe, "nfe_backward": nfe}], "title", path)
        sizes.append(int.from_bytes(path.read_bytes()[16:20], "big"))
    assert sizes[1] > sizes[0]
    assert not list(tmp_path.glob(".*"))
