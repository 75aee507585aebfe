"""Dense layers; jax_node/mlp.py is their twin, attribute by attribute."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

# A layer may change the last dimension.
Vectors = Float[Tensor, "*batch _features"]


class MLP(nn.Module):
    """Linear layers of the given sizes with a nonlinearity between them."""

    def __init__(
        self, sizes: tuple[int, ...], *, activation: Callable[[Tensor], Tensor] = torch.tanh
    ) -> None:
        super().__init__()
        self.activation = activation
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        self.layers = nn.ModuleList([nn.Linear(n, m) for n, m in pairs])

    def forward(self, x: Vectors) -> Vectors:
        """Map the last dimension from the first size to the last one."""
        *inner, last = self.layers
        for layer in inner:
            x = self.activation(layer(x))
        return last(x)


class GRU(nn.Module):
    """Gated recurrent unit (Cho et al. 2014): `h' = (1 - u) c + u h`.

    `u`, `r` are the sigmoids of a linear map of `[x, h]`, `c` the tanh of one of `[x, r h]`.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.gates = nn.Linear(inputs + hidden, 2 * hidden)
        self.candidate = nn.Linear(inputs + hidden, hidden)

    def forward(
        self, h: Float[Tensor, "batch hidden"], x: Float[Tensor, "batch inputs"]
    ) -> Float[Tensor, "batch hidden"]:
        """The next hidden state."""
        update, reset = torch.sigmoid(self.gates(torch.cat([x, h], 1))).chunk(2, 1)
        candidate = torch.tanh(self.candidate(torch.cat([x, reset * h], 1)))
        return (1 - update) * candidate + update * h
