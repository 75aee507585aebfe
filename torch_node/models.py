"""The models of section 3: ResNet, RK-Net and ODE-Net, by name."""

from __future__ import annotations

import re

from jaxtyping import Float
from torch import Tensor, nn

from torch_node.blocks import ConvDownsample, Head, ResidualBlock, ResidualDownsample, VectorField
from torch_node.solve import Solution, check, solve

MODELS = ("resnet6", "resnet1", "rknet", "odenet")
DOWNSAMPLINGS = ("conv", "residual")
CHANNELS = 64


def downsample(name: str) -> nn.Module:
    """The layers between the image and the features: "conv" or "residual"."""
    if name not in DOWNSAMPLINGS:
        raise ValueError(
            f"downsampling {name!r} is unknown; choose one of {', '.join(DOWNSAMPLINGS)}"
        )
    return ConvDownsample(CHANNELS) if name == "conv" else ResidualDownsample(CHANNELS)


class ResNet(nn.Module):
    """Downsampling, `n_blocks` residual blocks, head."""

    def __init__(self, n_blocks: int, *, final_relu: bool, downsampling: str) -> None:
        super().__init__()
        self.downsample = downsample(downsampling)
        self.blocks = nn.ModuleList(ResidualBlock(CHANNELS) for _ in range(n_blocks))
        self.head = Head(CHANNELS, final_relu)

    def forward(
        self, images: Float[Tensor, "batch 1 28 28"]
    ) -> tuple[Float[Tensor, "batch 10"], None]:
        """Logits [batch, 10] of images with values in [0, 1]; no solve is involved."""
        x = self.downsample(images)
        for block in self.blocks:
            x = block(x)
        return self.head(x), None


class OdeNet(nn.Module):
    """Downsampling, the flow of a vector field from t = 0 to t = 1, head.

    ODE-Net takes its gradients by the adjoint method, RK-Net by backpropagation through a
    Runge-Kutta method's steps; nothing else tells them apart.
    """

    def __init__(
        self,
        *,
        final_relu: bool,
        downsampling: str,
        solver: str,
        adjoint: str,
        rtol: float,
        atol: float,
        step_size: float | None,
        max_steps: int,
    ) -> None:
        super().__init__()
        check(solver, adjoint, step_size)
        self.downsample = downsample(downsampling)
        self.field = VectorField(CHANNELS)
        self.head = Head(CHANNELS, final_relu)
        self.solver, self.adjoint = solver, adjoint
        self.rtol, self.atol = rtol, atol
        self.step_size, self.max_steps = step_size, max_steps

    def forward(
        self, images: Float[Tensor, "batch 1 28 28"]
    ) -> tuple[Float[Tensor, "batch 10"], Solution]:
        """Logits [batch, 10] of images with values in [0, 1], and the solve with its statistics."""
        x = self.downsample(images)
        solution = solve(
            self.field,
            x,
            x.new_tensor([0.0, 1.0]),
            solver=self.solver,
            adjoint=self.adjoint,
            rtol=self.rtol,
            atol=self.atol,
            step_size=self.step_size,
            max_steps=self.max_steps,
        )
        return self.head(solution.ys[-1]), solution


def build(
    name: str,
    *,
    final_relu: bool = True,
    downsampling: str = "conv",
    solver: str | None = "dopri5",
    adjoint: str | None = "adjoint",
    rtol: float = 1e-3,
    atol: float = 1e-3,
    step_size: float | None = None,
    max_steps: int = 4096,
) -> ResNet | OdeNet:
    """The model of that name: one of MODELS, or any `resnet<N>`; resnets ignore the solver.

    Raises ValueError listing the names for an unknown one.
    """
    resnet = re.fullmatch(r"resnet([1-9]\d*)", name)
    if resnet:
        return ResNet(int(resnet[1]), final_relu=final_relu, downsampling=downsampling)
    if name not in MODELS:
        raise ValueError(
            f"model {name!r} is unknown; choose one of {', '.join(MODELS)}, or resnet<N>"
        )
    if solver is None or adjoint is None:
        raise ValueError(f"{name} needs a solver and an adjoint; give --solver and --adjoint")
    return OdeNet(
        final_relu=final_relu,
        downsampling=downsampling,
        solver=solver,
        adjoint=adjoint,
        rtol=rtol,
        atol=atol,
        step_size=step_size,
        max_steps=max_steps,
    )
