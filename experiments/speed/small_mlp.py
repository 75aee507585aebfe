"""The small network of diffrax's own comparison (its benchmarks/small_neural_ode.py), all sides.

`dy/dt = tanh(W2 softplus(W1 y + b1) + b2)` with 4 states and 32 hidden units, 64 trajectories
from t = 0 to 100, dopri5 with rtol = atol = 1e-6 in float32; the loss is the sum of all that is
saved. Here an interpreter between evaluations is what costs. torchdiffeq and torchode are called
directly, without `torch_node.solve`, whose bookkeeping would count against them.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch._functorch.config
import torchdiffeq
from flax import nnx
from torch import Tensor

from crosscheck import weights
from experiments.speed.counted import CountedField
from jax_node.adjoint import Backward
from jax_node.mlp import MLP
from jax_node.solve import solve
from torch_node import mlp as torch_mlp

SIDES = (
    "jax direct", "torch direct", "jax checkpoint", "jax adjoint", "torch adjoint",
    "compiled direct", "compiled adjoint", "torchode direct", "jax per-sample",
)  # fmt: skip
SIDES_WITHOUT_GRADIENT = ("jax", "torch", "compiled", "torchode", "jax per-sample")
SIZES, BATCH, T1, TOLERANCE, MAX_STEPS = (4, 32, 4), 64, 100.0, 1e-6, 256


def make_call(side: str, *, gradient: bool) -> Callable[[], dict[str, float]]:
    """The work of one side: a solve, with the gradient in all weights and y0 if asked for."""
    framework, method = f"{side} direct".split(" ")[:2]
    if framework == "jax":
        return _jax(method, gradient)
    if framework == "torchode":
        return _torchode(gradient)
    return _torchdiffeq(method, gradient, compiled=framework == "compiled")


def _network() -> MLP:
    return MLP(SIZES, rngs=nnx.Rngs(0), activation=jax.nn.softplus)


def _y0() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(BATCH, SIZES[0])).astype(np.float32)


def _jax(method: str, gradient: bool) -> Callable[[], dict[str, float]]:
    graph, params = nnx.split(_network())
    field = lambda t, y, params: jnp.tanh(nnx.merge(graph, params)(y))
    adjoint, ts = "direct" if method == "per-sample" else method, jnp.array([0.0, T1])

    def loss(params, y0, backward):
        integrate = lambda y: solve(
            field, y, ts, params, solver="dopri5", adjoint=adjoint, rtol=TOLERANCE, atol=TOLERANCE,
            max_steps=MAX_STEPS, backward=backward,
        )  # fmt: skip
        solution = jax.vmap(integrate)(y0) if method == "per-sample" else integrate(y0)
        return solution.ys.sum(), solution

    run = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True) if gradient else loss)
    y0 = jnp.asarray(_y0())

    def call() -> dict[str, float]:
        out = jax.block_until_ready(run(params, y0, Backward.zeros()))
        (_, solution), (_, _, backward) = out if gradient else (out, (0, 0, Backward.zeros()))
        return {
            "nfe_forward": float(jnp.mean(solution.nfe)),
            "nfe_backward": float(backward.nfe) / (BATCH if method == "per-sample" else 1),
            "steps": float(jnp.mean(solution.accepted)),
            "rejected": float(jnp.mean(solution.rejected)),
        }

    return call


class _Field(CountedField):
    """The network as torchdiffeq wants it; only the network is compiled."""

    def __init__(self, *, compiled: bool) -> None:
        super().__init__()
        self.network = torch_mlp.MLP(SIZES, activation=torch.nn.functional.softplus)
        weights.into_torch(self.network, weights.to_torch(weights.of_jax(_network())))
        if compiled:
            # torchdiffeq's adjoint differentiates with retain_graph.
            torch._functorch.config.donated_buffer = False
            self.network.compile()

    def derivative(self, y: Tensor) -> Tensor:
        return torch.tanh(self.network(y))


def _torchdiffeq(method: str, gradient: bool, *, compiled: bool) -> Callable[[], dict[str, float]]:
    field = _Field(compiled=compiled)
    ts = torch.tensor([0.0, T1])
    # Both land on the last time instead of stepping past it, as diffrax does.
    options = {"step_t": ts[1:]}
    backwards = {"adjoint_options": {"step_t": ts[:1]}} if method == "adjoint" else {}
    odeint = torchdiffeq.odeint_adjoint if method == "adjoint" else torchdiffeq.odeint

    def call() -> dict[str, float]:
        field.start_counting()
        with torch.set_grad_enabled(gradient):
            y0 = torch.tensor(_y0(), requires_grad=gradient)
            ys = odeint(
                field, y0, ts, rtol=TOLERANCE, atol=TOLERANCE, method="dopri5", options=options,
                **backwards,
            )  # fmt: skip
            forward = field.nfe
            if gradient:
                field.zero_grad()
                ys.sum().backward()
        return {
            "nfe_forward": forward,
            "nfe_backward": field.nfe - forward,
            "steps": field.accepted,
            "rejected": field.rejected,
        }

    return call


def _torchode(gradient: bool) -> Callable[[], dict[str, float]]:
    import torchode  # optional: see contests.missing

    field = _Field(compiled=False)
    term = torchode.ODETerm(field)
    solver = torchode.AutoDiffAdjoint(
        torchode.Dopri5(term=term), torchode.IntegralController(TOLERANCE, TOLERANCE, term=term)
    )

    def call() -> dict[str, float]:
        with torch.set_grad_enabled(gradient):
            y0 = torch.tensor(_y0(), requires_grad=gradient)
            ts = torch.tensor([0.0, T1]).repeat(BATCH, 1)
            solution = solver.solve(torchode.InitialValueProblem(y0=y0, t_eval=ts))
            if gradient:
                field.zero_grad()
                solution.ys.sum().backward()
        steps, accepted = (solution.stats[key].float() for key in ("n_steps", "n_accepted"))
        return {
            "nfe_forward": solution.stats["n_f_evals"].float().mean().item(),
            "nfe_backward": 0.0,
            "steps": accepted.mean().item(),
            "rejected": (steps - accepted).mean().item(),
        }

    return call
