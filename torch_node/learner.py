"""Train any model on any loss; jax_node/learner.py is the twin.

All that is random in a loss (noise, probes, choice of samples) comes in with the batch or from the
number of steps made, so that a resumed run goes on with the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from torch_node import checkpoint
from torch_node import device as devices
from torch_node.checkpoint import CheckpointError as CheckpointError
from torch_node.solve import Solution
from torch_node.watch import SolveError as SolveError

OPTIMIZERS = ("sgd", "adam")
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}

Batch = Mapping[str, ndarray]
Metrics = Mapping[str, Tensor]


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient is NaN or infinite; the training state is as it was before."""


class Tally:
    """What a loss learns of its training step, and where it counts its solve.

    Attributes:
        steps: how many training steps were made before.
        solution: the one that was counted.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.solution: Solution | None = None

    def count(self, solution: Solution) -> None:
        """Have the step tell the NFE of `solution` and its gradient."""
        self.solution = solution


# (model, batch, tally) -> (loss, metrics), all scalars.
Loss = Callable[[Any, Mapping[str, Tensor], Tally], tuple[Float[Tensor, ""], Metrics]]


class Learner:
    """A model, a loss and an optimiser. A failed step leaves all as they were.

    Attributes:
        parameter_count: number of trainable numbers.
        device_name: where it runs, in words.
        versions: of the libraries that decide the numbers.
        steps: optimiser steps so far.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        *,
        precision: str,
        device: str,
        optimizer: str = "adam",
        momentum: float = 0.0,
    ) -> None:
        """Train `model`, which is cast to `precision`, on `loss(model, batch, tally)`.

        `momentum` is that of sgd; adam has PyTorch's defaults. Raises ValueError for an unknown
        name.
        """
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer {optimizer!r} is unknown; choose one of sgd, adam")
        self._device, self._dtype = devices.choose(device), dtype_of(precision)
        self.model, self._loss = model.to(self._device, self._dtype), loss
        self._advice = "" if optimizer == "adam" else ", or use `optimizer='adam'`"
        self._optimizer: torch.optim.Optimizer
        if optimizer == "sgd":
            self._optimizer = torch.optim.SGD(self.model.parameters(), lr=0.0, momentum=momentum)
            slots = ["momentum_buffer"] if momentum else []
        else:
            self._optimizer = torch.optim.Adam(self.model.parameters(), lr=0.0)
            slots = ["exp_avg", "exp_avg_sq"]
        for p in self.model.parameters():  # so that a new learner and a trained one look alike
            zeros = {name: torch.zeros_like(p) for name in slots}
            step = {"step": torch.tensor(0.0)} if optimizer == "adam" else {}
            self._optimizer.state[p] = {**step, **zeros}
        self.steps = 0
        self.parameter_count = sum(p.numel() for p in self.model.parameters())
        self.device_name = devices.describe(self._device)
        self.versions = {name: version(name) for name in ("torch", "torchdiffeq", "numpy")}

    def train_step(self, batch: Batch, learning_rate: float) -> dict[str, float]:
        """One step of the optimiser; returns `loss` and the loss function's metrics.

        Of a solve that it counts also nfe_forward, nfe_backward, steps and rejected. Raises
        SolveError and NonFiniteLossError; all is then as it was before.
        """
        running = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        try:
            return self._train_step(batch, learning_rate)
        except BaseException:
            for buffer, before in running:
                buffer.copy_(before)
            raise

    def _train_step(self, batch: Batch, learning_rate: float) -> dict[str, float]:
        self.model.train()
        self._optimizer.zero_grad(set_to_none=True)
        tally = Tally(self.steps)
        with exact_convolutions():
            loss, metrics = self._loss(self.model, self._place(batch), tally)
            # Here a step waits for the device, and again for every parameter's gradient.
            self._finite("loss", loss, learning_rate)
            loss.backward()
        for name, p in self.model.named_parameters():
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            self._finite(f"gradient of {name}", p.grad, learning_rate)
            if isinstance(self._optimizer, torch.optim.Adam):
                # Of a larger one Adam would keep an infinite square, and stand still.
                largest = torch.finfo(p.dtype).max ** 0.5 / 2
                p.grad.clamp_(-largest, largest)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self.steps += 1
        found = {name: value.item() for name, value in {"loss": loss, **metrics}.items()}
        return found | (statistics(tally.solution) if tally.solution else {})

    @torch.no_grad()
    def apply(self, function: Callable[..., Any], **arrays: ndarray) -> Any:
        """`function(model, **arrays)` with the present weights; numpy in, numpy out."""
        self.model.eval()
        with exact_convolutions():
            out = function(self.model, **self._place(arrays))
        if isinstance(out, tuple):
            return tuple(part.cpu().numpy() for part in out)
        return out.cpu().numpy()

    def save(self, path: Path) -> None:
        """Write weights, running statistics, optimiser state and steps to the new folder `path`."""
        checkpoint.write(path, self.named())

    def load(self, path: Path) -> None:
        """Restore what `save` wrote; training then goes on bit for bit on one device.

        Raises CheckpointError, and changes nothing, if the file is unreadable or is of another
        model, optimiser or precision.
        """
        found, expected = checkpoint.read(path, self._device), self.named()
        if not found.get("steps", torch.tensor(1)).any():
            # Before the first step earlier versions wrote no optimiser state.
            new = {n: torch.zeros_like(t) for n, t in expected.items() if n.startswith("optimizer")}
            found = new | found
        self._load(path, found, expected)
        self.steps = int(found["steps"])

    def load_weights(self, path: Path) -> None:
        """Take only the weights of what `save` wrote, of a run with any optimiser.

        Raises CheckpointError, and changes nothing, if they are not of this model.
        """
        of_model = lambda table: {n: t for n, t in table.items() if n.startswith("model.")}
        self._load(path, of_model(checkpoint.read(path, self._device)), of_model(self.named()))

    def named(self) -> dict[str, Tensor]:
        """All that training changes, by name: views, but for `steps`."""
        return {
            **{f"model.{name}": tensor for name, tensor in self.model.state_dict().items()},
            **{
                f"optimizer.{name}.{slot}": tensor
                for name, p in self.model.named_parameters()
                for slot, tensor in self._optimizer.state[p].items()
            },
            "steps": torch.tensor(self.steps),
        }

    @torch.no_grad()
    def _load(self, path: Path, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
        checkpoint.check(path, found, expected)
        for name, tensor in expected.items():
            tensor.copy_(found[name])

    def _place(self, batch: Batch) -> dict[str, Tensor]:
        def convert(array: ndarray) -> Tensor:
            tensor = torch.from_numpy(np.array(array))
            dtype = self._dtype if tensor.is_floating_point() else tensor.dtype
            return tensor.to(self._device, dtype)

        return {name: convert(array) for name, array in batch.items()}

    def _finite(self, what: str, value: Tensor, learning_rate: float) -> None:
        if not value.isfinite().all():
            raise NonFiniteLossError(
                f"the {what} is not finite at training step {self.steps} (learning rate "
                f"{learning_rate:g}); lower `learning_rate`{self._advice}"
            )


def statistics(solution: Solution) -> dict[str, float]:
    """What a solve cost, and its gradient if it has been taken."""
    return {
        "nfe_forward": float(solution.nfe),
        "nfe_backward": float(solution.nfe_backward),
        "steps": float(solution.accepted),
        "rejected": float(solution.rejected),
        "reconstruction": solution.reconstruction,
    }


def dtype_of(precision: str) -> torch.dtype:
    """The type of weights and state; ValueError for an unknown name."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is unknown; choose float32 or float64")
    return PRECISIONS[precision]


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """On a GPU: float32 rather than TF32 (10 bits of mantissa), and the same bits every run."""
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        yield
