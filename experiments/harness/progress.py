"""What a person sees while a run goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from experiments.harness.command import show


class TrainingProgress:
    """A bar with the last step's metrics and the time left on a terminal; else a line per epoch.

    Used as a context manager around the training loop.
    """

    def __init__(
        self,
        epochs: int,
        done: int,
        steps_per_epoch: int,
        console: Console,
        *,
        status: Callable[[dict[str, float]], str],
        line: Callable[[dict[str, Any], int], str],
    ):
        """`status` words a step, `line` an epoch."""
        self.console = console
        self._status, self._line = status, line
        self._epochs = epochs
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(
            f"epoch {done + 1}/{epochs}",
            total=epochs * steps_per_epoch,
            completed=done * steps_per_epoch,
            status="first step (compiling)",
        )

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def step(self, epoch: int, metrics: dict[str, float]) -> None:
        """Show one training step."""
        self._bar.update(
            self._task,
            advance=1,
            description=f"epoch {epoch}/{self._epochs}",
            status=self._status(metrics),
        )

    def epoch(self, row: dict[str, Any]) -> None:
        """Print one epoch's line."""
        show(self.console, self._line(row, self._epochs))
