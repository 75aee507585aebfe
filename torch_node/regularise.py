"""Penalties on the dynamics, integrated beside the state; jax_node/regularise.py is the twin.

For each example, with `n` numbers in its state (RNODE, Finlay et al. 2020, arXiv:2002.02798):

    kinetic'  = |f(t, y)|^2 / n          small if the state is moved little, at an even speed
    jacobian' = |eps^T df/dy|^2 / n      with random eps of +-1, |df/dy|_F^2 / n on average

The same solver takes the same steps for them as for `y`: the norm of the step size control is that
of `y` alone, forwards and (adjoint) backwards. So weights of zero and above zero take the same
steps at the same parameters, and the integrals are as exact as the steps for `y` make them; their
own error is not controlled.

The field of the MNIST models ends in a normalisation, whatever `y` is: its `|f|^2 / n` is about the
mean of that layer's scale^2 + bias^2, and that is all that the kinetic penalty acts upon there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from torch_node.solve import Solution

State = Float[Tensor, "batch channels height width"]


class Regulariser(NamedTuple):
    """Weights of the penalties in the loss, and the seed of the probes."""

    kinetic: float
    jacobian: float
    seed: int

    def options(self, steps: int) -> dict[str, Any]:
        """Keyword arguments of `models.ODENet` in the training step after `steps` others."""

        def draw(y: State) -> State:
            signs = np.random.default_rng((self.seed, steps)).integers(0, 2, y.shape, np.int8)
            return torch.from_numpy(2 * signs - 1).to(y)

        return {"penalise": True, "draw_probe": draw if self.jacobian else None}

    def cost(self, penalties: dict[str, Tensor]) -> Float[Tensor, ""] | float:
        """Weighted sum of the penalties."""
        return sum(getattr(self, name) * value for name, value in penalties.items())


def regulariser(kinetic: float, jacobian: float, seed: int) -> Regulariser | None:
    """None if both weights are 0: the training step is then the one without penalties."""
    return Regulariser(kinetic, jacobian, seed) if kinetic or jacobian else None


def solve_penalised(
    solver: Callable[..., Solution],
    field: nn.Module,
    y0: State,
    ts: Float[Tensor, " times"],
    *,
    probe: State | None = None,
) -> tuple[Solution, dict[str, Float[Tensor, ""]]]:
    """The solution that `solver` (see `solve.solve`) finds, and the batch means of the penalties.

    `kinetic` always, `jacobian` with a `probe`, which is not differentiated. An evaluation of the
    field then costs a vector-Jacobian product too, and still counts as one.
    """
    size = y0[0].numel()
    names = ["kinetic"] if probe is None else ["kinetic", "jacobian"]
    solution = solver(
        _Penalised(field, y0.shape, probe),
        _rows(y0, *(y0.new_zeros(len(y0)) for _ in names)),
        ts,
        norm=lambda rows: rows[:, :size].pow(2).mean().sqrt(),
    )
    # Along the way, whichever direction it has: a loss must not be paid for moving.
    way = torch.sign(ts[-1] - ts[0]).to(y0.dtype)
    means = {name: way * solution.ys[-1, :, size + i].mean() for i, name in enumerate(names)}
    ys = solution.ys[..., :size].reshape(len(ts), *y0.shape)
    return dataclasses.replace(solution, ys=ys), means


class _Penalised(nn.Module):
    """A field of rows, one an example: the numbers of its state, then its integrals."""

    def __init__(self, field: nn.Module, shape: torch.Size, probe: State | None) -> None:
        super().__init__()
        self.field, self.shape, self.probe = field, shape, probe

    def forward(self, t: Tensor, rows: Tensor) -> Tensor:
        y = rows[:, : self.shape[1:].numel()].reshape(self.shape)
        if self.probe is None:
            dy = self.field(t, y)
            return _rows(dy, _mean_square(dy))
        wanted = torch.is_grad_enabled()
        # Inside torchdiffeq's adjoint y may claim to require a gradient that it cannot give.
        with torch.enable_grad():
            y = y if wanted and y.requires_grad else y.detach().requires_grad_()
            dy = self.field(t, y)
            (pulled,) = torch.autograd.grad(dy, y, self.probe, create_graph=wanted)
        dy = dy if wanted else dy.detach()
        return _rows(dy, _mean_square(dy), _mean_square(pulled))


def _rows(y: State, *integrals: Float[Tensor, " batch"]) -> Float[Tensor, "batch numbers"]:
    return torch.cat([y.flatten(1), torch.stack(integrals, dim=1)], dim=1)


def _mean_square(x: State) -> Float[Tensor, " batch"]:
    return x.pow(2).mean(dim=(1, 2, 3))
