"""A plain and an augmented Neural ODE that classify points; see jax_node/augmented.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from torch_node.learner import Learner
from torch_node.mlp import MLP
from torch_node.solve import Solution, SolveError, solve

Points = Float[Tensor, "batch dim"]


class Classifier(nn.Module):
    """Points with `extra` zeros, moved by a field from t = 0 to 1, then a linear layer."""

    def __init__(self, dim: int, extra: int, width: int) -> None:
        super().__init__()
        self.extra = extra
        self.field = MLP((dim + extra, width, width, dim + extra))
        self.read = nn.Linear(dim + extra, 1)

    def move(self, x: Points, ts: Float[Tensor, " times"], **options: Any) -> Solution:
        """The states at ts, [times, batch, dim + extra], by `solve` with these options."""
        y0 = torch.cat([x, x.new_zeros(len(x), self.extra)], dim=1)
        return solve(lambda t, y: self.field(y), y0, ts, adjoint="direct", **options)

    def forward(self, x: Points, **options: Any) -> tuple[Float[Tensor, " batch"], Solution]:
        """Logits of the second class, and the solve."""
        ts = torch.tensor([0.0, 1.0], dtype=x.dtype, device=x.device)
        solution = self.move(x, ts, **options)
        return self.read(solution.ys[-1])[:, 0], solution


class Pair(nn.Module):
    """The same classifier without and with further components."""

    def __init__(self, dim: int, extra: int, width: int) -> None:
        super().__init__()
        self.plain = Classifier(dim, 0, width)
        self.augmented = Classifier(dim, extra, width)


def loss(
    model: Pair, batch: Mapping[str, Tensor], *, steps: int
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Sum of both cross-entropies for x and label (0 or 1); solved by rk4 in `steps` steps."""
    parts = {}
    for name, one in (("plain", model.plain), ("augmented", model.augmented)):
        logit, _ = one(batch["x"], solver="rk4", step_size=1 / steps)
        parts[name] = F.binary_cross_entropy_with_logits(logit, batch["label"].to(logit))
    return parts["plain"] + parts["augmented"], parts


def evaluate(model: Pair, x: Points) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits of both by dopri5 at 1e-5, then the NFE of both; NaN if a solve fails."""
    logits, nfe = [], []
    for one in (model.plain, model.augmented):
        try:
            logit, solution = one(x, solver="dopri5", rtol=1e-5, atol=1e-5, max_steps=1024)
            count = float(solution.nfe)
        except SolveError:
            logit, count = torch.full_like(x[:, 0], torch.nan), torch.nan
        logits.append(logit)
        nfe.append(torch.tensor(count))
    return logits[0], logits[1], nfe[0], nfe[1]


def paths(model: Pair, x: Points, ts: Float[Tensor, " times"]) -> tuple[Tensor, Tensor]:
    """States of both on their way, by dopri5 at 1e-5."""
    options = {"solver": "dopri5", "rtol": 1e-5, "atol": 1e-5, "max_steps": 1024}
    return model.plain.move(x, ts, **options).ys, model.augmented.move(x, ts, **options).ys


def learner(
    dim: int, *, extra: int, width: int, steps: int, seed: int, precision: str, device: str
) -> Learner:
    """Both models and their loss, ready to train."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Pair(dim, extra, width)
    objective = lambda model, batch, tally: loss(model, batch, steps=steps)
    return Learner(model, objective, precision=precision, device=device)
