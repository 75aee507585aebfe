"""The layers of the paper's models: residual block, time-dependent vector field, and the ends.

Images are [batch, channels, height, width] (NCHW). Weights have PyTorch's default initialisation,
uniform on +-1/sqrt(fan_in).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torch_node.normalise import normalisation

Images = Float[Tensor, "batch image_channels image_height image_width"]
State = Float[Tensor, "batch channels height width"]


class TimeConv2d(nn.Conv2d):
    """3x3 convolution of (t, x): time is one more input channel, the first, constant over space.

    The kernel is [out, 1 + in, 3, 3]; its slice [:, :1] belongs to time. The zero padding applies
    to the time channel too, so at the border time acts through a part of its kernel only.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels + 1, channels, kernel_size=3, padding=1)

    def forward(self, t: Float[Tensor, ""], x: State) -> State:  # type: ignore[override]
        """Convolve x [batch, channels, height, width], with t (a scalar) as channel 0."""
        time = t.expand(x.shape[0], 1, *x.shape[2:])
        return super().forward(torch.cat([time, x], dim=1))


class Residual(nn.Module):
    """`x + conv(relu(norm(conv(relu(norm(x))))))`: the pre-activation block of He et al. (2016).

    The convolutions are 3x3, without bias. With `stride` 2 the first has it and a strided 1x1
    convolution of the normalised input replaces `x` (the downsampling of the paper's text).
    """

    def __init__(self, channels: int, stride: int = 1, norm: str = "group") -> None:
        super().__init__()
        self.norm1 = normalisation(norm, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.norm2 = normalisation(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        if stride != 1:
            self.shortcut = nn.Conv2d(channels, channels, 1, stride=stride, bias=False)
        self.stride = stride

    def forward(self, x: State) -> Float[Tensor, "batch channels height_out width_out"]:
        """One residual update of x."""
        out = torch.relu(self.norm1(x))
        shortcut = x if self.stride == 1 else self.shortcut(out)
        out = self.conv1(out)
        return self.conv2(torch.relu(self.norm2(out))) + shortcut


class VectorField(nn.Module):
    """`dx/dt = f(t, x)`: the residual block with time, and a last normalisation (section 3).

    With the norm "batch" it keeps "group": normalised over the batch, an image's derivative would
    depend on the other images and on the calls before, so f were no function of t and x, and
    neither the steps of a solver nor the adjoint's way back would be those of one ODE.
    """

    def __init__(self, channels: int, norm: str = "group") -> None:
        super().__init__()
        norm = "group" if norm == "batch" else norm
        self.norm1 = normalisation(norm, channels)
        self.conv1 = TimeConv2d(channels)
        self.norm2 = normalisation(norm, channels)
        self.conv2 = TimeConv2d(channels)
        self.norm3 = normalisation(norm, channels)

    def forward(self, t: Float[Tensor, ""], x: State) -> State:
        """dx/dt at the scalar time t, of the shape of x."""
        out = self.conv1(t, torch.relu(self.norm1(x)))
        out = self.conv2(t, torch.relu(self.norm2(out)))
        return self.norm3(out)


class ConvDownsample(nn.Module):
    """28x28x1 to 6x6x64 by a 3x3 and two strided 4x4 convolutions: the authors' example code.

    Images may have another size and number of `image_channels`, which changes the first of them.
    """

    def __init__(self, channels: int, norm: str = "group", image_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(image_channels, channels, 3)
        self.norm1 = normalisation(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 4, stride=2, padding=1)
        self.norm2 = normalisation(norm, channels)
        self.conv3 = nn.Conv2d(channels, channels, 4, stride=2, padding=1)

    def forward(self, x: Images) -> State:
        """Features [batch, channels, 6, 6], of 28x28 images."""
        out = torch.relu(self.norm1(self.conv1(x)))
        out = torch.relu(self.norm2(self.conv2(out)))
        return self.conv3(out)


class ResidualDownsample(nn.Module):
    """28x28x1 to 7x7x64 by a 3x3 convolution and two residual blocks: the paper's text."""

    def __init__(self, channels: int, norm: str = "group", image_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(image_channels, channels, 3)
        self.block1 = Residual(channels, stride=2, norm=norm)
        self.block2 = Residual(channels, stride=2, norm=norm)

    def forward(self, x: Images) -> State:
        """Features [batch, channels, 7, 7], of 28x28 images."""
        return self.block2(self.block1(self.conv1(x)))


class Head(nn.Module):
    """Normalise, rectify (if `final_relu`), average over space, map to a logit for each class."""

    def __init__(
        self, channels: int, final_relu: bool, norm: str = "group", classes: int = 10
    ) -> None:
        super().__init__()
        self.norm = normalisation(norm, channels)
        self.final_relu = final_relu
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: State) -> Float[Tensor, "batch classes"]:
        """Logits `[batch, classes]`."""
        out = self.norm(x)
        if self.final_relu:
            out = torch.relu(out)
        return self.linear(out.mean(dim=(2, 3)))
