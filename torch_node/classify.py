"""Image classification, an application of `learner.py`; jax_node/classify.py is the twin."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

from torch_node.learner import Batch, Learner, Tally, exact_convolutions, statistics
from torch_node.models import ODENet, Output, ResNet, as_images, build
from torch_node.regularise import Regulariser, regulariser

Pixels = UInt8[ndarray, "batch height width channels"]
Labels = Integer[ndarray, " batch"]
Logits = Float[ndarray, "batch classes"]


class Trajectory(NamedTuple):
    """States of an ODE-Net on the way, the logits its head gives them, and the NFE of the solve."""

    states: Float[ndarray, "times batch height width channels"]
    logits: Float[ndarray, "times batch classes"]
    nfe: int


def loss(
    model: ResNet | ODENet,
    batch: Mapping[str, Tensor],
    tally: Tally,
    *,
    penalties: Regulariser | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Mean cross-entropy of `images` (bytes) and `labels`, plus penalties if weighted.

    The metrics are the cross-entropy as `loss`, how many are `correct`, and the penalties.
    """
    options = penalties.options(tally.steps) if penalties else {}
    labels, images = (
        batch["labels"].long(),
        as_images(batch["images"], model.head.linear.weight.dtype),
    )
    output = model(images, **options)
    if output.solution is not None:
        tally.count(output.solution)
    entropy = F.cross_entropy(output.logits, labels)
    correct = (output.logits.argmax(dim=1) == labels).sum()
    total = entropy + penalties.cost(output.penalties) if penalties else entropy
    return total, {"loss": entropy, "correct": correct, **output.penalties}


class ImageLearner(Learner):
    """A `Learner` of labelled images: bytes from 0 to 255, and classes from 0 on."""

    def __init__(
        self, model: ResNet | ODENet, *arguments: Any, adjoint: str | None, **options: Any
    ) -> None:
        """Train `model`, whose ODE is differentiated by `adjoint`; the rest as in `Learner`."""
        super().__init__(model, *arguments, **options)
        self._adjoint = adjoint

    def train_step(self, batch: Batch, learning_rate: float) -> dict[str, float]:
        """One optimiser step on `images` and `labels`; see `loss`.

        Returns loss (the cross-entropy), accuracy (0 to 1), nfe_forward, nfe_backward, and steps
        and rejected of the forward solve; the last four are 0 for a ResNet. By an adjoint also
        reconstruction (see `solve.Solution`), with penalties kinetic, and jacobian if it has a
        weight, both unweighted. Raises SolveError and NonFiniteLossError; all is then as it was
        before. Here and below ValueError for images or labels of another kind.
        """
        _check(batch["images"], batch["labels"])
        found = NO_SOLVE | super().train_step(batch, learning_rate)
        if self._adjoint not in ("adjoint", "handwritten"):
            found.pop("reconstruction", None)
        return found | {"accuracy": found.pop("correct") / len(batch["labels"])}

    def evaluate(self, images: Pixels, labels: Labels) -> dict[str, float]:
        """Mean loss, number of errors and the solve's statistics for one batch of any size."""
        _check(images, labels)
        output = self._evaluate(images)
        truth = torch.as_tensor(labels, dtype=torch.int64, device=self._device)
        found = {
            "loss": F.cross_entropy(output.logits, truth).item(),
            "errors": float((output.logits.argmax(dim=1) != truth).sum().item()),
            **NO_SOLVE,
            **(statistics(output.solution) if output.solution else {}),
        }
        found.pop("reconstruction", None)
        return found

    def predict(self, images: Pixels) -> Logits:
        """Logits."""
        return self._evaluate(images).logits.cpu().numpy()

    @torch.no_grad()
    def trajectory(self, images: Pixels, times: Sequence[float]) -> Trajectory:
        """The ODE's state at `times` (from 0, increasing); no ResNet has one.

        A fixed-step solver ends a step at each of `times`.
        """
        assert isinstance(self.model, ODENet)
        self.model.eval()
        ts = torch.tensor(times, dtype=self._dtype, device=self._device)
        with exact_convolutions():
            solution, logits = self.model.trajectory(self._images(images), ts)
        states = solution.ys.permute(0, 1, 3, 4, 2).cpu().numpy()
        return Trajectory(states, logits.cpu().numpy(), solution.nfe)

    @torch.no_grad()
    def _evaluate(self, images: Pixels) -> Output:
        self.model.eval()
        with exact_convolutions():
            return self.model(self._images(images))

    def _images(self, images: Pixels) -> Float[Tensor, "batch channels height width"]:
        return as_images(self._place({"images": images})["images"], self._dtype)


def _check(images: ndarray, labels: ndarray) -> None:
    """Refuse labels that are not a class for each image: -100 would be left out of the mean."""
    whole = np.issubdtype(labels.dtype, np.integer)
    if not whole or labels.shape != images.shape[:1] or labels.min(initial=0) < 0:
        raise ValueError(
            f"the labels are {labels.dtype}{list(labels.shape)} from {labels.min(initial=0)} on "
            f"for {len(images)} images; for each a class, a whole number from 0 on, expected"
        )


NO_SOLVE = {"nfe_forward": 0.0, "nfe_backward": 0.0, "steps": 0.0, "rejected": 0.0}


def learner(
    *,
    model: str,
    solver: str | None,
    adjoint: str | None,
    optimizer: str,
    momentum: float,
    seed: int,
    precision: str,
    device: str,
    kinetic_weight: float = 0.0,
    jacobian_weight: float = 0.0,
    **options: Any,
) -> ImageLearner:
    """A model with weights drawn from `seed`, ready to train; `options` are as in `build`.

    Weights are drawn in float32, so both precisions start from the same numbers. Those of
    regularise.py's penalties count in training only. Raises ValueError for an unknown name, or a
    penalty without an ODE.
    """
    penalties = regulariser(kinetic_weight, jacobian_weight, seed)
    if penalties and solver is None:
        raise ValueError(f"{model} solves no ODE whose dynamics could be penalised")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(model, solver=solver, adjoint=adjoint, **options)
    return ImageLearner(
        network,
        functools.partial(loss, penalties=penalties),
        adjoint=adjoint,
        precision=precision,
        device=device,
        optimizer=optimizer,
        momentum=momentum,
    )
