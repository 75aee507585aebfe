"""Fixed-step Adams methods with the meaning of torchdiffeq's `explicit_adams`, `implicit_adams`.

With k past derivatives at equal steps, f_0 = f(t_n, y_n) the latest,

    predictor (Adams-Bashforth):  d = h * sum_{j<k} b_j f_j
    corrector (Adams-Moulton):    d <- h * m_new f(t_{n+1}, y_n + d) + h * sum_{j<k} m_j f_j
    y_{n+1} = y_n + d.

The explicit method stops at the predictor. The implicit one repeats the corrector (functional
iteration) until two increments differ by less than atol + rtol * max(|d|, |d_old|) in every
component, at most `max_iters` times. A step that does not converge is taken all the same, is
counted, and the oldest derivative is forgotten, so that the order does not rise.

The history grows by one derivative a step, up to max_order - 1. Until it holds three, steps are
Runge-Kutta steps by the 3/8 rule, which cost four evaluations. The order therefore ramps up from 3
(explicit) or 4 (implicit), and that first step limits the global order to 4 or 5.

The coefficients assume equal steps, as torchdiffeq's do: give a step that divides the interval, or
accept a lower order in the steps after the unequal one.

Sources: Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, III.1; Kutta's 3/8 rule
in II.1; torchdiffeq 0.2.5, `_impl/fixed_adams.py`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from diffrax import (
    RESULTS,
    AbstractSolver,
    AbstractTerm,
    ThirdOrderHermitePolynomialInterpolation,
)
from jaxtyping import Array, Bool, Inexact, Int, PyTree

from jax_node.adams import history
from jax_node.adams.coefficients import fixed_step_tables

# Kutta's 3/8 rule, evaluation by evaluation, with k_0 = f_0 and s_i the running sum of the step:
#   s_{i+1} = s_i + h b_i k_i
#   d_{i+1} = h (new_i k_i + first_i k_0) + before_i d_i + sum_i s_{i+1},
# which makes d_1 = h k_0 / 3, d_2 = h (k_1 - k_0 / 3), d_3 = h (k_2 - k_1 + k_0), d_4 = s_4.
_TIMES = np.array([0, 1 / 3, 2 / 3, 1])
_KUTTA = np.array(  # rows of new, first, before, sum, b
    [
        [1 / 3, 0, 0, 0, 1 / 8],
        [1, -1 / 3, 0, 0, 3 / 8],
        [1, 2 / 3, -1, 0, 3 / 8],
        [0, 0, 0, 1, 1 / 8],
    ]
)
_STARTING_HISTORY = 3  # derivatives that an Adams step needs

Y = PyTree[Inexact[Array, "..."]]


class FixedAdamsState(eqx.Module):
    """Solver state of a fixed-step Adams method, at the start of a step.

    `count` past derivatives are in use, the latest in place `slot` of `derivatives`. `nfe` counts
    evaluations of the vector field, `non_converged` the steps whose functional iteration ended
    without convergence; both over the whole solve.
    """

    derivatives: PyTree[Inexact[Array, "slots ..."]]
    slot: Int[Array, ""]
    count: Int[Array, ""]
    nfe: Int[Array, ""]
    non_converged: Int[Array, ""]


class _Trip(eqx.Module):
    """What one evaluation of the vector field hands on to the next within a step."""

    increment: Y  # d: the next evaluation is at y_n + d
    known: Y  # h * sum_j m_j f_j of the corrector, or the running sum of the Runge-Kutta step
    origin: Y  # f_0
    latest: Y
    active: Bool[Array, ""]
    converged: Bool[Array, ""]
    nfe: Int[Array, ""]


class _FixedAdams(AbstractSolver[FixedAdamsState]):
    """What the explicit and the implicit method share: start-up, history, order ramp."""

    term_structure: ClassVar = AbstractTerm
    interpolation_cls: ClassVar = ThirdOrderHermitePolynomialInterpolation

    max_order: int = eqx.field(static=True, default=12)

    @property
    def iterations(self) -> int:
        """The most iterations of the corrector in a step; 0 makes the method explicit."""
        return 0

    def __check_init__(self):
        if not 4 <= self.max_order <= 20:
            raise ValueError(
                f"max_order is {self.max_order}; an Adams method needs 4 to 20 "
                "(below 4 every step would be a Runge-Kutta step: use rk4)."
            )

    def order(self, terms):
        """Global order: the first Adams step of the ramp, of order 3 (4 implicit), limits it."""
        return 5 if self.iterations else 4

    def func(self, terms, t0, y0, args):
        return terms.vf(t0, y0, args)

    def init(self, terms, t0, t1, y0, args) -> FixedAdamsState:
        zero = jnp.zeros((), jnp.int32)
        return FixedAdamsState(history.empty(y0, self.max_order - 1), zero, zero, zero, zero)

    def _converged(self, old: Y, new: Y) -> Bool[Array, ""]:
        """Whether two iterates of the corrector agree; a method without a corrector has none."""
        return jnp.asarray(True)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """One step: Runge-Kutta in the start-up, then Adams."""
        slots = self.max_order - 1
        h = t1 - t0
        slot = jnp.mod(solver_state.slot + 1, slots)
        count = jnp.minimum(jnp.where(made_jump, 0, solver_state.count) + 1, slots)
        starting = count < _STARTING_HISTORY
        age = history.ages(slot, slots)
        # Of each table, the weights of this order in the order of the ring; zero beyond `count`.
        explicit, implicit, ahead = (
            jnp.asarray(table, h.dtype)[count][age] for table in fixed_step_tables(slots)[:3]
        )
        implicit_new = jnp.asarray(fixed_step_tables(slots)[3], h.dtype)[count]
        latest = age == 0  # f_0, not in the history yet
        weights = jnp.where(starting | latest, 0, jnp.stack([explicit, implicit]))
        past = history.combine(h * weights, solver_state.derivatives)
        predicted, known = (jax.tree.map(lambda p, i=i: p[i], past) for i in range(2))

        # Adams in the terms of _KUTTA: after f_0 predict, then d = h m_new f + known.
        trips = 1 + max(3, self.iterations)
        then = jnp.arange(trips) > 0
        zero, one = jnp.zeros_like(h), jnp.ones_like(h)
        predict = jnp.stack([explicit @ latest, zero, zero, zero, implicit @ latest])
        correct = jnp.stack([implicit_new, zero, zero, one, zero])
        adams = jnp.where(then[:, None], correct, predict)
        kutta = jnp.asarray(np.pad(_KUTTA, ((0, trips - 4), (0, 0))), h.dtype)
        rules = jnp.where(starting, kutta, adams) * jnp.stack([h, h, one, one, h])
        stages = jnp.asarray(np.pad(_TIMES, (0, trips - 4)), h.dtype)
        times = jnp.where(starting, stages, then)
        last = jnp.where(starting, 3, self.iterations)

        def evaluate(trip: _Trip, i, rule, time) -> _Trip:
            y = jax.tree.map(jnp.add, y0, trip.increment)
            f = history.evaluate(terms, t0 + time * h, y, args)
            first = i == 0
            origin = jax.tree.map(lambda f, old: jnp.where(first, f, old), f, trip.origin)

            def combine(f: Array, origin: Array, d: Array, known: Array, predicted: Array) -> Array:
                new, by_origin, before, total, _ = rule.astype(f.dtype)
                d = new * f + by_origin * origin + before * d + total * known
                return jnp.where(first, d + predicted, d)

            known = jax.tree.map(lambda k, f: k + rule[4].astype(f.dtype) * f, trip.known, f)
            increment = jax.tree.map(combine, f, origin, trip.increment, known, predicted)
            agree = ~starting & ~first & self._converged(trip.increment, increment)
            done = agree | (starting & (i == last)) | (last == 0)
            return _Trip(
                increment=increment,
                known=known,
                origin=origin,
                latest=f,
                active=~done & (i < last),
                converged=done,
                nfe=trip.nfe + 1,
            )

        def body(trip: _Trip, inputs) -> tuple[_Trip, None]:
            return jax.lax.cond(trip.active, evaluate, lambda trip, *_: trip, trip, *inputs), None

        # One scan over all evaluations of a step, so that the vector field is compiled once.
        zeros = jax.tree.map(jnp.zeros_like, y0)
        trip = _Trip(
            increment=zeros,
            known=known,
            origin=zeros,
            latest=zeros,
            active=jnp.asarray(True),
            converged=jnp.asarray(False),
            nfe=solver_state.nfe,
        )
        trip, _ = jax.lax.scan(body, trip, (jnp.arange(trips), rules, times))

        y1 = jax.tree.map(jnp.add, y0, trip.increment)
        failed = ~trip.converged
        state = FixedAdamsState(
            derivatives=history.push(solver_state.derivatives, trip.origin, slot),
            slot=slot,
            count=count - failed,
            nfe=trip.nfe,
            non_converged=solver_state.non_converged + failed,
        )
        f1 = trip.latest
        if self.iterations == 0:
            beyond = history.combine(ahead, state.derivatives)
            f1 = jax.tree.map(lambda a, b: jnp.where(starting, a, b), f1, beyond)
        k0, k1 = jax.tree.map(lambda f: (h * f).astype(f.dtype), (trip.origin, f1))
        return y1, None, dict(y0=y0, y1=y1, k0=k0, k1=k1), state, RESULTS.successful


class ExplicitAdams(_FixedAdams):
    """Adams-Bashforth with a fixed step, torchdiffeq's `explicit_adams`.

    One evaluation a step after two Runge-Kutta steps; order `max_order` - 1 at full history.
    Dense output is cubic Hermite.

    Beware of its stability: on y' = lambda y it needs -0.3 < h * lambda at order 4 and -0.003 at
    order 11, the default's.

    **Arguments:** `max_order`: 4 to 20, of which torchdiffeq's default is 12.
    """


class ImplicitAdams(_FixedAdams):
    """Adams-Bashforth-Moulton with a fixed step, torchdiffeq's `implicit_adams`.

    Functional iteration of the corrector, 1 + (1 to `max_iters`) evaluations a step after two
    Runge-Kutta steps; order `max_order` at full history. Dense output is cubic Hermite.

    **Arguments:**

    - `max_order`: 4 to 20; `max_iters`: at least 1. torchdiffeq's defaults are 12 and 4.
    - `rtol`, `atol`: end the iteration of the corrector (they control no step).
    """

    max_iters: int = eqx.field(static=True, default=4)
    rtol: Any = 1e-7
    atol: Any = 1e-9

    @property
    def iterations(self) -> int:
        """The most iterations of the corrector in a step."""
        return self.max_iters

    def __check_init__(self):
        if self.max_iters < 1:
            raise ValueError(
                f"max_iters is {self.max_iters}; give at least 1, or use ExplicitAdams."
            )

    def _converged(self, old: Y, new: Y) -> Bool[Array, ""]:
        def leaf(a: Array, b: Array) -> Array:
            size = jnp.maximum(jnp.abs(a), jnp.abs(b))
            return jnp.all(jnp.abs(a - b) < self.atol + self.rtol * size)

        return jax.tree.reduce(
            jnp.logical_and, jax.tree.map(leaf, old, new), initializer=jnp.asarray(True)
        )
