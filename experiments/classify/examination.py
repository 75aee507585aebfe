"""What a trained run does where it was not trained: `python experiments/examine.py RUN [--quick]`.

Other tolerances and solvers for its ODE (has it learnt a flow, or its solver?), and images with
noise, shifted and turned. Writes examined.json into the run's folder. --quick tries few solvers.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
from jaxtyping import Float, UInt8
from numpy import ndarray
from rich.console import Console

from experiments.classify import config as configuration
from experiments.classify import data
from experiments.classify.config import Config
from experiments.classify.resolve import build_learner, resolve
from experiments.classify.training import test_logits
from experiments.harness import frameworks
from experiments.harness.command import command, say
from experiments.harness.errors import ConfigError, RunError, RunFailedError
from experiments.harness.loop import load_checkpoint
from experiments.harness.run_folder import RunFolder
from experiments.images.dataset import Dataset

TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
# Close to what float32 can resolve; the error of the others is measured against it.
REFERENCE = 1e-6
FIXED = (("euler", 1.0), ("euler", 0.25), ("euler", 0.1), ("rk4", 1.0), ("rk4", 0.25))
# What is done to the images, and how much of it; 0 is the untouched test set.
CHANGES = {"none": (0.0,), "noise": (0.1, 0.2, 0.4), "shift": (1, 2, 3), "rotation": (10, 20, 30)}

Images = UInt8[ndarray, "n height width channels"]
Logits = Float[ndarray, "n classes"]


def run(arguments: list[str], console: Console) -> None:
    """Everything `main` does, with errors as exceptions."""
    paths = [argument for argument in arguments if argument != "--quick"]
    if len(paths) != 1 or paths[0].startswith("-"):
        raise ConfigError("expected RUN [--quick], RUN being the folder of a finished run.")
    quick = "--quick" in arguments
    with RunFolder.open(Path(paths[0])) as folder:
        if folder.best is None:
            raise RunError(f"{folder.path} has no checkpoint yet; train it first.")
        saved = folder.read_json("config.json", {"flags": dict, "data.sha256": str})
        config = resolve(configuration.from_json(saved["flags"]))
        dataset = load(config, folder)
        images = changed_images(config, dataset, folder)
        say(console, "images", f"{len(images)} kinds tested")
        solvers = []
        if config.solver.solver is not None:
            solvers = changed_solvers(config, dataset, folder, quick)
        say(console, "solvers", f"{len(solvers)} solvers tested")
        found = {"images": images, "solvers": solvers}
        folder.write_json("examined.json", found)


main = command("examine.py", run, usage=__doc__)


def load(config: Config, folder: RunFolder) -> Dataset:
    """The data set the run was trained on."""
    dataset = data.load(config.data)
    if dataset.checksum != folder.read_json("config.json")["data"]["sha256"]:
        raise RunError(f"the data are now {dataset.title}, not those {folder.path} was made with.")
    return dataset


def changed_images(config: Config, dataset: Dataset, folder: RunFolder) -> list[dict[str, Any]]:
    """Test error for every change of the images."""
    learner = trained(config, folder)
    rows = []
    for kind, amounts in CHANGES.items():
        for amount in amounts:
            changed = dataclasses.replace(
                dataset, test_images=change(dataset.test_images, kind, amount)
            )
            logits = test_logits(learner, changed, config.training.batch_size)
            rows.append({"kind": kind, "amount": amount, "test_error": _error(logits, dataset)})
    return rows


def changed_solvers(
    config: Config, dataset: Dataset, folder: RunFolder, quick: bool = False
) -> list[dict[str, Any]]:
    """For every solver: test error, error of the logits, NFE; if adaptive a step's cost too."""
    exact = _run_solver(config, dataset, folder, "dopri5", REFERENCE, None)
    rows = [exact]
    for tolerance in TOLERANCES[1:2] if quick else TOLERANCES:
        rows.append(_run_solver(config, dataset, folder, "dopri5", tolerance, None))
    for name, step in FIXED[:1] if quick else FIXED:
        t1 = config.solver.t1
        rows.append(_run_solver(config, dataset, folder, name, config.solver.rtol, step * t1))
    reference = exact["logits"]
    for row in rows:
        logits = row.pop("logits")
        row["logit_error"] = float(np.linalg.norm(logits - reference) / np.linalg.norm(reference))
    return rows


def change(images: Images, kind: str, amount: float) -> Images:
    """Images with Gaussian noise, shifted by pixels, or turned by degrees; the same every time.

    The noise has a standard deviation of `amount` (white is 1) and is clipped to what a pixel can
    be. A shift goes right or down or left or up, image by image in turn; a turn to either side.
    """
    n = len(images)
    if kind == "noise":
        noise = np.random.default_rng(0).normal(0, 255 * amount, images.shape)
        return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)
    if kind == "shift":
        ways = int(amount) * np.array([(0, 1, 0), (1, 0, 0), (0, -1, 0), (-1, 0, 0)])
        return np.stack([scipy.ndimage.shift(images[i], ways[i % 4], order=0) for i in range(n)])
    if kind == "rotation":
        turn = lambda i: scipy.ndimage.rotate(
            images[i].astype(float), amount if i % 2 else -amount, reshape=False, order=1
        )
        return np.clip(np.rint([turn(i) for i in range(n)]), 0, 255).astype(np.uint8)
    return images


def trained(config: Config, folder: RunFolder, **changes: Any) -> Any:
    """The run's learner with the weights that are its result and some arguments changed."""
    learner = build_learner(config, **changes)
    load_checkpoint(learner, folder.best)
    return learner


def _run_solver(
    config: Config, dataset: Dataset, folder: RunFolder, solver: str, tolerance: float,
    step: float | None,
) -> dict[str, Any]:  # fmt: skip
    learner = trained(
        config, folder, solver=solver, rtol=tolerance, atol=tolerance, step_size=step,
        max_steps=1024,
    )  # fmt: skip
    solve = frameworks.module(config.model.framework, "solve")
    try:
        logits = test_logits(learner, dataset, config.training.batch_size)
        images, labels = next(dataset.test_batches(config.training.batch_size))
        nfe = learner.evaluate(images, labels)["nfe_forward"]
        cost = _training_step(learner, dataset, config) if step is None else {}
    except solve.SolveError as error:
        raise RunFailedError(f"{solver} at {tolerance:g} failed: {error}") from None
    return {
        "solver": solver,
        "tolerance": None if step else tolerance,
        "step_size": step,
        "test_error": _error(logits, dataset),
        "nfe_forward": nfe,
        **cost,
        "logits": logits,
    }


def _training_step(learner: Any, dataset: Dataset, config: Config) -> dict[str, float]:
    """NFE and seconds of a training step, the faster of two after compilation; the rate is 0."""
    batches = dataset.epoch_batches(config.training.seed, 1, config.training.batch_size, False)
    images, labels = next(batches)
    batch = {"images": images, "labels": labels}
    row = learner.train_step(batch, 0.0)
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        learner.train_step(batch, 0.0)
        seconds.append(time.perf_counter() - began)
    return {
        "step_nfe_forward": row["nfe_forward"],
        "step_nfe_backward": row["nfe_backward"],
        "seconds_per_step": min(seconds),
    }


def _error(logits: Logits, dataset: Dataset) -> float:
    return 100 * float(np.mean(logits.argmax(1) != dataset.test_labels))
