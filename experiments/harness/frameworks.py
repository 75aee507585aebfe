"""The two frameworks by name: the only place where an experiment reaches for one."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Learner(Protocol):
    """A model in training, in either framework: see `jax_node/learner.py`."""

    parameter_count: int
    device_name: str
    versions: dict[str, str]

    def train_step(self, batch: Mapping[str, Any], learning_rate: float) -> dict[str, float]:
        """One step of the optimiser; `loss` and other numbers."""

    def save(self, path: Path) -> None:
        """Write weights, optimiser state and step count into a new folder."""

    def load(self, path: Path) -> None:
        """Inverse of `save`; ValueError if it is damaged or another model's."""


def failures(framework: str) -> tuple[type[Exception], type[Exception]]:
    """What a training step raises: the solve failed, or the loss is not finite."""
    learner = module(framework, "learner")
    return learner.SolveError, learner.NonFiniteLossError


def module(framework: str, name: str) -> Any:
    """`jax_node.<name>` or its twin `torch_node.<name>`."""
    return importlib.import_module(f"{framework}_node.{name}")
