"""Train any model on any loss: what the applications share; jax_node/learn.py is the twin.

All that is random in a loss (noise, probes, choice of samples) comes in with the batch, so that
both frameworks see the same numbers and a resumed run goes on with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torch_node import checkpoint
from torch_node import device as devices
from torch_node.train import PRECISIONS, clip_for_adam
from torch_node.train import NonFiniteLossError as NonFiniteLossError
from torch_node.watch import SolveError as SolveError

Batch = Mapping[str, np.ndarray]
SLOTS = ("step", "exp_avg", "exp_avg_sq")


class Learner:
    """A model, a loss and Adam. A failed step leaves all as they were.

    Attributes:
        parameter_count: number of trainable numbers.
        device_name: where it runs, in words.
        versions: of the libraries that decide the numbers.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Mapping[str, Tensor]], tuple[Tensor, Mapping[str, Tensor]]],
        *,
        precision: str,
        device: str,
    ) -> None:
        """Train `model` on `loss(model, batch) -> (loss, metrics)`, both scalars."""
        self._device, self._dtype = devices.choose(device), PRECISIONS[precision]
        self.model, self._loss = model.to(self._device, self._dtype), loss
        self._optimizer = torch.optim.Adam(self.model.parameters(), lr=0.0)
        for p in self.model.parameters():  # so that a new learner and a trained one look alike
            zeros = {name: torch.zeros_like(p) for name in SLOTS[1:]}
            self._optimizer.state[p] = {"step": torch.tensor(0.0), **zeros}
        self.parameter_count = sum(p.numel() for p in self.model.parameters())
        self.device_name = devices.describe(self._device)
        self.versions = {name: version(name) for name in ("torch", "torchdiffeq", "numpy")}
        self.steps = 0

    def train_step(self, batch: Batch, learning_rate: float) -> dict[str, float]:
        """One step of Adam; returns `loss` and the loss function's metrics.

        Raises NonFiniteLossError before anything is changed.
        """
        self._optimizer.zero_grad(set_to_none=True)
        loss, metrics = self._loss(self.model, self._tensors_of(batch))
        self._finite("loss", loss.item(), learning_rate)
        loss.backward()
        for p in self.model.parameters():
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        finite = all(bool(gradient.isfinite().all()) for gradient in gradients)
        self._finite("gradient", 0.0 if finite else math.nan, learning_rate)
        clip_for_adam(self.model.parameters())
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self.steps += 1
        return {"loss": loss.item(), **{name: v.item() for name, v in metrics.items()}}

    @torch.no_grad()
    def apply(self, function: Callable[..., Any], **arrays: np.ndarray) -> Any:
        """`function(model, **arrays)` with the present weights; numpy in, numpy out."""
        out = function(self.model, **self._tensors_of(arrays))
        if isinstance(out, tuple):
            return tuple(part.cpu().numpy() for part in out)
        return out.cpu().numpy()

    def save(self, path: Path) -> None:
        """Write parameters, optimiser state and step count to the new directory `path`."""
        checkpoint.write(path, self._named())

    def load(self, path: Path) -> None:
        """Restore what `save` wrote; training then goes on bit for bit on one device.

        Raises CheckpointError, and changes nothing, if the file is not of this model.
        """
        found, expected = checkpoint.read(path, self._device), self._named()
        checkpoint.check(path, found, expected)
        with torch.no_grad():
            for name, tensor in expected.items():
                tensor.copy_(found[name])
        self.steps = int(found["steps"])

    def _named(self) -> dict[str, Tensor]:
        named = dict(self.model.named_parameters())
        slots = {
            f"optimizer.{name}.{slot}": self._optimizer.state[p][slot]
            for name, p in named.items()
            for slot in SLOTS
        }
        model = {f"model.{name}": p.detach() for name, p in named.items()}
        return {**model, **slots, "steps": torch.tensor(self.steps)}

    def _tensors_of(self, batch: Batch) -> dict[str, Tensor]:
        def convert(array: np.ndarray) -> Tensor:
            tensor = torch.from_numpy(np.array(array))
            dtype = self._dtype if tensor.is_floating_point() else tensor.dtype
            return tensor.to(self._device, dtype)

        return {name: convert(array) for name, array in batch.items()}

    def _finite(self, what: str, value: float, learning_rate: float) -> None:
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"the {what} is not finite at training step {self.steps} (learning rate "
                f"{learning_rate:g}); lower `learning_rate`"
            )
