"""What a solve returns: the trajectory, and what it cost forwards and backwards."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from torch_node.watch import Pass


@dataclass
class Solution:
    """A trajectory and what it cost.

    Attributes:
        ys: states, `[times, *state]`; ys[0] is y0.
        nfe: evaluations of the vector field in the forward solve.
        accepted: steps taken.
        rejected: steps tried and not taken.
        nonconverged: steps of implicit_adams whose corrector did not converge
            (torchdiffeq then goes on with its last iterate, and forgets its oldest derivative).
        step_times: ts[0] and the end of every accepted step.
    """

    ys: Float[Tensor, " times *state"]
    nfe: int
    accepted: int
    rejected: int
    nonconverged: int
    step_times: list[float]
    _backward: Pass

    @property
    def reconstruction(self) -> float:
        """How far the adjoint's latest solve backwards ended from the state that was there.

        The adjoint solves for the state again, from each observation back to the one before. This
        is the distance to that one's, relative to its size, the largest over the intervals: 0 where
        one step back undoes one step forward, and before a backward pass, and by `direct`.
        """
        return self._backward.reconstruction

    @property
    def nfe_backward(self) -> int:
        """Evaluations of the vector field in the latest backward pass (0 before it, or `direct`).

        If ts requires a gradient, the adjoint's include one for each time in ts, but for the first
        where nothing jumps.
        """
        return self._backward.nfe
