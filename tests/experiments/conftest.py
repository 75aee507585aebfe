"""A tiny learner with the interface of both frameworks, and a tiny set of images on disk."""

import gzip
import importlib
import json
import signal
import sys
import types

import numpy as np
import pytest

# A job in the background of a shell ignores SIGINT, and commands that tests start inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


class SolveError(RuntimeError):
    pass


class NonFiniteLossError(RuntimeError):
    pass


class SoftmaxLearner:
    """Softmax regression with momentum, in numpy; `lr` above 1e6 makes its loss NaN."""

    def __init__(self, **arguments):
        self.arguments = arguments
        generator = np.random.default_rng(arguments["seed"])
        width = 10 if arguments["model"] == "odenet" else 7
        self.state = {
            "weights": generator.normal(0, 0.01, (784, width)),
            "velocity": np.zeros((784, width)),
        }
        self.parameter_count = 784 * width
        self.device_name = "numpy"
        self.versions = {"fake": "1"}

    def predict(self, images):
        return images.reshape(len(images), -1) / 255 @ self.state["weights"]

    def _loss(self, images, labels):
        logits = self.predict(images)
        logits = logits - logits.max(1, keepdims=True)
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return probabilities, -np.log(probabilities[np.arange(len(labels)), labels]).mean()

    def train_step(self, batch, learning_rate):
        images, labels = batch["images"], batch["labels"]
        if learning_rate > 1e6:
            raise NonFiniteLossError("the loss is nan; lower --lr")
        probabilities, loss = self._loss(images, labels)
        slope = probabilities - np.eye(10)[labels]
        gradient = (images.reshape(len(images), -1) / 255).T @ slope / len(images)
        self.state["velocity"] = 0.9 * self.state["velocity"] + gradient
        self.state["weights"] = self.state["weights"] - learning_rate * self.state["velocity"]
        accuracy = (probabilities.argmax(1) == labels).mean()
        solver = {"nfe_forward": 20.0, "nfe_backward": 14.0, "steps": 3.0, "rejected": 0.0}
        return {"loss": loss, "accuracy": accuracy, **solver}

    def evaluate(self, images, labels):
        probabilities, loss = self._loss(images, labels)
        errors = (probabilities.argmax(1) != labels).sum()
        return {"loss": loss, "errors": float(errors), "nfe_forward": 20.0}

    def save(self, path):
        path.mkdir()
        np.savez(path / "state.npz", **self.state)

    def load(self, path):
        with np.load(path / "state.npz") as saved:
            for name, value in self.state.items():
                if saved[name].shape != value.shape:
                    raise ValueError(f"{name} has shape {saved[name].shape}, not {value.shape}")
            self.state = dict(saved)


def check_solver(solver, adjoint, step_size):
    if solver != "dopri5":
        raise ValueError(f"solver {solver!r} is unknown; choose dopri5")


@pytest.fixture
def fake_framework(monkeypatch):
    """Stands in for torch_node, so that what is tested is the experiment and not a model."""
    importlib.import_module("torch_node.models")  # the real one, which imports the real solve
    modules = {name: types.ModuleType(name) for name in ("classify", "learner", "solve")}
    modules["classify"].learner = SoftmaxLearner
    modules["learner"].NonFiniteLossError = NonFiniteLossError
    modules["learner"].SolveError = modules["solve"].SolveError = SolveError
    modules["solve"].check = check_solver
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, f"torch_node.{name}", module)


def idx_bytes(array):
    """`array` of uint8 as the content of an IDX file."""
    shape = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


def write_idx_folder(folder, train=96, test=40, seed=0, compress=False):
    """Four IDX files of blurred digits-like noise that softmax regression can tell apart."""
    generator = np.random.default_rng(seed)
    prototypes = generator.integers(0, 256, (10, 28, 28))
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, count in (("train", train), ("t10k", test)):
        labels = generator.integers(0, 10, count).astype(np.uint8)
        noise = generator.normal(0, 60, (count, 28, 28))
        images = np.clip(prototypes[labels] + noise, 0, 255).astype(np.uint8)
        for name, array in (
            (f"{prefix}-images-idx3-ubyte", images),
            (f"{prefix}-labels-idx1-ubyte", labels),
        ):
            content = idx_bytes(array)
            if compress:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    return write_idx_folder(tmp_path_factory.mktemp("images") / "idx")


@pytest.fixture(scope="session")
def tfds_dir(tmp_path_factory):
    """One TFDS folder for all tests: it also shows that they can share one."""
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture
def flags(image_folder, tfds_dir):
    """Flags of a small run on the small set."""
    return [
        "--framework", "torch", "--data-dir", str(image_folder), "--tfds-dir", str(tfds_dir),
        "--batch-size", "16", "--epochs", "3",
    ]  # fmt: skip


@pytest.fixture
def read_json():
    return lambda path: json.loads(path.read_text())
