"""The models of section 3: ResNet, RK-Net and ODE-Net, by name."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from torch_node.blocks import ConvDownsample, Head, Residual, ResidualDownsample, VectorField
from torch_node.regularise import solve_penalised
from torch_node.solve import Solution, check, solve

MODELS = ("resnet6", "resnet1", "rknet", "odenet")
SMALLEST = 8
DOWNSAMPLINGS = ("conv", "residual")
CHANNELS = 64


def downsample(name: str, norm: str, channels: int) -> nn.Module:
    """The layers between the image and the features: "conv" or "residual"."""
    if name not in DOWNSAMPLINGS:
        raise ValueError(
            f"downsampling {name!r} is unknown; choose one of {', '.join(DOWNSAMPLINGS)}"
        )
    kind = ConvDownsample if name == "conv" else ResidualDownsample
    return kind(CHANNELS, norm, channels)


class Output(NamedTuple):
    """Logits, the solve behind them (None in a ResNet), and penalties if they were asked for."""

    logits: Float[Tensor, "batch classes"]
    solution: Solution | None
    penalties: dict[str, Float[Tensor, ""]] = {}


class ResNet(nn.Module):
    """Downsample, `n_blocks` residual blocks, head."""

    def __init__(
        self,
        n_blocks: int,
        *,
        final_relu: bool,
        downsampling: str,
        norm: str,
        channels: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.downsample = downsample(downsampling, norm, channels)
        self.blocks = nn.ModuleList(Residual(CHANNELS, norm=norm) for _ in range(n_blocks))
        self.head = Head(CHANNELS, final_relu, norm, classes)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Output:
        """Classify images with values in [0, 1]."""
        x = self.downsample(images)
        for block in self.blocks:
            x = block(x)
        return Output(self.head(x), None)


class ODENet(nn.Module):
    """Downsample, `y(t1)` of `dy/dt = field(t, y)` with `y(0)` the features, head.

    ODE-Net takes its gradients by the adjoint method, RK-Net by backpropagation through a
    Runge-Kutta method's steps; nothing else tells them apart.
    """

    def __init__(
        self,
        solver: Callable[..., Solution],
        *,
        t1: float,
        final_relu: bool,
        downsampling: str,
        norm: str,
        channels: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.solver = solver
        self.t1 = t1
        self.downsample = downsample(downsampling, norm, channels)
        self.field = VectorField(CHANNELS, norm)
        self.head = Head(CHANNELS, final_relu, norm, classes)

    def forward(
        self,
        images: Float[Tensor, "batch channels height width"],
        *,
        penalise: bool = False,
        draw_probe: Callable[[Tensor], Tensor] | None = None,
    ) -> Output:
        """Classify images with values in [0, 1].

        With `penalise`, integrate the penalties of `regularise.py` too; `draw_probe` makes a probe
        for the state it is given, and without it there is no Jacobian penalty.
        """
        y0 = self.downsample(images)
        ts = y0.new_tensor([0.0, self.t1])
        if not penalise:
            solution = self.solver(self.field, y0, ts)
            return Output(self.head(solution.ys[-1]), solution)
        probe = draw_probe(y0) if draw_probe else None
        solution, penalties = solve_penalised(self.solver, self.field, y0, ts, probe=probe)
        return Output(self.head(solution.ys[-1]), solution, penalties)

    def trajectory(
        self, images: Float[Tensor, "batch channels height width"], times: Float[Tensor, " times"]
    ) -> tuple[Solution, Float[Tensor, "times batch classes"]]:
        """The solve with the state at `times` (from 0, increasing), and the logits of each state.

        States in `ys` are [times, batch, channels, height, width].
        """
        solution = self.solver(self.field, self.downsample(images), times)
        return solution, torch.stack([self.head(y) for y in solution.ys])


def build(
    name: str,
    *,
    final_relu: bool = True,
    downsampling: str = "conv",
    norm: str = "group",
    channels: int = 1,
    classes: int = 10,
    solver: str | None = "dopri5",
    adjoint: str | None = "adjoint",
    rtol: float = 1e-3,
    atol: float = 1e-3,
    step_size: float | None = None,
    max_steps: int = 4096,
    t1: float = 1.0,
) -> ResNet | ODENet:
    """Make a model by name: one of MODELS, or `resnet<N>` with any number of blocks.

    Args:
        name: which model.
        final_relu: whether the head rectifies after its normalisation.
        downsampling: "conv" (the authors' example code) or "residual" (the paper's text).
        norm: one of normalise.NORMS; the field of an ODE model keeps "group" with "batch" (why:
            blocks.VectorField).
        channels: of the images, of SMALLEST pixels or more a side.
        classes: how many logits.
        solver, adjoint, rtol, atol, step_size, max_steps: as in `solve.solve`; resnets ignore them.
        t1: end of the ODE's time, which starts at 0.

    Raises:
        ValueError: unknown name, or an ODE model without a solver.
    """
    architecture: dict[str, Any] = {
        "final_relu": final_relu,
        "downsampling": downsampling,
        "norm": norm,
        "channels": channels,
        "classes": classes,
    }
    resnet = re.fullmatch(r"resnet([1-9]\d*)", name)
    if resnet:
        return ResNet(int(resnet[1]), **architecture)
    if name not in MODELS:
        raise ValueError(
            f"model {name!r} is unknown; choose one of {', '.join(MODELS)}, or resnet<N>"
        )
    if solver is None or adjoint is None:
        raise ValueError(f"{name} needs a solver and an adjoint; give `solver` and `adjoint`")
    check(solver, adjoint, step_size)
    integrate = functools.partial(
        solve, solver=solver, adjoint=adjoint, rtol=rtol, atol=atol, step_size=step_size,
        max_steps=max_steps,
    )  # fmt: skip
    return ODENet(integrate, t1=t1, **architecture)


def as_images(
    pixels: Num[Tensor, "batch height width channels"], dtype: torch.dtype
) -> Float[Tensor, "batch channels height width"]:
    """Pixels 0...255 as floats in [0, 1]. Raises ValueError for floats, which may be so already."""
    if pixels.is_floating_point():
        raise ValueError(f"the pixels are {pixels.dtype}; whole numbers from 0 to 255 expected")
    # A copy: strides of one channel alone would pass for another memory format.
    channels_first = pixels.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)
    return channels_first.to(dtype) / 255
