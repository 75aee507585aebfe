"""torchdiffeq's adaptive Runge-Kutta methods, mended where they meet times that matter.

torchdiffeq 0.2.5 looks for a first step beyond the last time; leaves that step in the graph of
`direct`; forgets a prescribed time (`step_t`, `jump_t`) that a step happens to end on, and all
after it; and begins a solve at a jump with the derivative of the wrong side.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchdiffeq._impl.misc import Perturb
from torchdiffeq._impl.odeint import SOLVERS

from torch_node.step_size import first_step

ADAPTIVE = ("dopri5", "dopri8", "bosh3", "adaptive_heun")


def mended(solver: str) -> str:
    """The name under which torchdiffeq has the mended method."""
    return f"{solver} of torch_node"


def _mend(method: Any) -> Any:
    class Mended(method):
        def _before_integrate(self: Any, t: Tensor) -> None:
            func = self.func
            at_jump = self.jump_t is not None and bool((self.jump_t == t[0]).any())
            f0 = func(t[0], self.y0, perturb=Perturb.NEXT if at_jump else Perturb.NONE)
            self.first_step = first_step(
                func, t[0], t[-1], self.y0, f0, order=self.order, rtol=self.rtol, atol=self.atol,
                norm=self.norm,
            )  # fmt: skip
            self.func = lambda t, y: f0  # so that it is not asked for again
            super()._before_integrate(t)
            self.func = func

        def _adaptive_step(self: Any, state: Any) -> Any:
            end = state.t1 + state.dt.clamp(self.min_step, self.max_step)
            new = super()._adaptive_step(state)
            if new.t1 == state.t1:
                return new
            while self.next_step_index < len(self.step_t) - 1 and (
                self.step_t[self.next_step_index] <= new.t1
            ):
                self.next_step_index += 1
            if len(self.jump_t) and self.jump_t[self.next_jump_index] == new.t1 == end:
                self.next_jump_index = min(self.next_jump_index + 1, len(self.jump_t) - 1)
                new = new._replace(f1=self.func(new.t1, new.y1, perturb=Perturb.NEXT))
            return new

    return Mended


for _solver in ADAPTIVE:
    SOLVERS[mended(_solver)] = _mend(SOLVERS[_solver])
