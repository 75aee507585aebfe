"""The classical fourth-order Runge-Kutta method, which diffrax does not have."""

from collections.abc import Callable
from typing import ClassVar

import diffrax
import numpy as np

_three_eighths = diffrax.ButcherTableau(
    c=np.array([1 / 3, 2 / 3, 1]),
    a_lower=(np.array([1 / 3]), np.array([-1 / 3, 1]), np.array([1.0, -1, 1])),
    b_sol=np.array([1 / 8, 3 / 8, 3 / 8, 1 / 8]),
    b_error=np.zeros(4),  # there is no embedded method
)


class RK4(diffrax.AbstractERK):
    """Kutta's 3/8 rule: order 4, four stages, fixed steps, cubic Hermite interpolation.

    It estimates no error: adaptive controllers refuse it, unless it is in a `diffrax.HalfSolver`.

    Hairer, Norsett and Wanner, *Solving ODEs I*, table II.1.2, right. torchdiffeq's `rk4` is this
    rule too, so that the two agree to rounding.
    """

    tableau: ClassVar[diffrax.ButcherTableau] = _three_eighths  # pyright: ignore
    interpolation_cls: ClassVar[Callable[..., diffrax.ThirdOrderHermitePolynomialInterpolation]] = (
        diffrax.ThirdOrderHermitePolynomialInterpolation.from_k
    )

    def order(self, terms):
        """Order of the method."""
        del terms
        return 4

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """The step of the tableau, without its error of zero."""
        y1, _, dense_info, solver_state, result = super().step(
            terms, t0, t1, y0, args, solver_state, made_jump
        )
        return y1, None, dense_info, solver_state, result
