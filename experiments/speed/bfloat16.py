"""Convolutions in bfloat16 against float32: what they do to test error and NFE in a short training.

ODE-Net as `mnist.py` trains it by default, on the embedded images, for fewer epochs.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from experiments.classify import training
from experiments.harness.markdown import table
from experiments.harness.schedule import learning_rate
from experiments.images import sources
from experiments.images.dataset import Dataset
from experiments.speed import contests

PRECISIONS, SEEDS, EPOCHS, BATCH, RATE = ("float32", "bfloat16"), (0, 1, 2), 3, 32, 0.1


def measure() -> list[dict[str, Any]]:
    """Rows of precision, seed, test error, and loss and NFE of the last epoch."""
    dataset = sources.load("mnist", "embedded")
    return [train(dataset, precision, seed) for precision in PRECISIONS for seed in SEEDS]


def train(dataset: Dataset, precision: str, seed: int) -> dict[str, Any]:
    """One training."""
    learner = contests.make_learner("jax", ["--model", "odenet"], precision=precision, seed=seed)
    steps = len(dataset.train_labels) // BATCH
    made: list[dict[str, float]] = []
    for epoch in range(1, EPOCHS + 1):
        for images, labels in dataset.epoch_batches(seed, epoch, BATCH, augment=False):
            rate = learning_rate(
                "cosine", RATE, step=len(made), steps_per_epoch=steps, epochs=EPOCHS
            )
            made.append(learner.train_step({"images": images, "labels": labels}, rate))
    last = made[-steps:]
    mean = lambda key: statistics.mean(step[key] for step in last)
    tested = training.evaluate(learner, dataset, BATCH)
    return {
        "precision": precision,
        "seed": seed,
        "train_loss": mean("loss"),
        "nfe_forward": mean("nfe_forward"),
        "nfe_backward": mean("nfe_backward"),
        "test_error": tested["test_error"],
        "test_nfe_forward": tested["test_nfe_forward"],
    }


def markdown(record: Mapping[str, Any]) -> str:
    """The table for a page, a row a precision."""
    headers = ["convolutions", "test error % by seed", "mean", "train loss", "NFE fwd/bwd"]
    body = []
    for precision in PRECISIONS:
        rows = [row for row in record["precision"] if row["precision"] == precision]
        mean = lambda key, rows=rows: statistics.mean(row[key] for row in rows)
        errors = ", ".join(f"{row['test_error']:.1f}" for row in rows)
        nfe = f"{mean('nfe_forward'):.1f}/{mean('nfe_backward'):.1f}"
        body.append(
            [precision, errors, f"{mean('test_error'):.2f}", f"{mean('train_loss'):.4f}", nfe]
        )
    return table(headers, body) + (
        f"\nODE-Net, {EPOCHS} epochs on the 4,000 embedded images, 1,000 to test, batch {BATCH}, "
        f"seeds {', '.join(map(str, SEEDS))}; loss and NFE are means over the last epoch.\n"
    )
