"""Continuous normalising flows, flow matching, and a discrete flow; torch_node/cnf.py is the twin.

A field moves noise at t = 0 to data at t = 1. The log-density follows from the trace of its
Jacobian along the way (paper, theorem 1): `d log p / dt = -tr(df/dy)`.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jax_node import validate
from jax_node.learner import Learner
from jax_node.mlp import MLP
from jax_node.solve import solve

Points = Float[Array, "batch dim"]
LogDensity = Float[Array, " batch"]


class Velocity(nnx.Module):
    """The field `f(t, y)`: a tanh network of `[y, t]`. ValueError for points of another `dim`."""

    def __init__(self, dim: int, width: int, *, rngs: nnx.Rngs):
        self.dim = dim
        self.net = MLP((dim + 1, width, width, dim), rngs=rngs)

    def __call__(self, t: Float[Array, "..."], y: Points) -> Points:
        """Velocities at one time, or at a time for each point."""
        _check(y, self.dim)
        column = jnp.broadcast_to(jnp.reshape(t, (-1, 1)), (len(y), 1)).astype(y.dtype)
        return self.net(jnp.concatenate([y, column], axis=1))


class Coupling(nnx.Module):
    """The discrete baseline: affine coupling layers (RealNVP, Dinh et al. 2017).

    From data to noise each layer scales and shifts one half of the components by functions of the
    other; the halves take turns. ValueError for a `dim` below 2, and for points of another.
    """

    def __init__(self, dim: int, width: int, layers: int, *, rngs: nnx.Rngs):
        if dim < 2:
            raise ValueError(f"`dim` is {dim}: a coupling flow has two halves, give at least 2")
        self.dim = dim
        halves = (dim // 2, dim - dim // 2)
        self.nets = nnx.List(
            [
                MLP((halves[i % 2], width, width, 2 * halves[1 - i % 2]), rngs=rngs)
                for i in range(layers)
            ]
        )

    def __call__(self, x: Points) -> tuple[Points, LogDensity]:
        """Noise, and the log-determinant of the map to it."""
        _check(x, self.dim)
        cut, total = x.shape[1] // 2, jnp.zeros(len(x), x.dtype)
        parts = [x[:, :cut], x[:, cut:]]
        for i, net in enumerate(self.nets):
            scale, shift = jnp.split(net(parts[i % 2]), 2, axis=1)
            scale = 2 * jnp.tanh(scale)  # bounded, so that no layer explodes
            parts[1 - i % 2] = parts[1 - i % 2] * jnp.exp(scale) + shift
            total = total + scale.sum(1)
        return jnp.concatenate(parts, axis=1), total


class Flows(nnx.Module):
    """The same field twice, for likelihood and for flow matching, and the discrete flow."""

    def __init__(self, dim: int, width: int, layers: int, *, rngs: nnx.Rngs):
        self.cnf = Velocity(dim, width, rngs=rngs)
        self.matching = Velocity(dim, width, rngs=rngs)
        self.coupling = Coupling(dim, width, layers, rngs=rngs)


def normal(x: Points) -> LogDensity:
    """Log-density of the standard normal."""
    return -0.5 * jnp.sum(x**2, axis=1) - 0.5 * x.shape[1] * jnp.log(2 * jnp.pi)


def log_density(
    velocity: Velocity,
    x: Points,
    probe: Points | None = None,
    *,
    solver: str = "dopri5",
    step_size: float | None = None,
    tolerance: float = 1e-5,
) -> tuple[LogDensity, Points]:
    """Log-density at `x`, and the noise that `x` comes from, by solving from t = 1 to 0.

    Without a `probe` the trace is exact, by one Jacobian-vector product for each dimension; with
    probes of +-1 it is Hutchinson's estimate `v . (df/dy) v`, the same probe all the way as in
    FFJORD (Grathwohl et al. 2019). A solve that fails gives NaN.

    Raises:
        ValueError: `x` is no batch of points of the field's dimension, or `probe` of other shape.
    """
    _check(x, velocity.dim)
    if probe is not None:
        validate.shape("probe", probe, x.shape)
    graph, weights = nnx.split(velocity)

    def augmented(t, state, args):
        y, _ = state
        weights, probe = args
        f = lambda y: nnx.merge(graph, weights)(t, y)
        if probe is None:
            out, pushed = (
                f(y),
                [
                    jax.jvp(f, (y,), (jnp.zeros_like(y).at[:, i].set(1.0),))[1][:, i]
                    for i in range(y.shape[1])
                ],
            )
            return out, sum(pushed)
        out, pushed = jax.jvp(f, (y,), (probe,))
        return out, jnp.sum(probe * pushed, axis=1)

    solution = solve(
        augmented,
        (x, jnp.zeros(len(x), x.dtype)),
        jnp.array([1.0, 0.0], x.dtype),
        (weights, probe),
        solver=solver,
        adjoint="direct",
        rtol=tolerance,
        atol=tolerance,
        step_size=step_size,
        max_steps=256,
    )
    noise, trace = jax.tree.map(lambda leaf: leaf[-1], solution.ys)
    # The state ran backwards: `trace` is minus the integral of the trace from 0 to 1.
    return normal(noise) + jnp.where(solution.ok, trace, jnp.nan), noise


def transport(
    velocity: Velocity, y: Points, ts: Float[Array, " times"], tolerance: float = 1e-5
) -> Float[Array, "times batch dim"]:
    """Points moved from time `ts[0]` to every time by dopri5; NaN if the solve fails."""
    graph, weights = nnx.split(velocity)
    field = lambda t, y, weights: nnx.merge(graph, weights)(t, y)
    solution = solve(
        field, y, ts, weights, solver="dopri5", rtol=tolerance, atol=tolerance, max_steps=1024
    )
    return jnp.where(solution.ok, solution.ys, jnp.nan)


def discrete_log_density(
    flow: Callable[[Points], tuple[Points, LogDensity]], x: Points
) -> LogDensity:
    """Log-density at `x` of a discrete flow, which gives the noise and its log-determinant."""
    noise, determinant = flow(x)
    return normal(noise) + determinant


def matching_loss(velocity: Velocity, batch: Mapping[str, Array]) -> Float[Array, ""]:
    """Flow matching (Lipman et al. 2023): it asks for `x - noise` at `(1 - t) noise + t x`.

    ValueError if `x` and `noise` are not alike `[batch, dim]`, and `t` `[batch]`.
    """
    x, noise, t = batch["x"], batch["noise"], batch["t"]
    validate.shape("noise", noise, x.shape)
    validate.shape("t", t, x.shape[:1])
    t = t[:, None]
    found = velocity(batch["t"], (1 - t) * noise + t * x)
    return jnp.mean((found - (x - noise)) ** 2)


def loss(
    model: Flows, batch: Mapping[str, Array], *, trace: str, steps: int
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Sum of three losses that share no parameter.

    Negative log-likelihoods of the continuous flow (rk4 in `steps` steps) and of the discrete one,
    and `matching_loss`.

    Args:
        model: what is trained.
        batch: `x`, `noise`, `probe` of +-1, all `[batch, dim]`, and `t` `[batch]` in [0, 1].
        trace: `exact` or `hutchinson`.
        steps: of the solver in training.
    """
    probe = batch["probe"] if trace == "hutchinson" else None
    logp, _ = log_density(model.cnf, batch["x"], probe, solver="rk4", step_size=1 / steps)
    parts = {
        "cnf": -logp.mean(),
        "coupling": -discrete_log_density(model.coupling, batch["x"]).mean(),
        "matching": matching_loss(model.matching, batch),
    }
    return parts["cnf"] + parts["coupling"] + parts["matching"], parts


def evaluate(model: Flows, x: Points) -> tuple[LogDensity, LogDensity, LogDensity]:
    """Log-densities with the exact trace: continuous flow, flow matching, discrete flow."""
    continuous = [log_density(flow, x)[0] for flow in (model.cnf, model.matching)]
    return continuous[0], continuous[1], discrete_log_density(model.coupling, x)


def generate(model: Flows, noise: Points, ts: Float[Array, " times"]) -> tuple[Array, Array]:
    """Noise moved to data by both continuous flows, at the times on the way."""
    return transport(model.cnf, noise, ts), transport(model.matching, noise, ts)


def round_trip(model: Flows, x: Points, tolerance: float = 1e-5) -> Points:
    """Data moved to noise and back by the continuous flow."""
    _, noise = log_density(model.cnf, x, tolerance=tolerance)
    return transport(model.cnf, noise, jnp.array([0.0, 1.0], x.dtype), tolerance)[-1]


def build(dim: int, *, width: int, layers: int, seed: int) -> Flows:
    """A model with weights drawn from `seed` in float32."""
    return Flows(dim, width, layers, rngs=nnx.Rngs(seed))


def _check(x: Array, dim: int) -> None:
    """Refuse what would be cut or spread: halves of another width broadcast."""
    if x.ndim != 2 or x.shape[1] != dim or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"the points are {x.dtype}{list(x.shape)}: give floats [batch, {dim}] to this flow"
        )


def learner(
    dim: int,
    *,
    width: int,
    layers: int,
    seed: int,
    trace: str,
    steps: int,
    precision: str,
    device: str,
) -> Learner:
    """The model and its loss, ready to train."""
    objective = lambda model, batch, tally: loss(model, batch, trace=trace, steps=steps)
    model = build(dim, width=width, layers=layers, seed=seed)
    return Learner(model, objective, precision=precision, device=device)
