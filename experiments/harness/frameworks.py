"""The two frameworks by name: the only place where an experiment reaches for one."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol


class Learner(Protocol):
    """A model in training, in either framework.

    `train_step` takes a batch and a learning rate, and returns `loss` and other numbers.
    """

    parameter_count: int
    device_name: str
    versions: dict[str, str]

    def train_step(self, *batch_and_rate: Any) -> dict[str, float]:
        """One step of the optimiser."""

    def save(self, path: Path) -> None:
        """Write weights, optimiser state and step count into a new folder."""

    def load(self, path: Path) -> None:
        """Inverse of `save`; ValueError if it is damaged or another model's."""


def module(framework: str, name: str) -> Any:
    """`jax_node.<name>` or its twin `torch_node.<name>`."""
    return importlib.import_module(f"{framework}_node.{name}")
