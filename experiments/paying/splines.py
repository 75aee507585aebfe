"""Neural spline couplings (Durkan, Bekasov, Murray, Papamakarios 2019): a baseline of flows.

From data to noise each layer passes one half of the components through monotonic rational-quadratic
splines (Gregory and Delbourgo 1982) on [-BOUND, BOUND], whose knots and slopes are functions of the
other half; beyond the bound it is the identity. The halves take turns.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jax_node.mlp import MLP

BOUND, BINS, LEAST = 5.0, 8, 1e-3


def spline(
    x: Float[Array, "*batch"], raw: Float[Array, "*batch parameters"]
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """The value and the logarithm of the slope at `x`, for any `3 * BINS - 1` numbers `raw`."""
    share = lambda r: LEAST + (1 - LEAST * BINS) * jax.nn.softmax(r)
    start = jnp.full((*x.shape, 1), -BOUND, x.dtype)
    knots = lambda r: jnp.concatenate([start, 2 * BOUND * jnp.cumsum(share(r), -1) - BOUND], -1)
    xs, ys = knots(raw[..., :BINS]), knots(raw[..., BINS : 2 * BINS])
    # softplus(shift) is 1 - LEAST: the network's 0 is the identity's slope, as outside.
    shift = jnp.log(jnp.expm1(1 - LEAST))
    inner = LEAST + jax.nn.softplus(raw[..., 2 * BINS :] + shift)
    slopes = jnp.pad(inner, [(0, 0)] * x.ndim + [(1, 1)], constant_values=1.0)

    inside = jnp.abs(x) < BOUND
    at = jnp.where(inside, x, 0.0)
    bin_of = jnp.clip(jnp.sum(at[..., None] >= xs, -1) - 1, 0, BINS - 1)[..., None]
    pick = lambda a, k: jnp.take_along_axis(a, bin_of + k, -1)[..., 0]
    x0, y0, d0, d1 = pick(xs, 0), pick(ys, 0), pick(slopes, 0), pick(slopes, 1)
    width, height = pick(xs, 1) - x0, pick(ys, 1) - y0
    s, z = height / width, (at - x0) / width
    below = s + (d0 + d1 - 2 * s) * z * (1 - z)
    value = y0 + height * (s * z**2 + d0 * z * (1 - z)) / below
    slope = s**2 * (d1 * z**2 + 2 * s * z * (1 - z) + d0 * (1 - z) ** 2) / below**2
    return jnp.where(inside, value, x), jnp.where(inside, jnp.log(slope), 0.0)


class SplineCoupling(nnx.Module):
    """Layers of `spline`, by networks of `width` units in two hidden layers."""

    def __init__(self, dim: int, width: int, layers: int, *, rngs: nnx.Rngs):
        halves = (dim // 2, dim - dim // 2)
        each = 3 * BINS - 1
        self.nets = nnx.List(
            [
                MLP((halves[i % 2], width, width, each * halves[1 - i % 2]), rngs=rngs)
                for i in range(layers)
            ]
        )

    def __call__(
        self, x: Float[Array, "batch dim"]
    ) -> tuple[Float[Array, "batch dim"], Float[Array, " batch"]]:
        """Noise, and the log-determinant of the map to it."""
        cut, total = x.shape[1] // 2, jnp.zeros(len(x), x.dtype)
        parts = [x[:, :cut], x[:, cut:]]
        for i, net in enumerate(self.nets):
            other = parts[1 - i % 2]
            raw = net(parts[i % 2]).reshape(*other.shape, -1)
            parts[1 - i % 2], slope = spline(other, raw)
            total = total + slope.sum(1)
        return jnp.concatenate(parts, axis=1), total
