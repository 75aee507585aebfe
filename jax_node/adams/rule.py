"""What follows from each evaluation within a step: one form for Runge-Kutta and for Adams.

So both can be one loop, in which the vector field is compiled once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


class Rule(NamedTuple):
    """What follows from an evaluation f, where d and s are carried on within a step of size h:

    s <- s + h weight f
    d <- h (new f + first f_0) + before d + total s.

    The evaluation is at the state y_n + d and the rule's `time`, in steps. Each field is a number,
    or a column with one for every evaluation.
    """

    time: Any
    new: Any
    first: Any
    before: Any
    total: Any
    weight: Any

    def increment(self, h: Array, d: Array, f: Array, origin: Array, total: Array) -> Array:
        """The new d, of the old one, f, f_0 and the new s, in their dtype."""
        of = lambda weight: weight.astype(f.dtype)
        d = of(h * self.new) * f + of(h * self.first) * origin + of(self.before) * d
        return d + of(self.total) * total


def kutta(trips: int) -> Rule:
    """Kutta's 3/8 rule: d is h k_0 / 3, then h (k_1 - k_0 / 3), h (k_2 - k_1 + k_0), and s."""
    column = lambda *values: np.pad(np.array(values), (0, trips - 4))
    return Rule(
        time=column(0, 1 / 3, 2 / 3, 1),
        new=column(1 / 3, 1, 1, 0),
        first=column(0, -1 / 3, 2 / 3, 0),
        before=column(0, 0, -1, 0),
        total=column(0, 0, 0, 1),
        weight=column(1 / 8, 3 / 8, 3 / 8, 1 / 8),
    )


def adams(trips: int, explicit: Array, implicit: Array, new: Array) -> Rule:
    """f_0 by its weight completes the predictor, and by its other one s; then d = h new f + s."""
    none, then = np.zeros(trips), np.arange(trips) > 0
    return Rule(
        time=then,
        new=jnp.where(then, new, explicit),
        first=none,
        before=none,
        total=then,
        weight=jnp.where(then, 0, implicit),
    )
