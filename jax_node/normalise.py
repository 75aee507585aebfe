"""Normalisation between convolutions: over groups of one image's channels, or over the batch.

Images are `[height, width, batch, channels]`, as in `blocks.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jax_node import sharding

GROUPS = {"group": 32, "group1": 1, "group64": 64}
NORMS = (*GROUPS, "batch")
Image = Float[Array, "height width batch channels"]


class GroupNorm(nnx.Module):
    """Group normalisation (Wu and He 2018), eps 1e-5.

    The sum over space is a product with ones, and the mean over a group a product with a
    `[channels, channels]` matrix of blocks: on CPU both beat reducing over a split axis by 4x.
    """

    epsilon = 1e-5

    def __init__(self, channels: int, groups: int):
        self.groups = groups
        self.scale = nnx.Param(jnp.ones(channels, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))

    def __call__(self, x: Image) -> Image:
        """Normalise `x` over space and the channels of each group."""
        height, width, _, channels = x.shape
        members = channels // self.groups
        same_group = np.kron(np.eye(self.groups), np.ones((members, members)))
        average = jnp.asarray(same_group / (height * width * members), x.dtype)
        mean = _sum_over_space(x) @ average
        centred = x - mean[None, None]
        variance = _sum_over_space(centred * centred) @ average
        scale = jax.lax.rsqrt(variance + self.epsilon) * self.scale[None]
        return centred * scale[None, None] + self.bias[None, None, None]


class BatchNorm(nnx.Module):
    """Batch normalisation (Ioffe and Szegedy 2015), with PyTorch's momentum 0.1 and eps 1e-5.

    In training (`train()`, as it begins) `x` is normalised by mean and variance over the batch and
    space, the whole batch also where devices share it, and `mean` and `var` move a tenth of the way
    to them, the variance unbiased. In evaluation (`eval()`) `x` is normalised by `mean` and `var`.
    """

    epsilon = 1e-5
    momentum = 0.1

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones(channels, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(channels, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(channels, jnp.float32))
        self.use_running_average = False  # the name that nnx's train() and eval() set

    def __call__(self, x: Image) -> Image:
        """Normalise every channel of `x`."""
        if self.use_running_average:
            mean, variance = self.mean[...], self.var[...]
        else:
            mean, variance = self._observe(x)
        scale = jax.lax.rsqrt(variance + self.epsilon) * self.scale[...]
        mean, scale, bias = (jnp.broadcast_to(a, x.shape) for a in (mean, scale, self.bias[...]))
        return (x - mean) * scale + bias

    def _observe(self, x: Image) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
        """Mean and variance of the batch, after the running ones have moved towards them."""
        height, width, batch, _ = x.shape
        count = height * width * batch * sharding.count()
        average = lambda a: sharding.total(_sum_over_batch(a)) / count
        mean = average(x)
        variance = average((x - jnp.broadcast_to(mean, x.shape)) ** 2)
        moved = lambda old, new: (1 - self.momentum) * old + self.momentum * new
        self.mean[...] = moved(self.mean[...], mean)
        self.var[...] = moved(self.var[...], variance * (count / (count - 1)))
        return mean, variance


def normalisation(name: str, channels: int) -> GroupNorm | BatchNorm:
    """The layer of that name, one of `NORMS`.

    `group` has 32 groups, `group1` one (which is layer normalisation over space and channels),
    `group64` 64 (for 64 channels instance normalisation), but at most one a channel. `batch` is
    `BatchNorm`.

    Raises:
        ValueError: unknown name.
    """
    if name == "batch":
        return BatchNorm(channels)
    if name not in GROUPS:
        raise ValueError(f"norm {name!r} is unknown; choose one of {', '.join(NORMS)}")
    return GroupNorm(channels, min(GROUPS[name], channels))


def _sum_over_space(a: Image) -> Float[Array, "batch channels"]:
    height, width, batch, channels = a.shape
    ones = jnp.ones(height * width, a.dtype)
    return (ones @ a.reshape(height * width, -1)).reshape(batch, channels)


def _sum_over_batch(a: Image) -> Float[Array, " channels"]:
    """By one axis after another: in one sum float32 rounds as often as there are pixels."""
    height, width, batch, channels = a.shape
    rows = jnp.ones(height, a.dtype) @ a.reshape(height, -1)
    return (jnp.ones(width, a.dtype) @ rows.reshape(width, -1)).reshape(batch, channels).sum(0)
