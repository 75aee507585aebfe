"""What both training loops share: checkpoints restored, failures recorded, steps timed."""

from __future__ import annotations

import statistics
from pathlib import Path

from experiments.harness.errors import RunError
from experiments.harness.frameworks import Learner
from experiments.harness.run_folder import RunFolder


def load_checkpoint(learner: Learner, path: Path | None) -> None:
    """Restore a checkpoint; `RunError` if it is damaged or another model's."""
    if path is None:
        return
    try:
        learner.load(path.absolute())
    except ValueError as error:
        raise RunError(f"{path} does not fit this run: {error}") from None


def stop(folder: RunFolder, learner: Learner, epoch: int, step: int, error: Exception) -> str:
    """Save the last good state of a run that failed; returns the sentence to end it with."""
    path = folder.save_stopped(epoch, step, learner.save)
    message = (
        f"epoch {epoch}, step {step + 1} failed: {str(error).rstrip('.')}; "
        f"{folder.epoch} finished epoch(s) are kept, and the last good state is in {path}."
    )
    folder.write_json("summary.json", {"failed": message, "epochs": folder.epoch})
    return message


def steady_seconds(seconds: list[float], compiling: bool) -> float:
    """Time of an epoch's steps; a first step that compiles counts as the median of the others."""
    if compiling and len(seconds) > 1:
        return statistics.median(seconds[1:]) + sum(seconds[1:])
    return sum(seconds)
