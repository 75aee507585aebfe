"""Latent ODEs for time series observed at irregular times; see jax_node/latent.py."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from torch_node.irregular import known, solve_at
from torch_node.learner import Learner
from torch_node.mlp import GRU, MLP
from torch_node.validate import check_shape

Times = Float[Tensor, "batch times"]
Values = Float[Tensor, "batch times channels"]
Codes = Float[Tensor, "batch latent"]
# Times and values that are asked for.
Asked = Float[Tensor, "batch asked"]
Answer = Float[Tensor, "batch asked channels"]


class Encoder(nn.Module):
    """A GRU that runs backwards over the observations: mean and log-variance of q(z0).

    It is told the gap to the next observation in its order. With evolve its state instead moves
    by an ODE of its own, a step of Euler in each gap (ODE-RNN: Rubanova, Chen, Duvenaud 2019).
    """

    def __init__(self, channels: int, latent: int, hidden: int, width: int, evolve: bool) -> None:
        super().__init__()
        self.hidden, self.evolve = hidden, evolve
        self.gru = GRU(2 * channels + (not evolve), hidden)
        if evolve:
            self.field = MLP((hidden, width, hidden))
        self.leave = nn.Linear(hidden, 2 * latent)

    def forward(self, times: Times, values: Values, mask: Values) -> tuple[Codes, Codes]:
        """Mean and log-variance; values whose mask is 0 are not looked at.

        Raises ValueError for times that are not those of the values.
        """
        check_shape("times", times, values.shape[:2])
        seen = torch.cat([known(values, mask), mask], dim=2)
        gaps = times.diff(dim=1, prepend=torch.zeros_like(times[:, :1]))
        h = times.new_zeros(len(times), self.hidden)
        for k in reversed(range(times.shape[1])):
            x, t, gap = seen[:, k], times[:, k], gaps[:, k]
            new = self.gru(h, x if self.evolve else torch.cat([x, gap[:, None]], 1))
            h = torch.where(_any(x), new, h)
            if self.evolve:
                span = torch.stack([t, t - gap], dim=1)
                h = solve_at(lambda t, h: self.field(h), h, span, solver="euler")[:, 1]
        mean, log_variance = self.leave(h).chunk(2, dim=1)
        return mean, log_variance


class LatentODE(nn.Module):
    """Encoder, latent vector field f(z), decoder, and the noise of the observations, learnt."""

    def __init__(self, channels: int, latent: int, hidden: int, width: int, evolve: bool) -> None:
        super().__init__()
        self.encoder = Encoder(channels, latent, hidden, width, evolve)
        self.field = MLP((latent, width, latent), activation=nn.functional.elu)
        self.decoder = MLP((latent, width, channels))
        self.log_noise = nn.Parameter(torch.full((channels,), -1.0))

    def decode(self, z0: Codes, ts: Times, *, solver: str, substeps: int = 1) -> Values:
        """The data at ts, which grow (or fall) from 0 on, if the state at 0 is z0."""
        ts = torch.cat([torch.zeros_like(ts[:, :1]), ts], dim=1)
        zs = solve_at(lambda t, z: self.field(z), z0, ts, solver=solver, substeps=substeps)
        return self.decoder(zs[:, 1:])


class Forecaster(nn.Module):
    """The baseline: a GRU that predicts each observation from those before it, and the gap."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.gru = GRU(2 * channels + 1, hidden)
        self.leave = nn.Linear(hidden, channels)
        self.log_noise = nn.Parameter(torch.full((channels,), -1.0))

    def forward(
        self, times: Times, values: Values, mask: Values, next_time: Float[Tensor, " batch"]
    ) -> tuple[Values, Float[Tensor, "batch hidden"]]:
        """What is expected at each next time, the last of which is next_time; the last state."""
        seen = torch.cat([known(values, mask), mask], dim=2)
        gaps = times.diff(dim=1, append=next_time[:, None])
        h, expected = times.new_zeros(len(times), self.hidden), []
        for x, gap in zip(seen.unbind(1), gaps.unbind(1), strict=True):
            h = torch.where(_any(x), self.gru(h, torch.cat([x, gap[:, None]], 1)), h)
            expected.append(self.leave(h))
        return torch.stack(expected, dim=1), h


class Latent(nn.Module):
    """The latent ODE with both encoders, and the baseline; they share no parameter."""

    def __init__(self, channels: int, latent: int, hidden: int, width: int) -> None:
        super().__init__()
        self.rnn = LatentODE(channels, latent, hidden, width, False)
        self.ode_rnn = LatentODE(channels, latent, hidden, width, True)
        self.forecaster = Forecaster(channels, hidden)


def loss(
    model: Latent, batch: Mapping[str, Tensor], *, solver: str
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Sum of three losses in nats per observed value, as in jax_node/latent.py."""
    times, values, mask = batch["times"], batch["values"], batch["mask"]
    both = (("rnn", model.rnn), ("ode_rnn", model.ode_rnn))
    parts = {name: negative_elbo(part, batch, solver=solver) for name, part in both}
    expected, _ = model.forecaster(times, values, mask, times[:, -1])
    # The first observation of a series is not predicted.
    foreseen = mask[:, 1:] * mask[:, :-1].any(dim=2, keepdim=True)
    nll = _nll(expected[:, :-1], values[:, 1:], model.forecaster.log_noise, foreseen)
    parts["forecaster"] = nll / foreseen.sum().clamp(min=1)
    return torch.stack(list(parts.values())).sum(), parts


def negative_elbo(
    model: LatentODE, batch: Mapping[str, Tensor], *, solver: str
) -> Float[Tensor, ""]:
    """Negative evidence lower bound of one latent ODE, in nats per observed value; see `loss`."""
    times, values, mask = batch["times"], batch["values"], batch["mask"]
    mean, log_variance = model.encoder(times, values, mask)
    check_shape("noise", batch["noise"], mean.shape)
    z0 = mean + torch.exp(log_variance / 2) * batch["noise"]
    found = model.decode(z0, times, solver=solver)
    kl = 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum()
    nll = _nll(found, values, model.log_noise, mask)
    return (nll + batch["kl"] * kl) / mask.sum().clamp(min=1)


def encode(
    model: Latent, times: Times, values: Values, mask: Values
) -> tuple[Codes, Codes, Codes, Codes]:
    """Mean and log-variance of q(z0) by the RNN encoder, then by the ODE-RNN encoder."""
    observed = times, values, mask
    return *model.rnn.encoder(*observed), *model.ode_rnn.encoder(*observed)


def decode(model: Latent, z0: Codes, z0_ode_rnn: Codes, ask: Asked) -> tuple[Answer, Answer]:
    """Data at times ask of both latent ODEs, by rk4 in two steps from each to the next."""
    return (
        model.rnn.decode(z0, ask, solver="rk4", substeps=2),
        model.ode_rnn.decode(z0_ode_rnn, ask, solver="rk4", substeps=2),
    )


def forecast(model: Latent, times: Times, values: Values, mask: Values, ask: Asked) -> Answer:
    """The baseline's predictions at times after all observations, each fed in for the next."""
    expected, h = model.forecaster(times, values, mask, ask[:, 0])
    found = [expected[:, -1]]
    for gap in ask.diff(dim=1).unbind(1):
        inputs = torch.cat([found[-1], torch.ones_like(found[-1]), gap[:, None]], dim=1)
        h = model.forecaster.gru(h, inputs)
        found.append(model.forecaster.leave(h))
    return torch.stack(found, dim=1)


def noise(model: Latent) -> tuple[Tensor, Tensor, Tensor]:
    """Learnt standard deviations of the observations: both latent ODEs, and the baseline."""
    first, second, third = model.rnn, model.ode_rnn, model.forecaster
    return first.log_noise.exp(), second.log_noise.exp(), third.log_noise.exp()


def build(channels: int, *, latent: int, hidden: int, width: int, seed: int) -> Latent:
    """A model with weights drawn from `seed` in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Latent(channels, latent, hidden, width)


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


def _any(x: Float[Tensor, "batch inputs"]) -> Bool[Tensor, "batch 1"]:
    """Whether anything was observed, from [values, mask]."""
    return x[:, x.shape[1] // 2 :].any(dim=1, keepdim=True)


def _nll(
    found: Values, values: Values, log_noise: Float[Tensor, " channels"], mask: Values
) -> Float[Tensor, ""]:
    """Sum of the negative log-densities of normal errors, where the mask is 1."""
    standard = (found - known(values, mask)) * torch.exp(-log_noise)
    return (mask * (0.5 * standard**2 + log_noise + 0.5 * math.log(2 * math.pi))).sum()
