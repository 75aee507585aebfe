"""Training on images: what `harness/loop.py` is given, and what is made of its rows."""

from __future__ import annotations

import math
import resource
import statistics
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import scipy.special
from jaxtyping import Float
from numpy import ndarray
from rich.console import Console

from experiments.classify import config as configuration
from experiments.classify import curves, summary, trust
from experiments.classify.config import Config
from experiments.harness import loop
from experiments.harness.errors import RunError, RunFailedError
from experiments.harness.run_folder import RunFolder, selected_checkpoint
from experiments.images.dataset import Batch, Dataset, batches

CHECKED = 64  # training images on which gradients are compared
# The metric whose least value selects an epoch; None is the last epoch.
SCORE = {"last": None, "train_loss": "train_loss", "validation": "validation_loss"}


def train(
    folder: RunFolder, learner: Any, dataset: Dataset, config: Config, console: Console
) -> None:
    """Train from the last saved epoch to the last one asked for; write and print the results."""
    rows = folder.rewind()
    begin(folder, learner, config)
    training = config.training
    batch_size, steps = training.batch_size, len(dataset.train_labels) // training.batch_size
    title = f"{configuration.describe(config)}\n{dataset.title}"
    # Always the same images, whatever the seed.
    checked = next(dataset.epoch_batches(0, 0, min(CHECKED, len(dataset.train_labels)), False))
    checks: list[dict[str, float]] = []

    def batches(epoch: int) -> Iterator[dict[str, Any]]:
        checks.clear()
        batches_of_epoch = dataset.epoch_batches(training.seed, epoch, batch_size, training.augment)
        for step, (images, labels) in enumerate(batches_of_epoch, (epoch - 1) * steps):
            if training.check_gradient and step % training.check_gradient == 0:
                checks.append({"step": step, **learner.check_gradient(*checked)})
            yield {"images": images, "labels": labels}

    def tested(epoch: int) -> dict[str, Any]:
        found = evaluate(learner, dataset, batch_size)
        return found | ({"gradient_checks": list(checks)} if checks else {})

    def line(row: dict[str, Any], epochs: int) -> str:
        warning = trust.warning(rows)
        return summary.epoch_line(row, epochs) + (f"\n{'warning':9s} {warning}" if warning else "")

    assert training.select is not None
    try:
        loop.train(
            folder,
            rows,
            learner,
            config,
            steps,
            batches,
            tested,
            console,
            status=summary.step_status,
            line=line,
            summarise=summarise_steps,
            score=SCORE[training.select],
        )
    except RunFailedError:
        if rows:
            curves.plot_curves(rows, title, folder.path / "curves.png")
        raise
    if folder.best != folder.last:
        loop.load_checkpoint(learner, folder.best)
    folder.write_json("predictions.json", predictions(learner, dataset, batch_size))
    results = summarise_run(folder, learner, dataset, config, rows)
    folder.write_json("summary.json", results)
    curves.plot_curves(rows, title, folder.path / "curves.png")
    summary.print_summary(console, results)


def begin(folder: RunFolder, learner: Any, config: Config) -> None:
    """Restore where the run was; before its first epoch, the weights it is to start from."""
    source = config.training.start_from
    if folder.last is not None or source is None:
        loop.load_checkpoint(learner, folder.last)
        return
    try:
        learner.load_weights(selected_checkpoint(source).absolute())
    except ValueError as error:
        raise RunError(f"--start-from {source} does not fit this run: {error}") from None


def evaluate(learner: Any, dataset: Dataset, batch_size: int) -> dict[str, float]:
    """Error in per cent and mean loss, of the test images and of those for validation if any.

    Also the mean NFE of a forward solve.
    """
    error, loss, nfe = _evaluate(learner, dataset.test_batches(batch_size))
    found = {"test_error": error, "test_loss": loss, "test_nfe_forward": nfe}
    if dataset.validation_images is not None and dataset.validation_labels is not None:
        aside = batches(dataset.validation_images, dataset.validation_labels, batch_size)
        error, loss, _ = _evaluate(learner, aside)
        found |= {"validation_error": error, "validation_loss": loss}
    return found


def _evaluate(learner: Any, parts: Iterable[Batch]) -> tuple[float, float, float]:
    """Error in per cent, mean loss and mean NFE."""
    count, errors, loss, nfe = 0, 0.0, 0.0, []
    for images, labels in parts:
        result = learner.evaluate(images, labels)
        count += len(labels)
        errors += result["errors"]
        loss += result["loss"] * len(labels)
        nfe.append(result["nfe_forward"])
    return 100 * errors / count, loss / count, float(np.mean(nfe))


def test_logits(learner: Any, dataset: Dataset, batch_size: int) -> Float[ndarray, "test classes"]:
    """Logits of every test image."""
    return np.concatenate([learner.predict(x) for x, _ in dataset.test_batches(batch_size)])


def predictions(learner: Any, dataset: Dataset, batch_size: int) -> dict[str, Any]:
    """Of each test image: the class predicted and the true one, its place, and its loss.

    Up to ten classes are a digit an image, more a list of numbers. Places are those in the complete
    set, the training images first. The loss is the negative log-likelihood of the true class, to
    four digits after the point.
    """
    found = test_logits(learner, dataset, batch_size).astype(np.float64)
    labels = dataset.test_labels
    losses = scipy.special.logsumexp(found, axis=1) - found[np.arange(len(labels)), labels]
    few = len(dataset.classes) <= 10
    digits = lambda labels: "".join(map(str, labels)) if few else [int(label) for label in labels]
    return {
        "predicted": digits(found.argmax(1)),
        "true": digits(labels),
        "rows": [int(row) for row in dataset.test_rows],
        "loss": [round(float(loss), 4) for loss in losses],
    }


def summarise_steps(steps: list[dict[str, float]]) -> dict[str, float]:
    """Means over an epoch's training steps, under the names of metrics.jsonl."""
    names = {
        "train_loss": "loss",
        "train_accuracy": "accuracy",
        "nfe_forward": "nfe_forward",
        "nfe_backward": "nfe_backward",
        "solver_steps": "steps",
        "rejected_steps": "rejected",
    }
    names |= {key: key for key in ("kinetic", "jacobian") if key in steps[0]}  # penalties
    means = {name: float(np.mean([step[key] for step in steps])) for name, key in names.items()}
    if "reconstruction" in steps[0]:  # one step that came back nowhere near would be the mean
        means["reconstruction"] = statistics.median(step["reconstruction"] for step in steps)
    return means


def summarise_run(
    folder: RunFolder, learner: Any, dataset: Dataset, config: Config, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """Contents of summary.json: what the final table shows."""
    last, best = rows[-1], next(row for row in rows if row["epoch"] == folder.best_epoch)
    first_steps = [row["first_step_seconds"] for row in rows if row["first_step_seconds"]]
    return {
        "model": config.model.name,
        "training": configuration.describe(config),
        "data": dataset.title,
        "data_sha256": dataset.checksum,
        "epochs": last["epoch"],
        "train_loss": best["train_loss"],
        **{
            f"{part}_{what}": best[f"{part}_{what}"]
            for part in ("validation", "test")
            for what in ("error", "loss")
            if f"{part}_{what}" in best
        },
        "selected_epoch": best["epoch"],
        "selected_by": config.training.select,
        "parameters": learner.parameter_count,
        "nfe_forward": last["nfe_forward"],
        "nfe_backward": last["nfe_backward"],
        "reconstruction": max(row.get("reconstruction") or 0.0 for row in rows),
        "seconds_per_epoch": statistics.median(row["seconds_train"] for row in rows),
        "cpu_seconds_per_epoch": statistics.median(
            # A run begun by an earlier version has epochs without.
            row.get("cpu_seconds_train", math.nan)
            for row in rows
        ),
        "first_step_seconds": first_steps[-1],
        "peak_memory_mib": peak_memory_mib(),
        "run": str(folder.path),
    }


def peak_memory_mib() -> float:
    """The largest memory this process has held so far (resident set, not a GPU's)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
