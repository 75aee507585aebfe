"""What a solve returns: the trajectory, what it cost, and why it failed if it did."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from jax_node import validate
from jax_node.failures import Cause, SolveError, failure


class Solution(NamedTuple):
    """A trajectory and what it cost.

    `ys` has the states, `[times, *state]` in every leaf, NaN where the solve did not get; `nfe`
    counts evaluations of the vector field in the forward solve, `accepted` steps taken, `rejected`
    steps tried and not taken, `nonconverged` steps of `implicit_adams` whose corrector did not
    converge; `t` is the time reached, `ok` whether that is the last time, with all states finite;
    `step` is the size of the last step tried, `cause` why it failed, a number of `failures.Cause`.
    """

    ys: PyTree
    nfe: Int[Array, ""]
    accepted: Int[Array, ""]
    rejected: Int[Array, ""]
    nonconverged: Int[Array, ""]
    t: Float[Array, ""]
    ok: Bool[Array, ""]
    step: Float[Array, ""]
    cause: Int[Array, ""]

    def check(self) -> "Solution":
        """Return the solution, or raise `SolveError` if it failed (outside `jit` only).

        Of solves under `vmap`, the first that failed is told of.
        """
        if not validate.known(self.ok):
            raise TypeError("`check` looks at values: call it outside of `jax.jit` and `jax.grad`")
        failed = np.flatnonzero(~np.atleast_1d(self.ok))
        if len(failed):
            of = lambda values: np.atleast_1d(values)[failed[0]].item()
            rejected = of(self.rejected)
            message = failure(
                Cause(of(self.cause)),
                t=of(self.t),
                step=of(self.step),
                nfe=of(self.nfe),
                steps=of(self.accepted) + rejected,
                rejected=rejected,
            )
            raise SolveError(message)
        return self
