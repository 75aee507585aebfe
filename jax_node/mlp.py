"""Dense layers, and how weights start; torch_node/mlp.py is their twin, attribute by attribute."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

# A layer may change the last dimension.
Vectors = Float[Array, "*batch _features"]


def uniform(rngs: nnx.Rngs, shape: tuple[int, ...], fan_in: int) -> nnx.Param:
    """Weights that start as PyTorch's do, uniform within `1 / sqrt(fan_in)`, in float32."""
    bound = fan_in**-0.5
    return nnx.Param(jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound))


class Linear(nnx.Module):
    """`x @ kernel + bias`."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.kernel = uniform(rngs, (inputs, outputs), inputs)
        self.bias = uniform(rngs, (outputs,), inputs)

    def __call__(self, x: Vectors) -> Vectors:
        """Map the last dimension."""
        y = x @ self.kernel[...]
        return y + jnp.broadcast_to(self.bias[...], y.shape)


class MLP(nnx.Module):
    """Linear layers of the given sizes with a nonlinearity between them."""

    def __init__(
        self,
        sizes: tuple[int, ...],
        *,
        rngs: nnx.Rngs,
        activation: Callable[[Array], Array] = jnp.tanh,
    ):
        self.activation = activation
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        self.layers = nnx.List([Linear(n, m, rngs=rngs) for n, m in pairs])

    def __call__(self, x: Vectors) -> Vectors:
        """Map the last dimension from the first size to the last one."""
        *inner, last = self.layers
        for layer in inner:
            x = self.activation(layer(x))
        return last(x)


class GRU(nnx.Module):
    """Gated recurrent unit (Cho et al. 2014): `h' = (1 - u) c + u h`.

    `u`, `r` are the sigmoids of a linear map of `[x, h]`, `c` the tanh of one of `[x, r h]`.
    """

    def __init__(self, inputs: int, hidden: int, *, rngs: nnx.Rngs):
        self.gates = Linear(inputs + hidden, 2 * hidden, rngs=rngs)
        self.candidate = Linear(inputs + hidden, hidden, rngs=rngs)

    def __call__(
        self, h: Float[Array, "batch hidden"], x: Float[Array, "batch inputs"]
    ) -> Float[Array, "batch hidden"]:
        """The next hidden state."""
        update, reset = jnp.split(jax.nn.sigmoid(self.gates(jnp.concatenate([x, h], 1))), 2, 1)
        candidate = jnp.tanh(self.candidate(jnp.concatenate([x, reset * h], 1)))
        return (1 - update) * candidate + update * h
