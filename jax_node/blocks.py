"""The layers of the paper's models: residual block, time-dependent vector field, and the ends.

Images inside the network are `[height, width, batch, channels]` (see `conv.py` for why). Weights
start as PyTorch's do, uniform within `1 / sqrt(fan_in)`, since the paper's results were made so.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jax_node import conv
from jax_node.mlp import Linear, uniform
from jax_node.normalise import normalisation

CHANNELS = 64
# A layer may change height, width and channels, so only the batch is held to be the same.
Image = Float[Array, "_height _width batch _channels"]


class Conv(nnx.Module):
    """Square convolution by `convolve`, one of the functions of `conv.py`."""

    def __init__(
        self,
        convolve: Callable[[Array, Array], Array],
        size: int,
        c_in: int = CHANNELS,
        *,
        bias: bool = True,
        rngs: nnx.Rngs,
    ):
        self.convolve = convolve
        self.kernel = uniform(rngs, (size, size, c_in, CHANNELS), size * size * c_in)
        self.bias = uniform(rngs, (CHANNELS,), size * size * c_in) if bias else None

    def __call__(self, x: Image) -> Image:
        """Convolve `x`."""
        y = self.convolve(x, self.kernel[...])
        return y if self.bias is None else y + jnp.broadcast_to(self.bias[...], y.shape)


class TimeConv(nnx.Module):
    """3x3 convolution of `x` with the time `t` as one more input channel, the first.

    Convolution is linear, so `conv([t, x]) = conv(x) + t * conv(1)` and the channel of constants
    is never built: `conv(1)` adds up those taps of the time slice that fall inside the image.
    """

    def __init__(self, *, rngs: nnx.Rngs):
        self.convolve = conv.same3x3
        fan_in = 9 * (CHANNELS + 1)
        self.kernel = uniform(rngs, (3, 3, CHANNELS + 1, CHANNELS), fan_in)
        self.bias = uniform(rngs, (CHANNELS,), fan_in)

    def __call__(self, t: Float[Array, ""], x: Image) -> Image:
        """Convolve `x` at time `t`."""
        height, width = x.shape[:2]
        kernel = self.kernel[...]
        inside = jnp.asarray(np.kron(_taps_inside(height), _taps_inside(width)), x.dtype)
        time = (inside @ kernel[:, :, 0].reshape(9, -1)).reshape(height, width, 1, -1)
        return self.convolve(x, kernel[:, :, 1:]) + (t * time + self.bias[None, None, None])


def _taps_inside(size: int) -> np.ndarray:
    """`[size, 3]`: one where the neighbour at -1, 0, +1 of a pixel lies inside the image."""
    neighbour = np.arange(size)[:, None] + np.arange(-1, 2)
    return ((neighbour >= 0) & (neighbour < size)).astype(float)


class Residual(nnx.Module):
    """`x + conv(relu(norm(conv(relu(norm(x))))))`: the pre-activation block of He et al. (2016).

    The convolutions are 3x3, without bias. With `halve` the first has stride 2 and a strided 1x1
    convolution of the normalised input replaces `x` (the downsampling of the paper's text).
    """

    def __init__(self, *, halve: bool = False, norm: str = "group", rngs: nnx.Rngs):
        first = conv.half3x3 if halve else conv.same3x3
        self.norm1 = normalisation(norm, CHANNELS)
        self.conv1 = Conv(first, 3, bias=False, rngs=rngs)
        self.norm2 = normalisation(norm, CHANNELS)
        self.conv2 = Conv(conv.same3x3, 3, bias=False, rngs=rngs)
        self.shortcut = Conv(conv.half1x1, 1, bias=False, rngs=rngs) if halve else None

    def __call__(self, x: Image) -> Image:
        """One residual update of `x`."""
        h = jax.nn.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(h)
        return shortcut + self.conv2(jax.nn.relu(self.norm2(self.conv1(h))))


class VectorField(nnx.Module):
    """`dy/dt = f(t, y)`: the residual block with time, and a last normalisation (section 3).

    With the norm `batch` it keeps `group`: normalised over the batch, an image's derivative would
    depend on the other images and on the calls before, so `f` were no function of `t` and `y`, and
    neither the steps of a solver nor the adjoint's way back would be those of one ODE.
    """

    def __init__(self, *, norm: str = "group", rngs: nnx.Rngs):
        norm = "group" if norm == "batch" else norm
        self.norm1 = normalisation(norm, CHANNELS)
        self.conv1 = TimeConv(rngs=rngs)
        self.norm2 = normalisation(norm, CHANNELS)
        self.conv2 = TimeConv(rngs=rngs)
        self.norm3 = normalisation(norm, CHANNELS)

    def __call__(self, t: Float[Array, ""], y: Image) -> Image:
        """`dy/dt` at the scalar time `t`, of the shape of `y`."""
        h = self.conv1(t, jax.nn.relu(self.norm1(y)))
        return self.norm3(self.conv2(t, jax.nn.relu(self.norm2(h))))


class ConvDownsample(nnx.Module):
    """28x28x1 to 6x6x64 by a 3x3 and two strided 4x4 convolutions: the authors' example code.

    Images may have another size and number of `channels`, which changes the first convolution.
    """

    def __init__(self, *, channels: int = 1, norm: str = "group", rngs: nnx.Rngs):
        self.conv1 = Conv(conv.valid3x3, 3, channels, rngs=rngs)
        self.norm1 = normalisation(norm, CHANNELS)
        self.conv2 = Conv(conv.half4x4, 4, rngs=rngs)
        self.norm2 = normalisation(norm, CHANNELS)
        self.conv3 = Conv(conv.half4x4, 4, rngs=rngs)

    def __call__(self, x: Image) -> Image:
        """Features `[6, 6, batch, channels]`, of 28x28 images."""
        x = jax.nn.relu(self.norm1(self.conv1(x)))
        return self.conv3(jax.nn.relu(self.norm2(self.conv2(x))))


class ResidualDownsample(nnx.Module):
    """28x28x1 to 7x7x64 by a 3x3 convolution and two residual blocks: the paper's text."""

    def __init__(self, *, channels: int = 1, norm: str = "group", rngs: nnx.Rngs):
        self.conv1 = Conv(conv.valid3x3, 3, channels, rngs=rngs)
        self.block1 = Residual(halve=True, norm=norm, rngs=rngs)
        self.block2 = Residual(halve=True, norm=norm, rngs=rngs)

    def __call__(self, x: Image) -> Image:
        """Features `[7, 7, batch, channels]`, of 28x28 images."""
        return self.block2(self.block1(self.conv1(x)))


class Head(nnx.Module):
    """Normalise, rectify (if `final_relu`), average over space, map to a logit for each class."""

    def __init__(self, *, final_relu: bool, classes: int = 10, norm: str = "group", rngs: nnx.Rngs):
        self.final_relu = final_relu
        self.norm = normalisation(norm, CHANNELS)
        self.linear = Linear(CHANNELS, classes, rngs=rngs)

    def __call__(self, x: Image) -> Float[Array, "batch classes"]:
        """Logits `[batch, classes]`."""
        x = self.norm(x)
        x = jax.nn.relu(x) if self.final_relu else x
        return self.linear(x.mean((0, 1)))
