"""One solve of two numbers: predator and prey, where all time is what surrounds the field.

`dx/dt = 1.5 x - x y`, `dy/dt = x y - 3 y` from (1, 1), t = 0 to 10, dopri5 with rtol = atol = 1e-8
in float64, which is scipy's only dtype. JAX's is one compiled program; torchdiffeq and scipy's
`solve_ivp` evaluate the field from Python.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torchdiffeq
from scipy.integrate import RK45, solve_ivp

from experiments.speed.counted import CountedField
from jax_node.solve import solve

SIDES = ("jax", "torch", "scipy")
T1, TOLERANCE, MAX_STEPS = 10.0, 1e-8, 1024


def make_call(side: str, *, gradient: bool) -> Callable[[], dict[str, float]]:
    """The solve of one of `SIDES`; there is none with a gradient.

    Raises:
        ValueError: a gradient was asked for.
    """
    if gradient:
        raise ValueError("the solve of two states has no side with a gradient")
    return {"jax": _jax, "torch": _torchdiffeq, "scipy": _scipy}[side]()


def _jax() -> Callable[[], dict[str, float]]:
    field = lambda t, y, args: jnp.stack([1.5 * y[0] - y[0] * y[1], y[0] * y[1] - 3 * y[1]])
    run = jax.jit(
        lambda y0, ts: solve(
            field, y0, ts, solver="dopri5", rtol=TOLERANCE, atol=TOLERANCE, max_steps=MAX_STEPS
        )
    )

    def call() -> dict[str, float]:
        with jax.enable_x64(True):
            solution = jax.block_until_ready(run(jnp.ones(2), jnp.array([0.0, T1])))
        return {
            "nfe_forward": float(solution.nfe),
            "steps": float(solution.accepted),
            "rejected": float(solution.rejected),
        }

    return call


def _torchdiffeq() -> Callable[[], dict[str, float]]:
    class Field(CountedField):
        def derivative(self, y: torch.Tensor) -> torch.Tensor:
            return torch.stack([1.5 * y[0] - y[0] * y[1], y[0] * y[1] - 3 * y[1]])

    ts = torch.tensor([0.0, T1], dtype=torch.float64)
    # It lands on the last time instead of stepping past it, as diffrax and scipy do.
    options = {"step_t": ts[1:]}

    def call() -> dict[str, float]:
        field = Field()
        y0 = torch.ones(2, dtype=torch.float64)
        with torch.no_grad():
            torchdiffeq.odeint(
                field, y0, ts, rtol=TOLERANCE, atol=TOLERANCE, method="dopri5", options=options
            )
        return {"nfe_forward": field.nfe, "steps": field.accepted, "rejected": field.rejected}

    return call


def _scipy() -> Callable[[], dict[str, float]]:
    field = lambda t, y: np.array([1.5 * y[0] - y[0] * y[1], y[0] * y[1] - 3 * y[1]])
    stages = RK45.n_stages

    def call() -> dict[str, float]:
        solution = solve_ivp(
            field, (0.0, T1), np.ones(2), method="RK45", rtol=TOLERANCE, atol=TOLERANCE
        )
        steps = len(solution.t) - 1
        attempts = (solution.nfev - 2) // stages  # two evaluations choose the first step
        return {"nfe_forward": solution.nfev, "steps": steps, "rejected": attempts - steps}

    return call
