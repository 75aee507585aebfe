"""Learn a vector field from trajectories, by multiple shooting; torch_node/dynamics.py is the twin.

A trajectory is cut into windows of a few observations. Each window has an initial state of its own,
which is trained with the field; the end of a window is drawn to the start of the next one. That
keeps the loss well behaved where a single long solve would diverge or get stuck, and lets every
window of every trajectory be solved at once (Bock 1981; Baake et al. 1992, Physical Review A 45).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jax_node import validate
from jax_node.irregular import known, solve_at
from jax_node.learner import Learner
from jax_node.mlp import GRU, MLP, Linear
from jax_node.solve import Solution, solve


class Dynamics(nnx.Module):
    """A vector field `f(y)`, the windows' initial states, and the discrete baseline.

    The field does not see the time: the systems are autonomous, and it can be asked anywhere.
    """

    def __init__(
        self, starts: Float[Array, "windows dim"], width: int, depth: int, *, rngs: nnx.Rngs
    ):
        dim = starts.shape[-1]
        self.field = MLP((dim, *[width] * depth, dim), rngs=rngs)
        self.starts = nnx.Param(jnp.asarray(starts))
        self.rnn = Recurrent(dim, width, rngs=rngs)


class Recurrent(nnx.Module):
    """The baseline: a GRU that is told how long the next gap is and adds to the last state."""

    def __init__(self, dim: int, hidden: int, *, rngs: nnx.Rngs):
        self.enter = Linear(dim, hidden, rngs=rngs)
        self.gru = GRU(dim + 1, hidden, rngs=rngs)
        self.leave = Linear(hidden, dim, rngs=rngs)

    def __call__(
        self, y0: Float[Array, "batch dim"], ts: Float[Array, "batch times"]
    ) -> Float[Array, "batch times dim"]:
        """States at `ts`, each predicted from the one before; the first is `y0`."""

        def advance(carry, gap):
            h, y = carry
            h = self.gru(h, jnp.concatenate([y, gap[:, None]], axis=1))
            y = y + self.leave(h)
            return (h, y), y

        gaps = jnp.diff(ts, axis=1).T
        _, ys = jax.lax.scan(advance, (jnp.tanh(self.enter(y0)), y0), gaps)
        return jnp.concatenate([y0[:, None], jnp.moveaxis(ys, 0, 1)], axis=1)


def shooting_losses(
    ys: Float[Array, "windows times dim"],
    starts: Float[Array, "windows dim"],
    batch: Mapping[str, Array],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Of multiple shooting: the error of observations, and of each window's end.

    The first is the mean square over the observed values of all windows, the second that of the
    distances from the end `ys[:, -1]` of a window to the start of the next one. `batch` has
    `values` and `mask` (1 where observed), `[windows, times, dim]`, and `next`, the index of each
    window's successor, or of itself at the end of a trajectory; that of no window gives NaN.
    ValueError for another shape.
    """
    successor = batch["next"]
    validate.shape("next", successor, starts.shape[:1])
    following = starts.at[successor].get(
        mode="fill", fill_value=jnp.nan, wrap_negative_indices=False
    )
    inner = (successor != jnp.arange(len(starts))).astype(ys.dtype)[:, None]
    data = _masked_mean(ys, batch["values"], batch["mask"])
    return data, _masked_mean(ys[:, -1], following, inner * jnp.ones_like(starts))


def loss(
    model: Dynamics, batch: Mapping[str, Array], *, solver: str, substeps: int, gap_weight: float
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Sum of the losses of the field and of the baseline, which share no parameter.

    Of the field: those of multiple shooting, the gaps times `gap_weight`. Of the baseline: mean
    squared error of trajectories predicted freely from their first observation.

    Args:
        model: what is trained.
        batch: `times` of the windows, `[windows, times]`, and what `shooting_losses` needs; and the
            same of whole trajectories as `all_times`, `all_values`, `all_mask`.
        solver: a method of `irregular.solve_at`.
        substeps: its steps between two observations.
        gap_weight: weight of continuity against data.
    """
    starts = model.starts[...]
    graph, weights = nnx.split(model.field)
    field = lambda t, y, weights: nnx.merge(graph, weights)(y)
    ys = solve_at(field, starts, batch["times"], weights, solver=solver, substeps=substeps)
    data, gap = shooting_losses(ys, starts, batch)
    free = model.rnn(batch["all_values"][:, 0], batch["all_times"])
    rnn = _masked_mean(free, batch["all_values"], batch["all_mask"])
    total = data + gap_weight * gap + rnn
    return total, {"data": data, "gap": gap, "rnn": rnn}


def field(model: Dynamics, y: Float[Array, "points dim"]) -> Float[Array, "points dim"]:
    """The learnt `dy/dt`."""
    return model.field(y)


def trajectory(
    model: Dynamics, y0: Float[Array, "batch dim"], ts: Float[Array, " times"]
) -> Float[Array, "batch times dim"]:
    """States at common times by dopri5 at 1e-6; NaN if the solve does not reach the last."""
    graph, weights = nnx.split(model.field)
    solution: Solution = solve(
        lambda t, y, weights: nnx.merge(graph, weights)(y),
        y0,
        ts,
        weights,
        solver="dopri5",
        adjoint="checkpoint",
        rtol=1e-6,
        atol=1e-6,
        max_steps=4096,
    )
    return jnp.moveaxis(jnp.where(solution.ok, solution.ys, jnp.nan), 0, 1)


def recurrent(
    model: Dynamics, y0: Float[Array, "batch dim"], ts: Float[Array, " times"]
) -> Float[Array, "batch times dim"]:
    """The baseline's states at common times."""
    return model.rnn(y0, jnp.broadcast_to(ts, (len(y0), len(ts))))


def build(starts: Any, *, width: int, depth: int, seed: int) -> Dynamics:
    """A model with weights drawn from `seed` in float32."""
    return Dynamics(jnp.asarray(starts), width, depth, rngs=nnx.Rngs(seed))


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


def _masked_mean(found: Array, truth: Array, mask: Array) -> Float[Array, ""]:
    error = found - known(truth, mask)
    validate.shape("mask", mask, error.shape)
    return jnp.sum(mask * error**2) / jnp.maximum(jnp.sum(mask), 1)
