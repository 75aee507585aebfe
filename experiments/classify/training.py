"""The training loop, whatever the framework: epochs, evaluation, timing, failure."""

from __future__ import annotations

import math
import resource
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import scipy.special
from rich.console import Console

from experiments.classify import config as configuration
from experiments.classify import curves, summary, trust
from experiments.classify.config import Config
from experiments.harness import frameworks, progress
from experiments.harness.command import say
from experiments.harness.errors import RunError, RunFailedError
from experiments.harness.loop import load_checkpoint, steady_seconds, stop
from experiments.harness.run_folder import RunFolder, selected_checkpoint
from experiments.harness.schedule import learning_rate
from experiments.images.dataset import Batch, Dataset, batches

CHECKED = 64  # training images on which gradients are compared
# The metric whose least value selects an epoch; None is the last epoch.
SCORE = {"last": None, "train_loss": "train_loss", "validation": "validation_loss"}


def train(
    folder: RunFolder,
    learner: Any,
    dataset: Dataset,
    config: Config,
    console: Console,
) -> None:
    """Train from the last saved epoch to the last one asked for; write and print the results."""
    failures = frameworks.failures(config.model.framework)
    rows = folder.rewind()
    begin(folder, learner, config)
    epochs, batch_size = config.training.epochs, config.training.batch_size
    steps = len(dataset.train_labels) // batch_size
    title = f"{configuration.describe(config)}\n{dataset.title}"
    compiling = True
    every = config.training.check_gradient
    # Always the same images, whatever the seed.
    checked = next(dataset.epoch_batches(0, 0, min(CHECKED, len(dataset.train_labels)), False))
    assert config.training.select is not None
    score = SCORE[config.training.select]
    with progress.TrainingProgress(
        epochs, folder.epoch, steps, console, status=summary.step_status, line=summary.epoch_line
    ) as bar:
        for epoch in range(folder.epoch + 1, epochs + 1):
            done: list[dict[str, float]] = []
            checks: list[dict[str, float]] = []
            seconds: list[float] = []
            cpu_seconds: list[float] = []
            rate = 0.0
            try:
                for images, labels in dataset.epoch_batches(
                    config.training.seed, epoch, batch_size, config.training.augment
                ):
                    step = (epoch - 1) * steps + len(done)
                    rate = scheduled_rate(config, steps, step, rows)
                    if every and step % every == 0:
                        checks.append({"step": step, **learner.check_gradient(*checked)})
                    start, cpu_start = time.perf_counter(), time.process_time()
                    batch = {"images": images, "labels": labels}
                    done.append(learner.train_step(batch, rate))
                    seconds.append(time.perf_counter() - start)
                    cpu_seconds.append(time.process_time() - cpu_start)
                    bar.step(epoch, done[-1])
                tested = evaluate(learner, dataset, batch_size)
            except failures as error:
                message = stop(folder, learner, epoch, len(done), error)
                if rows:
                    curves.plot_curves(rows, title, folder.path / "curves.png")
                raise RunFailedError(message) from None
            row = {
                "epoch": epoch,
                **summarise_steps(done),
                **tested,
                "learning_rate": rate,
                "seconds_train": steady_seconds(seconds, compiling),
                # Of all threads: on a busy machine a better measure of the work than seconds.
                "cpu_seconds_train": steady_seconds(cpu_seconds, compiling),
                "first_step_seconds": seconds[0] if compiling else None,
                **({"gradient_checks": checks} if checks else {}),
            }
            compiling = False
            rows.append(row)
            folder.commit_epoch(row, learner.save, score=score)
            bar.epoch(row)
            if sentence := trust.warning(rows):
                say(bar.console, "warning", sentence)
    if folder.best != folder.last:
        load_checkpoint(learner, folder.best)
    folder.write_json("predictions.json", predictions(learner, dataset, batch_size))
    results = summarise_run(folder, learner, dataset, config, rows)
    folder.write_json("summary.json", results)
    curves.plot_curves(rows, title, folder.path / "curves.png")
    summary.print_summary(console, results)


def begin(folder: RunFolder, learner: Any, config: Config) -> None:
    """Restore where the run was; before its first epoch, the weights it is to start from."""
    source = config.training.start_from
    if folder.last is not None or source is None:
        load_checkpoint(learner, folder.last)
        return
    try:
        learner.load_weights(selected_checkpoint(source).absolute())
    except ValueError as error:
        raise RunError(f"--start-from {source} does not fit this run: {error}") from None


def scheduled_rate(
    config: Config, steps_per_epoch: int, step: int, rows: Sequence[dict[str, Any]]
) -> float:
    """Learning rate of a step, counted from 0 over the run, after the epochs of `rows`."""
    training = config.training
    assert training.lr is not None
    return learning_rate(
        training.lr_schedule,
        training.lr,
        step=step,
        steps_per_epoch=steps_per_epoch,
        epochs=training.epochs,
        losses=[row["train_loss"] for row in rows],
        warmup=training.warmup,
    )


def evaluate(learner: Any, dataset: Dataset, batch_size: int) -> dict[str, float]:
    """Error in per cent and mean loss, of the test images and of those for validation if any.

    Also the mean NFE of a forward solve, and seconds.
    """
    start = time.perf_counter()
    error, loss, nfe = _evaluate(learner, dataset.test_batches(batch_size))
    found = {"test_error": error, "test_loss": loss, "test_nfe_forward": nfe}
    if dataset.validation_images is not None and dataset.validation_labels is not None:
        aside = batches(dataset.validation_images, dataset.validation_labels, batch_size)
        error, loss, _ = _evaluate(learner, aside)
        found |= {"validation_error": error, "validation_loss": loss}
    return found | {"seconds_eval": time.perf_counter() - start}


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


def predictions(learner: Any, dataset: Dataset, batch_size: int) -> dict[str, Any]:
    """Of each test image: the class predicted and the true one, its place, and its loss.

    Classes are a digit an image. Places are those in the complete set, the training images first.
    The loss is the negative log-likelihood of the true class, to four digits after the point.
    """
    logits = [learner.predict(images) for images, _ in dataset.test_batches(batch_size)]
    found = np.concatenate(logits).astype(np.float64)
    labels = dataset.test_labels
    losses = scipy.special.logsumexp(found, axis=1) - found[np.arange(len(labels)), labels]
    digits = lambda classes: "".join(str(int(c)) for c in classes)
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
    folder: RunFolder,
    learner: Any,
    dataset: Dataset,
    config: Config,
    rows: list[dict[str, Any]],
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
