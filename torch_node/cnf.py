"""Continuous normalising flows, flow matching, and a discrete flow; see jax_node/cnf.py."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torch_node.learner import Learner
from torch_node.mlp import MLP
from torch_node.solve import SolveError, solve
from torch_node.validate import check_shape

Points = Float[Tensor, "batch dim"]
LogDensity = Float[Tensor, " batch"]


class Velocity(nn.Module):
    """The field f(t, y): a tanh network of [y, t]. ValueError for points of another dim."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.dim = dim
        self.net = MLP((dim + 1, width, width, dim))

    def forward(self, t: Float[Tensor, "..."], y: Points) -> Points:
        """Velocities at one time, or at a time for each point."""
        _check(y, self.dim)
        column = t.reshape(-1, 1).to(y.dtype).expand(len(y), 1)
        return self.net(torch.cat([y, column], dim=1))


class Coupling(nn.Module):
    """The discrete baseline: affine coupling layers (RealNVP, Dinh et al. 2017).

    ValueError for a dim below 2, and for points of another.
    """

    def __init__(self, dim: int, width: int, layers: int) -> None:
        super().__init__()
        if dim < 2:
            raise ValueError(f"`dim` is {dim}; at least 2 expected, for a coupling flow's halves")
        self.dim = dim
        halves = (dim // 2, dim - dim // 2)
        self.nets = nn.ModuleList(
            [MLP((halves[i % 2], width, width, 2 * halves[1 - i % 2])) for i in range(layers)]
        )

    def forward(self, x: Points) -> tuple[Points, LogDensity]:
        """Noise, and the log-determinant of the map to it."""
        _check(x, self.dim)
        cut, total = x.shape[1] // 2, x.new_zeros(len(x))
        parts = [x[:, :cut], x[:, cut:]]
        for i, net in enumerate(self.nets):
            scale, shift = net(parts[i % 2]).chunk(2, dim=1)
            scale = 2 * torch.tanh(scale)
            parts[1 - i % 2] = parts[1 - i % 2] * torch.exp(scale) + shift
            total = total + scale.sum(1)
        return torch.cat(parts, dim=1), total


class Flows(nn.Module):
    """The same field twice, for likelihood and for flow matching, and the discrete flow."""

    def __init__(self, dim: int, width: int, layers: int) -> None:
        super().__init__()
        self.cnf, self.matching = Velocity(dim, width), Velocity(dim, width)
        self.coupling = Coupling(dim, width, layers)


def normal(x: Points) -> LogDensity:
    """Log-density of the standard normal."""
    return -0.5 * (x**2).sum(1) - 0.5 * x.shape[1] * math.log(2 * math.pi)


def log_density(
    velocity: Velocity,
    x: Points,
    probe: Points | None = None,
    *,
    solver: str = "dopri5",
    step_size: float | None = None,
    tolerance: float = 1e-5,
) -> tuple[LogDensity, Points]:
    """Log-density at x, and the noise that x comes from; as in jax_node/cnf.py.

    NaN if the solve fails. Raises ValueError if x is no batch of points of the field's dimension,
    or probe of other shape.
    """
    _check(x, velocity.dim)
    if probe is not None:
        check_shape("probe", probe, x.shape)
    dim = x.shape[1]

    def augmented(t: Tensor, state: Tensor) -> Tensor:
        with torch.enable_grad():
            y = state[:, :dim]
            y = y if y.requires_grad else y.requires_grad_()
            out = velocity(t, y)
            ask = functools.partial(torch.autograd.grad, inputs=y, create_graph=True)
            if probe is None:
                diagonal = [ask(out[:, i].sum())[0][:, i] for i in range(dim)]
                trace = torch.stack(diagonal).sum(0)
            else:
                trace = (ask((out * probe).sum())[0] * probe).sum(1)
        return torch.cat([out, trace[:, None]], dim=1)

    try:
        solution = solve(
            augmented,
            torch.cat([x, x.new_zeros(len(x), 1)], dim=1),
            torch.tensor([1.0, 0.0], dtype=x.dtype, device=x.device),
            solver=solver,
            adjoint="direct",
            rtol=tolerance,
            atol=tolerance,
            step_size=step_size,
            max_steps=256,
        )
    except SolveError:
        return torch.full_like(x[:, 0], torch.nan), torch.full_like(x, torch.nan)
    last = solution.ys[-1]
    return normal(last[:, :dim]) + last[:, dim], last[:, :dim]


def transport(
    velocity: Velocity, y: Points, ts: Float[Tensor, " times"], tolerance: float = 1e-5
) -> Float[Tensor, "times batch dim"]:
    """Points moved from time ts[0] to every time by dopri5; NaN if the solve fails."""
    try:
        return solve(
            velocity,
            y,
            ts,
            solver="dopri5",
            adjoint="direct",
            rtol=tolerance,
            atol=tolerance,
            max_steps=1024,
        ).ys
    except SolveError:
        return y.new_full((len(ts), *y.shape), torch.nan)


def discrete_log_density(
    flow: Callable[[Points], tuple[Points, LogDensity]], x: Points
) -> LogDensity:
    """Log-density at x of a discrete flow, which gives the noise and its log-determinant."""
    noise, determinant = flow(x)
    return normal(noise) + determinant


def matching_loss(velocity: Velocity, batch: Mapping[str, Tensor]) -> Float[Tensor, ""]:
    """Flow matching (Lipman et al. 2023): it asks for x - noise at (1 - t) noise + t x.

    Raises ValueError if x and noise are not alike [batch, dim], and t [batch].
    """
    x, noise, t = batch["x"], batch["noise"], batch["t"]
    check_shape("noise", noise, x.shape)
    check_shape("t", t, x.shape[:1])
    t = t[:, None]
    found = velocity(batch["t"], (1 - t) * noise + t * x)
    return ((found - (x - noise)) ** 2).mean()


def loss(
    model: Flows, batch: Mapping[str, Tensor], *, trace: str, steps: int
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Sum of three losses that share no parameter, as in jax_node/cnf.py."""
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
    continuous = [log_density(flow, x)[0].detach() for flow in (model.cnf, model.matching)]
    return continuous[0], continuous[1], discrete_log_density(model.coupling, x)


def generate(
    model: Flows, noise: Points, ts: Float[Tensor, " times"]
) -> tuple[Float[Tensor, "times batch dim"], Float[Tensor, "times batch dim"]]:
    """Noise moved to data by both continuous flows, at the times on the way."""
    return transport(model.cnf, noise, ts), transport(model.matching, noise, ts)


def round_trip(model: Flows, x: Points, tolerance: float = 1e-5) -> Points:
    """Data moved to noise and back by the continuous flow."""
    noise = log_density(model.cnf, x, tolerance=tolerance)[1].detach()
    ts = torch.tensor([0.0, 1.0], dtype=x.dtype, device=x.device)
    return transport(model.cnf, noise, ts, tolerance)[-1]


def build(dim: int, *, width: int, layers: int, seed: int) -> Flows:
    """A model with weights drawn from `seed` in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Flows(dim, width, layers)


def _check(x: Tensor, dim: int) -> None:
    """Refuse what would be cut or spread: halves of another width broadcast."""
    if x.ndim != 2 or x.shape[1] != dim or not x.is_floating_point():
        raise ValueError(
            f"the points are {x.dtype} of shape {list(x.shape)}; floats [batch, {dim}] expected by "
            "this flow"
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
