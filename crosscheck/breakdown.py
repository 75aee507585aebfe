"""Where the adjoint method fails: a dissipative system, whose past cannot be reconstructed.

The adjoint method solves the state backwards from where the forward solve ended. In

    u' = -k (u - cos t),    z' = u^2

errors of u shrink by e^(-k T) forwards, so they grow by e^(k T) backwards: from k T of about 15 on,
u near t0 is noise. z remembers what u was, so the adjoint of u is 2 u / k times that of z all the
way back, and the gradient takes the noise in. (Without z the adjoint of u would fade backwards as
fast as the noise grows, and nothing would show.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch

from crosscheck import gradients
from crosscheck.check import Check
from crosscheck.problem import Problem, cotangent
from jax_node.solve import SolveError as JaxSolveError
from torch_node.solve import SolveError as TorchSolveError

RATES = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0)
TOLERANCE = 1e-6
TS = np.array([0.0, 1.0])


@dataclass(frozen=True)
class Breakdown:
    """`errors[method][i]`: relative error of dL/dk at `rates[i]`; infinite where the solve failed.

    `predicted` is rtol e^(k T); `failures` are the messages of solves that gave up.
    """

    rates: tuple[float, ...]
    errors: Mapping[str, np.ndarray]
    predicted: np.ndarray
    failures: tuple[str, ...]


def _field(xp: Any) -> Callable[[Any, Any, Any], Any]:
    def field(t, y, params):
        u = y[..., 0]
        return xp.stack([-params["k"][..., 0] * (u - xp.cos(t)), u**2], -1)

    return field


IN_JAX, IN_TORCH, IN_NUMPY = map(_field, (jnp, torch, np))  # made once: JAX compiles each once


def dissipative(rate: float) -> Problem:
    """The system of this file at rate k, from u = z = 0."""
    params = {"k": np.array([rate])}
    return Problem("dissipative", IN_JAX, IN_TORCH, params, np.zeros(2), TS, numpy=IN_NUMPY)


def measure(rates: tuple[float, ...] = RATES, adjoints: tuple[str, ...] | None = None) -> Breakdown:
    """Gradients by every method (or `adjoints`) with dopri5 at rtol = atol = 1e-6, each rate."""
    errors: dict[str, list[float]] = {}
    failures = []
    for rate in rates:
        problem = dissipative(rate)
        loss = cotangent(problem, TS)
        exact = gradients.reference_gradient(problem, tuple(TS))
        for side, adjoint in gradients.methods("dopri5", adjoints):
            name = f"{side} {adjoint}"
            try:
                run = gradients.SIDES[side].run(
                    problem, "dopri5", adjoint, TOLERANCE, ts=TS, cotangent=loss, max_steps=2048
                )
                assert run.gradients is not None
                found, true = run.gradients["k"].item(), exact["k"].item()
                error = abs(found - true) / abs(true)
            except (JaxSolveError, TorchSolveError) as failure:
                failures.append(f"{name} at k = {rate:g}: {failure}")
                error = np.inf
            errors.setdefault(name, []).append(error)
    predicted = TOLERANCE * np.exp(np.array(rates))
    return Breakdown(
        rates, {name: np.array(e) for name, e in errors.items()}, predicted, tuple(failures)
    )


def checks(found: Breakdown) -> list[Check]:
    """Direct gradients hold at every rate; the adjoints' failure is reported, and must be seen."""
    lines = []
    for name, errors in found.errors.items():
        fails = "adjoint" in name
        reason = "discretise-then-optimise needs no past: 1e4 rtol for the stiffest"
        if fails:
            reason = (
                "backward errors grow by e^(k T): physics; a gradient that did not fail here would "
                "not be the adjoint's"
            )
        case = f"dissipative, k T {'=' if fails else 'up to'} {found.rates[-1]:g}, rtol 1e-6"
        value, limit = float(errors[-1] if fails else np.max(errors)), 1.0 if fails else 1e-2
        lines.append(
            Check("adjoint breakdown", case, name, "exact", value, limit, reason, at_least=fails)
        )
    return lines
