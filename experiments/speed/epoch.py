"""An epoch end to end: how much of it is the device's work, and how much the data and the host's.

It does what `harness/loop.py` does: batches shuffled, cut out and cropped, a training step
with its checks and statistics, a line of progress; then the test images and a checkpoint.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from experiments.classify import summary, training
from experiments.harness import progress
from experiments.images import sources
from experiments.speed import contests


def measure(batch_size: int, limit: int | None = None) -> dict[str, Any]:
    """Seconds of one epoch of ODE-Net on the embedded images, by who spends them."""
    learner = contests.make_learner("jax", ["--model", "odenet"])
    dataset = sources.load("mnist", "embedded", limit_train=limit, limit_test=limit)
    batches = lambda epoch: dataset.epoch_batches(0, epoch, batch_size, augment=True)
    step = lambda images, labels, rate: learner.train_step(
        {"images": images, "labels": labels}, rate
    )
    step(*next(batches(1)), 0.0)  # compile
    training.evaluate(learner, dataset, batch_size)
    device, waiting = Stopwatch(), Stopwatch()
    learner._train_step = device.timing(learner._train_step)
    steps = len(dataset.train_labels) // batch_size
    start = time.perf_counter()
    quiet = Console(quiet=True)
    with progress.TrainingProgress(
        1, 0, steps, quiet, status=summary.step_status, line=summary.epoch_line
    ) as bar:
        for images, labels in waiting.iterating(batches(2)):
            bar.step(1, step(images, labels, 1e-3))
    epoch = time.perf_counter() - start
    start = time.perf_counter()
    training.evaluate(learner, dataset, batch_size)
    evaluation = time.perf_counter() - start
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        learner.save(Path(folder) / "state")
    return {
        "data": dataset.title,
        "steps": steps,
        "epoch_seconds": epoch,
        "device_seconds": device.seconds,
        "data_seconds": waiting.seconds,
        "host_seconds": epoch - device.seconds - waiting.seconds,
        "share_of_data_and_host": 1 - device.seconds / epoch,
        "test_seconds": evaluation,
        "checkpoint_seconds": time.perf_counter() - start,
    }


class Stopwatch:
    """Adds up the seconds spent in a function, or in waiting for an iterator."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, timed until what it returns is computed."""

        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = jax.block_until_ready(function(*arguments))
            self.seconds += time.perf_counter() - start
            return result

        return timed

    def iterating(self, source: Iterator[Any]) -> Iterator[Any]:
        """The items of `source`, each timed."""
        advance = self.timing(next)
        while (item := advance(source, None)) is not None:
            yield item


def markdown(record: Mapping[str, Any]) -> str:
    """What was measured, in a few sentences."""
    found = record["epoch"]
    return (
        f"An epoch of ODE-Net ({found['data']}, augmented, {found['steps']} steps of batch "
        f"{record['batch_size']}) took {found['epoch_seconds']:.2f} s: the compiled step "
        f"{found['device_seconds']:.2f} s, the data pipeline {found['data_seconds']:.3f} s, the "
        f"host {found['host_seconds']:.3f} s; data and host are "
        f"{100 * found['share_of_data_and_host']:.1f}% of it. Evaluating the test images then took "
        f"{found['test_seconds']:.2f} s and a checkpoint {found['checkpoint_seconds']:.2f} s.\n"
    )
