"""One interface to train, evaluate, save and load a model; jax_node/train.py is its twin."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from torch_node import checkpoint, device
from torch_node.checkpoint import CheckpointError as CheckpointError
from torch_node.models import OdeNet, build
from torch_node.regularise import regulariser
from torch_node.solve import Solution
from torch_node.watch import SolveError as SolveError
from torch_node.watch import counting_nonconvergence

OPTIMIZERS = ("sgd", "adam")
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}

Pixels = UInt8[np.ndarray, "batch 28 28 1"]
Labels = Integer[np.ndarray, " batch"]


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient is NaN or infinite; the training state is as it was before."""


class Trajectory(NamedTuple):
    """States of an ODE-Net on the way, the logits its head gives them, and the NFE of the solve."""

    states: Float[np.ndarray, "times batch height width channels"]
    logits: Float[np.ndarray, "times batch 10"]
    nfe: int


class Learner:
    """A model and its optimiser. A failed step leaves both as they were.

    Attributes:
        parameter_count: number of trainable numbers.
        device_name: where it runs, in words.
        versions: of the libraries that decide the numbers.
        steps: optimiser steps so far.
        nonconverged: Adams steps, forward and backward, whose corrector did not converge so far.
    """

    def __init__(
        self,
        *,
        model: str,
        final_relu: bool,
        downsampling: str,
        solver: str | None,
        adjoint: str | None,
        rtol: float,
        atol: float,
        step_size: float | None,
        max_steps: int,
        optimizer: str,
        momentum: float,
        seed: int,
        precision: str,
        device: str,
        t1: float = 1.0,
        norm: str = "group",
        kinetic_weight: float = 0.0,
        jacobian_weight: float = 0.0,
    ) -> None:
        """Build `model` (see models.build) with weights drawn from `seed`.

        `momentum` is that of sgd; adam has PyTorch's defaults. Weights are drawn in float32, so
        both precisions start from the same numbers. The weights of regularise.py's penalties
        count in training only. Raises ValueError for an unknown name, or a penalty without an ODE.
        """
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer {optimizer!r} is unknown; choose one of sgd, adam")
        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r} is unknown; choose float32 or float64")
        self._device = _device(device)
        self._dtype = PRECISIONS[precision]
        self._regulariser = regulariser(kinetic_weight, jacobian_weight, seed)
        if self._regulariser and solver is None:
            raise ValueError(f"{model} solves no ODE whose dynamics could be penalised")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = build(
                model,
                final_relu=final_relu,
                downsampling=downsampling,
                norm=norm,
                solver=solver,
                adjoint=adjoint,
                rtol=rtol,
                atol=atol,
                step_size=step_size,
                max_steps=max_steps,
                t1=t1,
            )
        self.model = net.to(self._device, self._dtype)
        self._optimizer: torch.optim.Optimizer
        if optimizer == "sgd":
            self._optimizer = torch.optim.SGD(self.model.parameters(), lr=0.0, momentum=momentum)
        else:
            self._optimizer = torch.optim.Adam(self.model.parameters(), lr=0.0)
        self._solver = solver
        self.steps = 0
        self.nonconverged = 0
        self.parameter_count = sum(p.numel() for p in self.model.parameters())
        self.device_name = _describe(self._device)
        self.versions = {name: version(name) for name in ("torch", "torchdiffeq", "numpy")}

    def train_step(self, images: Pixels, labels: Labels, learning_rate: float) -> dict[str, float]:
        """One optimiser step on the mean cross-entropy of a batch, plus penalties if weighted.

        Returns loss (the cross-entropy), accuracy (0 to 1), nfe_forward, nfe_backward, and steps
        and rejected of the forward solve; the last four are 0 for a ResNet. With penalties also
        kinetic, and jacobian if it has a weight, both unweighted. Raises SolveError and
        NonFiniteLossError with everything as it was before.
        """
        running = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        try:
            return self._train_step(images, labels, learning_rate)
        except BaseException:
            for buffer, before in running:
                buffer.copy_(before)
            raise

    def _train_step(self, images: Pixels, labels: Labels, learning_rate: float) -> dict[str, float]:
        self.model.train()
        options = self._regulariser.options(self.steps) if self._regulariser else {}
        self._optimizer.zero_grad(set_to_none=True)
        x, y = self._tensors(images, labels)
        with _exact_convolutions():
            logits, solution, penalties = self.model(x, **options)
            loss = F.cross_entropy(logits, y)
            total = loss + self._regulariser.cost(penalties) if self._regulariser else loss
            if not math.isfinite(total.item()):
                raise NonFiniteLossError(_nonfinite("loss", self.steps, learning_rate))
            with counting_nonconvergence(self._solver) as nonconverged:
                total.backward()
        for name, p in self.model.named_parameters():
            if p.grad is not None and not p.grad.isfinite().all():
                where = f"gradient of {name}"
                raise NonFiniteLossError(_nonfinite(where, self.steps, learning_rate))
        if isinstance(self._optimizer, torch.optim.Adam):
            clip_for_adam(self.model.parameters())
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self.steps += 1
        self.nonconverged += nonconverged[0] + (solution.nonconverged if solution else 0)
        correct = (logits.argmax(dim=1) == y).sum().item()
        return {
            "loss": loss.item(),
            "accuracy": correct / len(y),
            **_statistics(solution),
            **{name: value.item() for name, value in penalties.items()},
        }

    @torch.no_grad()
    def evaluate(self, images: Pixels, labels: Labels) -> dict[str, float]:
        """Mean loss, number of errors and the solve's statistics for one batch of any size."""
        x, y = self._tensors(images, labels)
        self.model.eval()
        with _exact_convolutions():
            logits, solution, _ = self.model(x)
        return {
            "loss": F.cross_entropy(logits, y).item(),
            "errors": float((logits.argmax(dim=1) != y).sum().item()),
            **_statistics(solution),
        }

    @torch.no_grad()
    def predict(self, images: Pixels) -> Float[np.ndarray, "batch 10"]:
        """Logits."""
        self.model.eval()
        with _exact_convolutions():
            logits = self.model(self._images(images)).logits
        return logits.cpu().numpy()

    @torch.no_grad()
    def trajectory(self, images: Pixels, times: Sequence[float]) -> Trajectory:
        """The ODE's state at `times` (from 0, increasing); no ResNet has one.

        A fixed-step solver ends a step at each of `times`.
        """
        assert isinstance(self.model, OdeNet)
        self.model.eval()
        ts = torch.tensor(times, dtype=self._dtype, device=self._device)
        with _exact_convolutions():
            solution, logits = self.model.trajectory(self._images(images), ts)
        states = solution.ys.permute(0, 1, 3, 4, 2).cpu().numpy()
        return Trajectory(states, logits.cpu().numpy(), solution.nfe_forward)

    def save(self, path: Path) -> None:
        """Write weights, running statistics, optimiser state and steps to the new folder `path`."""
        steps = torch.tensor(self.steps)
        checkpoint.write(path, {**self._model_tensors(), **self._slots(), "steps": steps})

    def load(self, path: Path) -> None:
        """Restore what `save` wrote; training then goes on bit for bit on one device.

        Raises CheckpointError, and changes nothing, if the file is unreadable or is of another
        model, optimiser or precision.
        """
        found = checkpoint.read(path, self._device)
        expected = {**self._model_tensors(), "steps": torch.tensor(0)}
        if found.get("steps", torch.tensor(0)).any():
            expected |= self._empty_slots()
        checkpoint.check(path, found, expected)
        names = [name for name, _ in self.model.named_parameters()]
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in found.items():
            if key.startswith("optimizer."):
                name, slot = key.removeprefix("optimizer.").rsplit(".", 1)
                # Adam's step counters live on the CPU.
                place = "cpu" if slot == "step" else self._device
                state.setdefault(names.index(name), {})[slot] = tensor.to(place)
        weights = {k.removeprefix("model."): v for k, v in found.items() if k.startswith("model.")}
        self.model.load_state_dict(weights)
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.steps = int(found["steps"])

    def load_weights(self, path: Path) -> None:
        """Take only the weights of what `save` wrote, of a run with any optimiser.

        Raises CheckpointError, and changes nothing, if they are not of this model.
        """
        found = checkpoint.read(path, self._device)
        found = {k: v for k, v in found.items() if k.startswith("model.")}
        checkpoint.check(path, found, self._model_tensors())
        self.model.load_state_dict({k.removeprefix("model."): v for k, v in found.items()})

    def _tensors(self, images: Pixels, labels: Labels) -> tuple[Tensor, Tensor]:
        y = torch.as_tensor(labels, dtype=torch.int64, device=self._device)
        return self._images(images), y

    def _images(self, images: Pixels) -> Float[Tensor, "batch 1 28 28"]:
        # Channels are one, so NHWC and NCHW differ in shape only.
        x = torch.from_numpy(np.ascontiguousarray(images)).to(self._device, self._dtype)
        return x.reshape(-1, 1, 28, 28) / 255

    def _model_tensors(self) -> dict[str, Tensor]:
        return {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}

    def _slots(self) -> dict[str, Tensor]:
        return {
            f"optimizer.{name}.{slot}": tensor
            for name, p in self.model.named_parameters()
            for slot, tensor in self._optimizer.state.get(p, {}).items()
            if isinstance(tensor, Tensor)
        }

    def _empty_slots(self) -> dict[str, Tensor]:
        """The tensors that this optimiser keeps once it has made a step."""
        names: tuple[str, ...]
        if isinstance(self._optimizer, torch.optim.Adam):
            names = ("step", "exp_avg", "exp_avg_sq")
        else:
            names = ("momentum_buffer",) if self._optimizer.defaults["momentum"] else ()
        return {
            f"optimizer.{name}.{slot}": torch.zeros(()) if slot == "step" else p
            for name, p in self.model.named_parameters()
            for slot in names
        }


def clip_for_adam(parameters: Iterable[nn.Parameter]) -> None:
    """Cut gradients of which Adam would keep an infinite square, and so stand still."""
    for p in parameters:
        if p.grad is not None:
            largest = torch.finfo(p.dtype).max ** 0.5 / 2
            p.grad.clamp_(-largest, largest)


@contextmanager
def _exact_convolutions() -> Iterator[None]:
    """On a GPU: float32 rather than TF32 (10 bits of mantissa), and the same bits every run."""
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        yield


def _statistics(solution: Solution | None) -> dict[str, float]:
    if solution is None:
        return {"nfe_forward": 0.0, "nfe_backward": 0.0, "steps": 0.0, "rejected": 0.0}
    return {
        "nfe_forward": float(solution.nfe_forward),
        "nfe_backward": float(solution.nfe_backward),
        "steps": float(solution.accepted),
        "rejected": float(solution.rejected),
    }


def _nonfinite(what: str, steps: int, learning_rate: float) -> str:
    return (
        f"the {what} is not finite at training step {steps} (learning rate {learning_rate:g}); "
        "lower the learning rate, or use `optimizer='adam'`"
    )


# The constructor's argument `device` hides the module of that name.
_device, _describe = device.choose, device.describe
