"""Latent ODEs for time series observed at irregular times; torch_node/latent.py is the twin.

An encoder reads a series backwards in time and says what it believes of the latent state `z0` at
the start; `z' = f(z)` carries that state to any time, and a decoder to the data there. Trained by
the evidence lower bound (paper, section 5 and figure 6). All times count from the start, which is
0. A series with fewer observations than others has repeats of time 0 in front, with mask 0.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jax_node import validate
from jax_node.irregular import known, solve_at
from jax_node.learner import Learner
from jax_node.mlp import GRU, MLP, Linear

Times = Float[Array, "batch times"]
Values = Float[Array, "batch times channels"]
Codes = Float[Array, "batch latent"]
# Times and values that are asked for.
Asked = Float[Array, "batch asked"]
Answer = Float[Array, "batch asked channels"]


class Encoder(nnx.Module):
    """A GRU that runs backwards over the observations: mean and log-variance of `q(z0)`.

    It is told the gap to the next observation in its order. With `evolve` its state instead moves
    by an ODE of its own, a step of Euler in each gap (ODE-RNN: Rubanova, Chen, Duvenaud 2019).
    """

    def __init__(
        self, channels: int, latent: int, hidden: int, width: int, evolve: bool, *, rngs: nnx.Rngs
    ):
        self.hidden, self.evolve = hidden, evolve
        self.gru = GRU(2 * channels + (not evolve), hidden, rngs=rngs)
        if evolve:
            self.field = MLP((hidden, width, hidden), rngs=rngs)
        self.leave = Linear(hidden, 2 * latent, rngs=rngs)

    def __call__(self, times: Times, values: Values, mask: Values) -> tuple[Codes, Codes]:
        """Mean and log-variance; values whose mask is 0 are not looked at.

        ValueError for times that are not those of the values.
        """
        validate.shape("times", times, values.shape[:2])
        seen = jnp.concatenate([known(values, mask), mask], axis=2)
        gaps = jnp.diff(times, axis=1, prepend=jnp.zeros_like(times[:, :1]))
        graph, weights = nnx.split(self)

        def advance(h, observation):
            x, t, gap = observation
            cell = nnx.merge(graph, weights)
            new = cell.gru(h, x if cell.evolve else jnp.concatenate([x, gap[:, None]], 1))
            h = jnp.where(_any(x), new, h)
            if cell.evolve:
                field = lambda t, h, weights: nnx.merge(graph, weights).field(h)
                span = jnp.stack([t, t - gap], axis=1)
                h = solve_at(field, h, span, weights, solver="euler")[:, 1]
            return h, None

        start = jnp.zeros((len(times), self.hidden), times.dtype)
        order = jnp.moveaxis(seen, 1, 0), times.T, gaps.T
        h, _ = jax.lax.scan(advance, start, order, reverse=True)
        mean, log_variance = jnp.split(self.leave(h), 2, axis=1)
        return mean, log_variance


class LatentODE(nnx.Module):
    """Encoder, latent vector field `f(z)`, decoder, and the noise of the observations, learnt."""

    def __init__(
        self, channels: int, latent: int, hidden: int, width: int, evolve: bool, *, rngs: nnx.Rngs
    ):
        self.encoder = Encoder(channels, latent, hidden, width, evolve, rngs=rngs)
        self.field = MLP((latent, width, latent), rngs=rngs, activation=jax.nn.elu)
        self.decoder = MLP((latent, width, channels), rngs=rngs)
        self.log_noise = nnx.Param(jnp.full((channels,), -1.0, jnp.float32))

    def decode(self, z0: Codes, ts: Times, *, solver: str, substeps: int = 1) -> Values:
        """The data at `ts`, which grow (or fall) from 0 on, if the state at 0 is `z0`."""
        graph, weights = nnx.split(self.field)
        field = lambda t, z, weights: nnx.merge(graph, weights)(z)
        ts = jnp.concatenate([jnp.zeros_like(ts[:, :1]), ts], axis=1)
        zs = solve_at(field, z0, ts, weights, solver=solver, substeps=substeps)
        return self.decoder(zs[:, 1:])


class Forecaster(nnx.Module):
    """The baseline: a GRU that predicts each observation from those before it, and the gap."""

    def __init__(self, channels: int, hidden: int, *, rngs: nnx.Rngs):
        self.hidden = hidden
        self.gru = GRU(2 * channels + 1, hidden, rngs=rngs)
        self.leave = Linear(hidden, channels, rngs=rngs)
        self.log_noise = nnx.Param(jnp.full((channels,), -1.0, jnp.float32))

    def __call__(
        self, times: Times, values: Values, mask: Values, next_time: Float[Array, " batch"]
    ) -> tuple[Values, Float[Array, "batch hidden"]]:
        """What is expected at each next time, the last of which is `next_time`; the last state."""
        seen = jnp.concatenate([known(values, mask), mask], axis=2)
        gaps = jnp.diff(times, axis=1, append=next_time[:, None])

        def advance(h, observation):
            x, gap = observation
            h = jnp.where(_any(x), self.gru(h, jnp.concatenate([x, gap[:, None]], 1)), h)
            return h, self.leave(h)

        start = jnp.zeros((len(times), self.hidden), times.dtype)
        h, expected = jax.lax.scan(advance, start, (jnp.moveaxis(seen, 1, 0), gaps.T))
        return jnp.moveaxis(expected, 0, 1), h


class Latent(nnx.Module):
    """The latent ODE with both encoders, and the baseline; they share no parameter."""

    def __init__(self, channels: int, latent: int, hidden: int, width: int, *, rngs: nnx.Rngs):
        self.rnn = LatentODE(channels, latent, hidden, width, False, rngs=rngs)
        self.ode_rnn = LatentODE(channels, latent, hidden, width, True, rngs=rngs)
        self.forecaster = Forecaster(channels, hidden, rngs=rngs)


def loss(
    model: Latent, batch: Mapping[str, Array], *, solver: str
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Sum of three losses in nats per observed value: two negative ELBOs, and the baseline's.

    Args:
        model: what is trained.
        batch: `times` `[batch, times]`, `values` and `mask` `[batch, times, channels]`, standard
            normal `noise` `[batch, latent]`, and `kl`, the weight of the divergence.
        solver: a method of `irregular.solve_at`; one step between two observations.
    """
    times, values, mask = batch["times"], batch["values"], batch["mask"]
    both = (("rnn", model.rnn), ("ode_rnn", model.ode_rnn))
    parts = {name: negative_elbo(part, batch, solver=solver) for name, part in both}
    expected, _ = model.forecaster(times, values, mask, times[:, -1])
    # The first observation of a series is not predicted.
    before = mask[:, :-1].any(axis=2, keepdims=True).astype(mask.dtype)
    foreseen = mask[:, 1:] * before
    nll = _nll(expected[:, :-1], values[:, 1:], model.forecaster.log_noise[...], foreseen)
    parts["forecaster"] = nll / jnp.maximum(foreseen.sum(), 1)
    return sum(parts.values(), jnp.zeros((), times.dtype)), parts


def negative_elbo(model: LatentODE, batch: Mapping[str, Array], *, solver: str) -> Float[Array, ""]:
    """Negative evidence lower bound of one latent ODE, in nats per observed value; see `loss`."""
    times, values, mask = batch["times"], batch["values"], batch["mask"]
    mean, log_variance = model.encoder(times, values, mask)
    validate.shape("noise", batch["noise"], mean.shape)
    z0 = mean + jnp.exp(log_variance / 2) * batch["noise"]
    found = model.decode(z0, times, solver=solver)
    # The prior of z0 is the standard normal.
    kl = 0.5 * jnp.sum(jnp.exp(log_variance) + mean**2 - 1 - log_variance)
    nll = _nll(found, values, model.log_noise[...], mask)
    return (nll + batch["kl"] * kl) / jnp.maximum(mask.sum(), 1)


def encode(
    model: Latent, times: Times, values: Values, mask: Values
) -> tuple[Codes, Codes, Codes, Codes]:
    """Mean and log-variance of `q(z0)` by the RNN encoder, then by the ODE-RNN encoder."""
    observed = times, values, mask
    return *model.rnn.encoder(*observed), *model.ode_rnn.encoder(*observed)


def decode(model: Latent, z0: Codes, z0_ode_rnn: Codes, ask: Asked) -> tuple[Answer, Answer]:
    """Data at times `ask` of both latent ODEs, by rk4 in two steps from each to the next."""
    return (
        model.rnn.decode(z0, ask, solver="rk4", substeps=2),
        model.ode_rnn.decode(z0_ode_rnn, ask, solver="rk4", substeps=2),
    )


def forecast(model: Latent, times: Times, values: Values, mask: Values, ask: Asked) -> Answer:
    """The baseline's predictions at times after all observations, each fed in for the next."""
    expected, h = model.forecaster(times, values, mask, ask[:, 0])

    def advance(carry, gap):
        h, x = carry
        inputs = jnp.concatenate([x, jnp.ones_like(x), gap[:, None]], axis=1)
        h = model.forecaster.gru(h, inputs)
        x = model.forecaster.leave(h)
        return (h, x), x

    _, later = jax.lax.scan(advance, (h, expected[:, -1]), jnp.diff(ask, axis=1).T)
    return jnp.concatenate([expected[:, -1:], jnp.moveaxis(later, 0, 1)], axis=1)


def noise(model: Latent) -> tuple[Array, Array, Array]:
    """Learnt standard deviations of the observations: both latent ODEs, and the baseline."""
    deviation = lambda part: jnp.exp(part.log_noise[...])
    return deviation(model.rnn), deviation(model.ode_rnn), deviation(model.forecaster)


def build(channels: int, *, latent: int, hidden: int, width: int, seed: int) -> Latent:
    """A model with weights drawn from `seed` in float32."""
    return Latent(channels, latent, hidden, width, rngs=nnx.Rngs(seed))


def learner(
    channels: int,
    *,
    latent: int,
    hidden: int,
    width: int,
    seed: int,
    solver: str,
    precision: str,
    device: str,
) -> Learner:
    """The model and its loss, ready to train."""
    model = build(channels, latent=latent, hidden=hidden, width=width, seed=seed)
    objective = lambda model, batch, tally: loss(model, batch, solver=solver)
    return Learner(model, objective, precision=precision, device=device)


def _any(x: Float[Array, "batch inputs"]) -> Array:
    """Whether anything was observed, from `[values, mask]`."""
    return x[:, x.shape[1] // 2 :].any(axis=1, keepdims=True)


def _nll(
    found: Values, values: Values, log_noise: Float[Array, " channels"], mask: Values
) -> Float[Array, ""]:
    """Sum of the negative log-densities of normal errors, where the mask is 1."""
    log_noise = log_noise[None, None]
    standard = (found - known(values, mask)) * jnp.exp(-log_noise)
    return jnp.sum(mask * (0.5 * standard**2 + log_noise + 0.5 * jnp.log(2 * jnp.pi)))
