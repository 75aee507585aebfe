"""What an adaptive Adams solve carries from step to step."""

from __future__ import annotations

import equinox as eqx
from jaxtyping import Array, Bool, Float, Inexact, Int, PyTree


class AdamsState(eqx.Module):
    """Solver state of `Adams`, at the start of a step.

    `differences` are the modified divided differences phi_j (see `newton`) of the derivatives taken
    at `offsets` from now, of which the latest `count` are in use; `order` is the predictor's for
    the next step, and `step` the size of the last.

    Over the whole solve: `nfe` counts evaluations of the vector field (but for rejected steps, of
    which the controller knows: see `statistics`), `highest_order` is the predictor's, and
    `contraction` the largest rate at which another iteration of the corrector would have converged
    (step size times Lipschitz constant times the weight of the new derivative).
    """

    differences: PyTree[Inexact[Array, "slots ..."]]
    offsets: Float[Array, " slots"]
    count: Int[Array, ""]
    order: Int[Array, ""]
    starting: Bool[Array, ""]
    step: Float[Array, ""]
    nfe: Int[Array, ""]
    highest_order: Int[Array, ""]
    contraction: Float[Array, ""]
