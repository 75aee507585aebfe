"""What an adaptive Adams solve carries from step to step, and what it measures errors with."""

from __future__ import annotations

from typing import Any

import equinox as eqx
from diffrax._root_finder import use_stepsize_tol
from jaxtyping import Array, Bool, Float, Inexact, Int, PyTree


class Tolerances(eqx.Module):
    """What the solver measures errors with; by default what the step size controller does."""

    rtol: Any = use_stepsize_tol
    atol: Any = use_stepsize_tol
    norm: Any = use_stepsize_tol


class AdamsState(eqx.Module):
    """Solver state of `Adams`, at the start of a step.

    The derivatives of the last `count` steps are in `derivatives`, taken at `offsets` from now, the
    latest in place `slot`; `order` is the predictor's for the next step, which is at least
    `expected` long unless one is rejected.

    Over the whole solve: `nfe` counts evaluations of the vector field (but for rejected steps, of
    which the controller knows: see `statistics`), `highest_order` is the predictor's, and
    `contraction` the largest rate at which another iteration of the corrector would have converged
    (step size times Lipschitz constant times the weight of the new derivative).
    """

    derivatives: PyTree[Inexact[Array, "slots ..."]]
    offsets: Float[Array, " slots"]
    slot: Int[Array, ""]
    count: Int[Array, ""]
    order: Int[Array, ""]
    starting: Bool[Array, ""]
    expected: Float[Array, ""]
    nfe: Int[Array, ""]
    highest_order: Int[Array, ""]
    contraction: Float[Array, ""]
