"""A plain and an augmented Neural ODE that classify points; torch_node/augmented.py is the twin.

Trajectories of an ODE never cross, so a flow cannot pull what is inside a ring through it. With
further components that start at 0 (ANODE; Dupont, Doucet and Teh 2019) there is a way around.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

from jax_node import validate
from jax_node.learner import Learner
from jax_node.mlp import MLP, Linear
from jax_node.solve import Solution, solve

Points = Float[Array, "batch dim"]


class Classifier(nnx.Module):
    """Points with `extra` zeros, moved by a field from t = 0 to 1, then a linear layer."""

    def __init__(self, dim: int, extra: int, width: int, *, rngs: nnx.Rngs):
        self.extra = extra
        self.field = MLP((dim + extra, width, width, dim + extra), rngs=rngs)
        self.read = Linear(dim + extra, 1, rngs=rngs)

    def move(self, x: Points, ts: Float[Array, " times"], **options) -> Solution:
        """The states at `ts`, `[times, batch, dim + extra]`, by `solve` with these options."""
        graph, weights = nnx.split(self.field)
        field = lambda t, y, weights: nnx.merge(graph, weights)(y)
        y0 = jnp.concatenate([x, jnp.zeros((len(x), self.extra), x.dtype)], axis=1)
        return solve(field, y0, ts, weights, **options)

    def __call__(self, x: Points, **options) -> tuple[Float[Array, " batch"], Solution]:
        """Logits of the second class, and the solve."""
        solution = self.move(x, jnp.array([0.0, 1.0], x.dtype), **options)
        return self.read(solution.ys[-1])[:, 0], solution


class Pair(nnx.Module):
    """The same classifier without and with further components."""

    def __init__(self, dim: int, extra: int, width: int, *, rngs: nnx.Rngs):
        self.plain = Classifier(dim, 0, width, rngs=rngs)
        self.augmented = Classifier(dim, extra, width, rngs=rngs)


def loss(
    model: Pair, batch: Mapping[str, Array], *, steps: int
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Sum of both cross-entropies for `x` and `label` (0 or 1); solved by rk4 in `steps` steps.

    ValueError for labels that are not `[batch]`.
    """
    parts = {}
    for name, one in (("plain", model.plain), ("augmented", model.augmented)):
        logit, _ = one(batch["x"], solver="rk4", adjoint="direct", step_size=1 / steps)
        validate.shape("label", batch["label"], logit.shape)
        parts[name] = optax.sigmoid_binary_cross_entropy(logit, batch["label"]).mean()
    return parts["plain"] + parts["augmented"], parts


def evaluate(model: Pair, x: Points) -> tuple[Array, Array, Array, Array]:
    """Logits of both by dopri5 at 1e-5, then the NFE of both; NaN if a solve fails."""
    found = [
        one(x, solver="dopri5", rtol=1e-5, atol=1e-5, max_steps=1024)
        for one in (model.plain, model.augmented)
    ]
    logits = [jnp.where(solution.ok, logit, jnp.nan) for logit, solution in found]
    return logits[0], logits[1], found[0][1].nfe, found[1][1].nfe


def paths(model: Pair, x: Points, ts: Float[Array, " times"]) -> tuple[Array, Array]:
    """States of both on their way, by dopri5 at 1e-5."""
    options = {"solver": "dopri5", "rtol": 1e-5, "atol": 1e-5, "max_steps": 1024}
    return model.plain.move(x, ts, **options).ys, model.augmented.move(x, ts, **options).ys


def learner(
    dim: int, *, extra: int, width: int, steps: int, seed: int, precision: str, device: str
) -> Learner:
    """Both models and their loss, ready to train."""
    model = Pair(dim, extra, width, rngs=nnx.Rngs(seed))
    objective = lambda model, batch, tally: loss(model, batch, steps=steps)
    return Learner(model, objective, precision=precision, device=device)
