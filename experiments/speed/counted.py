"""A field as torchdiffeq is given it directly, past `torch_node.solve`, with its own counts."""

from __future__ import annotations

import torch
from torch import Tensor


class CountedField(torch.nn.Module):
    """Counts evaluations and steps; a subclass has `derivative(y)`."""

    def __init__(self) -> None:
        super().__init__()
        self.start_counting()

    def start_counting(self) -> None:
        """Every count is 0 again."""
        self.nfe = self.accepted = self.rejected = 0

    def derivative(self, y: Tensor) -> Tensor:
        """`dy/dt`."""
        raise NotImplementedError

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """`dy/dt`, counted."""
        self.nfe += 1
        return self.derivative(y)

    def callback_accept_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        """What torchdiffeq calls after a step."""
        self.accepted += 1

    def callback_reject_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        """What torchdiffeq calls when it tries a step again."""
        self.rejected += 1
