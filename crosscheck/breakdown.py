"""Where the adjoint method fails: a dissipative system, whose past cannot be reconstructed.

The adjoint method solves the state backwards from where the forward solve ended. For
y' = -k (y - cos t) errors shrink by e^(-k T) forwards, so they grow by e^(k T) backwards: from
k T of about 20 on the state at t0 is noise, and dL/dk = -int a (y - cos t) dt with it. The gradient
in y0 alone would not show it, since a' = k a does not depend on y.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import torch

from crosscheck import gradients
from crosscheck.check import Check, difference
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


def dissipative(rate: float) -> Problem:
    """y' = -k (y - cos t), y(0) = 0, which forgets its past at the rate k."""

    def in_jax(t, y, params):
        return -params["k"] * (y - jnp.cos(t))

    def in_torch(t, y, params):
        return -params["k"] * (y - torch.cos(t))

    def in_numpy(t, y, params):
        return -params["k"][..., None] * (y - np.cos(t)[..., None])

    params = {"k": np.array([rate])}
    return Problem("dissipative", in_jax, in_torch, params, np.zeros(1), TS, numpy=in_numpy)


def measure(rates: tuple[float, ...] = RATES) -> Breakdown:
    """Gradients by every method with dopri5 at rtol = atol = 1e-6 and each rate."""
    errors: dict[str, list[float]] = {}
    failures = []
    # One problem for all rates, so that JAX compiles once.
    base = dissipative(1.0)
    loss = cotangent(base, TS)
    for rate in rates:
        object.__setattr__(base, "params", {"k": np.array([rate])})
        exact = gradients.reference_gradient(base, TS)
        for side, adjoint in gradients.methods("dopri5"):
            name = f"{side} {adjoint}"
            try:
                run = gradients.SIDES[side].run(
                    base, "dopri5", adjoint, TOLERANCE, ts=TS, cotangent=loss, max_steps=2048
                )
                assert run.gradients is not None
                error = difference({"k": run.gradients["k"]}, {"k": exact["k"]}).error
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
        if "adjoint" in name:
            lines.append(
                Check(
                    "adjoint breakdown",
                    f"dissipative, k T = {found.rates[-1]:g}, rtol 1e-6",
                    name,
                    "exact",
                    float(errors[-1]),
                    1.0,
                    "backward errors grow by e^(k T): physics; a gradient that did not fail here "
                    "would not be the adjoint's",
                    at_least=True,
                )
            )
        else:
            lines.append(
                Check(
                    "adjoint breakdown",
                    f"dissipative, k T up to {found.rates[-1]:g}, rtol 1e-6",
                    name,
                    "exact",
                    float(np.max(errors)),
                    1e-2,
                    "discretise-then-optimise needs no past: 1e4 rtol for the stiffest",
                )
            )
    return lines
