"""Learn a vector field from trajectories, by multiple shooting; see jax_node/dynamics.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torch_node.irregular import known, solve_at
from torch_node.learner import Learner
from torch_node.mlp import GRU, MLP
from torch_node.solve import SolveError, solve
from torch_node.validate import check_shape


class Dynamics(nn.Module):
    """A vector field f(y), the windows' initial states, and the discrete baseline."""

    def __init__(self, starts: Float[Tensor, "windows dim"], width: int, depth: int) -> None:
        super().__init__()
        dim = starts.shape[-1]
        self.field = MLP((dim, *[width] * depth, dim))
        self.starts = nn.Parameter(starts)
        self.rnn = Recurrent(dim, width)


class Recurrent(nn.Module):
    """The baseline: a GRU that is told how long the next gap is and adds to the last state."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.enter = nn.Linear(dim, hidden)
        self.gru = GRU(dim + 1, hidden)
        self.leave = nn.Linear(hidden, dim)

    def forward(
        self, y0: Float[Tensor, "batch dim"], ts: Float[Tensor, "batch times"]
    ) -> Float[Tensor, "batch times dim"]:
        """States at ts, each predicted from the one before; the first is y0."""
        h, ys = torch.tanh(self.enter(y0)), [y0]
        for gap in ts.diff(dim=1).T:
            h = self.gru(h, torch.cat([ys[-1], gap[:, None]], dim=1))
            ys.append(ys[-1] + self.leave(h))
        return torch.stack(ys, dim=1)


def shooting_losses(
    ys: Float[Tensor, "windows times dim"],
    starts: Float[Tensor, "windows dim"],
    batch: Mapping[str, Tensor],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Of multiple shooting: the errors of observations and of windows' ends, as in jax_node.

    Raises ValueError for another shape, and IndexError for a successor that does not exist.
    """
    successor = batch["next"].long()
    check_shape("next", successor, starts.shape[:1])
    following = starts.index_select(0, successor)  # which takes no index from the end
    inner = (successor != torch.arange(len(starts), device=ys.device)).to(ys.dtype)[:, None]
    data = _masked_mean(ys, batch["values"], batch["mask"])
    return data, _masked_mean(ys[:, -1], following, inner * torch.ones_like(starts))


def loss(
    model: Dynamics, batch: Mapping[str, Tensor], *, solver: str, substeps: int, gap_weight: float
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Sum of the losses of the field and of the baseline, as in jax_node/dynamics.py."""
    field = lambda t, y: model.field(y)
    ys = solve_at(field, model.starts, batch["times"], solver=solver, substeps=substeps)
    data, gap = shooting_losses(ys, model.starts, batch)
    free = model.rnn(batch["all_values"][:, 0], batch["all_times"])
    rnn = _masked_mean(free, batch["all_values"], batch["all_mask"])
    total = data + gap_weight * gap + rnn
    return total, {"data": data, "gap": gap, "rnn": rnn}


def field(model: Dynamics, y: Float[Tensor, "points dim"]) -> Float[Tensor, "points dim"]:
    """The learnt dy/dt."""
    return model.field(y)


def trajectory(
    model: Dynamics, y0: Float[Tensor, "batch dim"], ts: Float[Tensor, " times"]
) -> Float[Tensor, "batch times dim"]:
    """States at common times by dopri5 at 1e-6; NaN if the solve does not reach the last."""
    try:
        solution = solve(
            lambda t, y: model.field(y),
            y0,
            ts,
            solver="dopri5",
            adjoint="direct",
            rtol=1e-6,
            atol=1e-6,
            max_steps=4096,
        )
    except SolveError:
        return y0.new_full((len(y0), len(ts), y0.shape[1]), torch.nan)
    return solution.ys.moveaxis(0, 1)


def recurrent(
    model: Dynamics, y0: Float[Tensor, "batch dim"], ts: Float[Tensor, " times"]
) -> Float[Tensor, "batch times dim"]:
    """The baseline's states at common times."""
    return model.rnn(y0, ts.expand(len(y0), len(ts)))


def build(starts: Any, *, width: int, depth: int, seed: int) -> Dynamics:
    """A model with weights drawn from `seed` in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Dynamics(torch.tensor(starts, dtype=torch.float32), width, depth)


def learner(
    starts: Any,
    *,
    width: int,
    depth: int,
    seed: int,
    solver: str,
    substeps: int,
    gap_weight: float,
    precision: str,
    device: str,
) -> Learner:
    """The model and its loss, ready to train."""
    objective = lambda model, batch, tally: loss(
        model, batch, solver=solver, substeps=substeps, gap_weight=gap_weight
    )
    model = build(starts, width=width, depth=depth, seed=seed)
    return Learner(model, objective, precision=precision, device=device)


def _masked_mean(found: Tensor, truth: Tensor, mask: Tensor) -> Float[Tensor, ""]:
    error = found - known(truth, mask)
    check_shape("mask", mask, error.shape)
    return (mask * error**2).sum() / mask.sum().clamp(min=1)
