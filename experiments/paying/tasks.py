"""Every task, in the order of the page."""

from __future__ import annotations

from experiments.paying import density, irregular, shooting
from experiments.paying.protocol import Task

TASKS: tuple[Task, ...] = (*density.TASKS, *irregular.TASKS, *shooting.TASKS)
