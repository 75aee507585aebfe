"""The training loop of every application: steps, schedule, evaluation, checkpoints, failure."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from experiments.harness import frameworks, progress
from experiments.harness.errors import RunError, RunFailedError
from experiments.harness.frameworks import Learner
from experiments.harness.run_folder import RunFolder
from experiments.harness.schedule import learning_rate

Steps = list[dict[str, float]]  # what each training step of an epoch told
Row = dict[str, Any]  # an epoch of metrics.jsonl
NEEDED = {"train_loss", "seconds_train", "seconds_eval"}  # of earlier epochs, to go on


def means(steps: Steps) -> dict[str, float]:
    """The means over an epoch, as `train_loss` and so on."""
    return {f"train_{name}": float(np.mean([step[name] for step in steps])) for name in steps[0]}


def train(
    folder: RunFolder,
    rows: list[Row],
    learner: Learner,
    config: Any,
    steps: int,
    batches: Callable[[int], Iterable[Mapping[str, Any]]],
    evaluate: Callable[[int], dict[str, Any]],
    console: Console,
    *,
    status: Callable[[dict[str, float]], str],
    line: Callable[[Row, int], str],
    summarise: Callable[[Steps], dict[str, float]] = means,
    score: str | None = "score",
) -> None:
    """Train a restored `learner` to the last epoch of `config.training`, adding to `rows`.

    Args:
        folder: takes each epoch's row, and its checkpoint.
        rows: of the epochs that are over.
        learner: in the state after them.
        config: its `training` has epochs, lr, lr_schedule and warmup; its `model` a framework.
        steps: training steps an epoch.
        batches: those of an epoch, which must depend on nothing but its number.
        evaluate: metrics after an epoch.
        console: where progress is shown.
        status: a step in words.
        line: an epoch in words.
        summarise: a row's metrics of the steps.
        score: the metric whose least value selects an epoch; None is the last epoch.

    Raises:
        RunFailedError: a step failed; the last good state is kept.
        RunError: `rows` lack what is gone on with.
    """
    training, compiling = config.training, True
    if not all(row.keys() >= NEEDED for row in rows):
        raise RunError(
            f"{folder.path / 'metrics.jsonl'} is damaged: a line of it lacks one of "
            f"{', '.join(sorted(NEEDED))}."
        )
    failures = frameworks.failures(config.model.framework)
    with progress.TrainingProgress(
        training.epochs, folder.epoch, steps, console, status=status, line=line
    ) as bar:
        for epoch in range(folder.epoch + 1, training.epochs + 1):
            done: Steps = []
            seconds: list[float] = []
            cpu_seconds: list[float] = []
            losses, rate = [row["train_loss"] for row in rows], 0.0
            try:
                for batch in batches(epoch):
                    rate = learning_rate(
                        training.lr_schedule,
                        training.lr,
                        step=(epoch - 1) * steps + len(done),
                        steps_per_epoch=steps,
                        epochs=training.epochs,
                        losses=losses,
                        warmup=training.warmup,
                    )
                    start, cpu_start = time.perf_counter(), time.process_time()
                    done.append(learner.train_step(batch, rate))
                    seconds.append(time.perf_counter() - start)
                    cpu_seconds.append(time.process_time() - cpu_start)
                    bar.step(epoch, done[-1])
                start = time.perf_counter()
                tested = evaluate(epoch)
            except failures as error:
                raise RunFailedError(_stop(folder, learner, epoch, len(done), error)) from None
            row = {
                "epoch": epoch,
                **summarise(done),
                **tested,
                "learning_rate": rate,
                "seconds_train": steady_seconds(seconds, compiling),
                # Of all threads: on a busy machine a better measure of the work than seconds.
                "cpu_seconds_train": steady_seconds(cpu_seconds, compiling),
                "seconds_eval": time.perf_counter() - start,
                "first_step_seconds": seconds[0] if compiling else None,
            }
            compiling = False
            rows.append(row)
            folder.commit_epoch(row, learner.save, score=score)
            bar.epoch(row)


def load_checkpoint(learner: Learner, path: Path | None) -> None:
    """Restore a checkpoint; `RunError` if it is damaged or another model's."""
    if path is None:
        return
    try:
        learner.load(path.absolute())
    except ValueError as error:
        raise RunError(f"{path} does not fit this run: {error}") from None


def steady_seconds(seconds: list[float], compiling: bool) -> float:
    """Time of an epoch's steps; a first step that compiles counts as the median of the others."""
    if compiling and len(seconds) > 1:
        return statistics.median(seconds[1:]) + sum(seconds[1:])
    return sum(seconds)


def _stop(folder: RunFolder, learner: Learner, epoch: int, step: int, error: Exception) -> str:
    """Save the last good state of a run that failed; returns the sentence to end it with."""
    path = folder.save_stopped(epoch, step, learner.save)
    message = (
        f"epoch {epoch}, step {step + 1} failed: {str(error).rstrip('.')}; "
        f"{folder.epoch} finished epoch(s) are kept, and the last good state is in {path}."
    )
    folder.write_json("summary.json", {"failed": message, "epochs": folder.epoch})
    return message
