"""Classify images by a trained run: `python experiments/predict.py --help`."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy import ndarray
from rich.console import Console
from scipy.special import softmax
from tyro import MISSING
from tyro.conf import Positional, arg

from experiments.classify import config as configuration
from experiments.classify import movie
from experiments.classify.config import Config
from experiments.classify.data import load
from experiments.classify.resolve import build_learner, resolve
from experiments.harness import flags, frameworks
from experiments.harness.command import command, show
from experiments.harness.errors import ConfigError, RunError, RunFailedError
from experiments.harness.files import read_object
from experiments.harness.loop import load_checkpoint
from experiments.harness.run_folder import SAVED
from experiments.images import image_file
from experiments.images.dataset import CLASSES

FRAMES = 41
MNIST_SHAPE = (28, 28, 1)
EXAMPLES = """examples:
  python experiments/predict.py runs/mnist-odenet-jax-seed0-20250131-120000 seven.png
  python experiments/predict.py RUN --test 5
  python experiments/predict.py RUN seven.png --animate seven.gif
"""


@dataclass(frozen=True)
class Flags:
    """Classify images by the best checkpoint of a run of mnist.py.

    Images may have any size and colour; they are made grey, light on black, and fitted into 28x28
    pixels as MNIST's were; for a run on other images, resized to those. Each is solved by itself,
    so that its NFE is its own.
    """

    run: Positional[Annotated[Path, arg(metavar="RUN")]] = MISSING
    """Folder of the run"""
    images: Positional[Annotated[tuple[Path, ...], flags.named("[IMAGE ...]", "none")]] = ()
    """PNG, JPEG or npy files."""
    test: Annotated[int, flags.named("N", "none")] = 0
    """First N test images of the run's data."""
    animate: Annotated[Path | None, flags.named("FILE.gif", "none")] = None
    """Draw one image's state and probabilities over t."""


def parse(arguments: Sequence[str]) -> Flags:
    """The command line; raises `ConfigError`."""
    given = flags.parse("predict.py", EXAMPLES, arguments, Flags())
    if given.test < 0:
        raise ConfigError(f"--test is {given.test}; at least 1 expected.")
    if not given.images and not given.test:
        raise ConfigError("no image given; name image files, or take test images with --test N.")
    if given.animate:
        if given.animate.suffix.lower() != ".gif":
            raise ConfigError(f"--animate {given.animate} does not end in .gif.")
        if not given.animate.absolute().parent.is_dir():
            raise ConfigError(f"--animate {given.animate}: its folder is not there.")
        if len(given.images) + given.test != 1:
            raise ConfigError("--animate draws one image; name one file, or --test 1.")
    return given


def run(arguments: list[str], console: Console) -> None:
    """Everything `main` does, with errors as exceptions."""
    given = parse(arguments)
    config, data, checkpoint, epoch = open_run(given.run)
    if given.animate and config.solver.solver is None:
        raise ConfigError(f"--animate needs an ODE, and {config.model.name} solves none.")
    fashion = config.data.dataset == "fashion_mnist"
    shape = tuple(data.get("shape", MNIST_SHAPE))
    read = functools.partial(image_file.read, fashion=fashion)
    if shape != MNIST_SHAPE:
        read = functools.partial(image_file.resized, shape=shape)
    pictures = [(str(path), *read(path)) for path in given.images]
    pictures += test_images(config, given.test)
    solve = frameworks.module(config.model.framework, "solve")
    learner = build_learner(config)
    load_checkpoint(learner, checkpoint)
    made = f"{config.model.name} in {config.model.framework}, epoch {epoch}"
    show(console, f"{made}, trained on {data['title'].split(',')[0]}")
    names = data.get("classes", CLASSES["fashion_mnist" if fashion else "mnist"])
    try:
        for name, pixels, treatment in pictures:
            logits, nfe = classify(learner, pixels, config)
            chosen = int(logits.argmax())
            sure = f"probability {softmax(logits)[chosen]:.3f}"
            show(console, f"{name}: {names[chosen]}, {sure}, NFE {nfe} ({treatment})")
        if given.animate:
            times = np.linspace(0, config.solver.t1, frame_count(config))
            found = learner.trajectory(pixels[None], times.tolist())
            movie.animate(
                given.animate, pixels if shape[-1] == 3 else pixels[..., 0], times,
                found.states[:, 0], softmax(found.logits[:, 0], axis=-1), names,
            )  # fmt: skip
            show(console, f"wrote {given.animate}")
    except solve.SolveError as error:
        raise RunFailedError(str(error)) from None
    except OSError as error:
        raise RunError(f"{given.animate} cannot be written: {error.strerror}.") from None


def open_run(path: Path) -> tuple[Config, dict[str, Any], Path, int]:
    """Configuration, data, and best checkpoint with its epoch, for the devices of this machine.

    Only reads, so that the run may go on meanwhile.
    """
    if not (path / "config.json").is_file():
        raise RunError(f"{path} holds no run (it has no config.json).")
    saved = read_object(path / "config.json", {"flags": dict, "data.title": str})
    try:
        config = configuration.from_json(saved["flags"])
        here = dataclasses.replace(config.model, device="auto", devices=1)
        config = resolve(dataclasses.replace(config, model=here))
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} is no run of mnist.py: {str(error).rstrip('.')}.") from None
    index = path / "checkpoints" / "index.json"
    found = read_object(index) if index.exists() else {}
    if not found.get("epoch", "best" in found):
        raise RunError(f"{path} has no finished epoch yet; train it with --resume first.")
    read_object(index, SAVED)
    return config, saved["data"], path / "checkpoints" / found["best"], found["best_epoch"]


def test_images(config: Config, count: int) -> list[tuple[str, ndarray, str]]:
    """The first test images of the run's data: name, pixels and true class."""
    if not count:
        return []
    dataset = load(config.data)
    if count > (known := len(dataset.test_labels)):
        raise ConfigError(f"--test is {count}, but the run's data have {known:,} test images.")
    pixels, labels = dataset.test_images[:count], dataset.test_labels[:count]
    return [
        (f"test image {i}", pixel, f"truly {dataset.classes[label]}")
        for i, (pixel, label) in enumerate(zip(pixels, labels, strict=True))
    ]


def classify(learner: Any, pixels: ndarray, config: Config) -> tuple[ndarray, int]:
    """Logits of one image, and the NFE they took."""
    if config.solver.solver is None:
        return learner.predict(pixels[None])[0], 0
    found = learner.trajectory(pixels[None], [0.0, config.solver.t1])
    return found.logits[-1, 0], found.nfe


def frame_count(config: Config) -> int:
    """Frames of an animation; of a fixed-step method, its own steps, with nothing between."""
    step = config.solver.step_size
    return FRAMES if step is None else 1 + int(np.ceil(config.solver.t1 / step * (1 - 1e-6)))


main = command("predict.py", run, interrupted="nothing was changed")

if __name__ == "__main__":
    sys.exit(main())
