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
from jaxtyping import Array, Bool, Float, Inexact, Int, PyTree

from jax_node.adams import history
from jax_node.adams.coefficients import fixed_step_tables

# Kutta's 3/8 rule. Row i is where evaluation i is made; the last row is the step itself.
_KUTTA_TIMES = np.array([0, 1 / 3, 2 / 3, 1, 1])
_KUTTA = np.array(
    [[0, 0, 0, 0], [1 / 3, 0, 0, 0], [-1 / 3, 1, 0, 0], [1, -1, 1, 0], [1 / 8, 3 / 8, 3 / 8, 1 / 8]]
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

    increment: Y  # the next evaluation is at y_n + increment
    known: Y  # h * sum_j m_j f_j, the part of the corrector that does not change
    stages: PyTree[Inexact[Array, "4 ..."]]  # Runge-Kutta derivatives
    latest: Y
    active: Bool[Array, ""]
    converged: Bool[Array, ""]
    derivatives: PyTree[Inexact[Array, "slots ..."]]
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
        slots = self.max_order - 1
        step_size = t1 - t0
        slot = jnp.mod(solver_state.slot + 1, slots)
        count = jnp.minimum(jnp.where(made_jump, 0, solver_state.count) + 1, slots)
        starting = count < _STARTING_HISTORY
        explicit, implicit, ahead, new = fixed_step_tables(slots)
        age = history.ages(slot, slots)

        def by_age(table: Float[np.ndarray, "rows slots"]) -> Float[Array, " slots"]:
            return jnp.asarray(table)[count][age]  # zero beyond `count`

        def scaled(weights: Float[Array, " n"], past: PyTree[Inexact[Array, "n ..."]]) -> Y:
            return jax.tree.map(
                lambda s: (step_size * s).astype(s.dtype), history.combine(weights, past)
            )

        def start(trip: _Trip) -> tuple[Y, Y, Bool[Array, ""]]:
            """First evaluation done: predict, or make the first Runge-Kutta stage."""
            increment, known = jax.lax.cond(
                starting,
                lambda: (scaled(jnp.asarray(_KUTTA)[1], trip.stages), trip.known),
                lambda: (
                    scaled(by_age(explicit), trip.derivatives),
                    scaled(by_age(implicit), trip.derivatives),
                ),
            )
            return increment, known, jnp.logical_not(starting) & (self.iterations == 0)

        def go_on(i: Int[Array, ""], trip: _Trip) -> tuple[Y, Y, Bool[Array, ""]]:
            """Correct, or make the next Runge-Kutta stage."""

            def correct():
                weight = step_size * jnp.asarray(new)[count]
                increment = jax.tree.map(
                    lambda f, known: (weight * f).astype(f.dtype) + known, trip.latest, trip.known
                )
                return increment, self._converged(trip.increment, increment)

            def stage():
                row = jnp.asarray(_KUTTA)[jnp.minimum(i + 1, 4)]
                return scaled(row, trip.stages), i == 3

            increment, done = jax.lax.cond(starting, stage, correct)
            return increment, trip.known, done

        def evaluate(i: Int[Array, ""], trip: _Trip) -> _Trip:
            time = jnp.where(starting, jnp.asarray(_KUTTA_TIMES, t0.dtype)[i], i > 0)
            y = jax.tree.map(jnp.add, y0, trip.increment)
            latest = history.evaluate(terms, t0 + time * step_size, y, args)
            first = i == 0
            trip = _Trip(
                increment=trip.increment,
                known=trip.known,
                stages=history.push(trip.stages, latest, i),
                latest=latest,
                active=trip.active,
                converged=trip.converged,
                derivatives=jax.tree.map(
                    lambda new, old: jnp.where(first, new, old),
                    history.push(trip.derivatives, latest, slot),
                    trip.derivatives,
                ),
                nfe=trip.nfe + 1,
            )
            increment, known, done = jax.lax.cond(first, start, lambda trip: go_on(i, trip), trip)
            return eqx.tree_at(
                lambda trip: (trip.increment, trip.known, trip.active, trip.converged),
                trip,
                (increment, known, ~done & (i < jnp.where(starting, 3, self.iterations)), done),
            )

        def body(trip: _Trip, i: Int[Array, ""]) -> tuple[_Trip, None]:
            return jax.lax.cond(trip.active, evaluate, lambda _, trip: trip, i, trip), None

        # One scan over all evaluations of a step, so that the vector field is compiled once.
        zeros = jax.tree.map(jnp.zeros_like, y0)
        trip = _Trip(
            increment=zeros,
            known=zeros,
            stages=history.empty(y0, 4),
            latest=zeros,
            active=jnp.asarray(True),
            converged=jnp.asarray(False),
            derivatives=solver_state.derivatives,
            nfe=solver_state.nfe,
        )
        trips = jnp.arange(1 + max(3, self.iterations), dtype=jnp.int32)
        trip, _ = jax.lax.scan(body, trip, trips)

        y1 = jax.tree.map(jnp.add, y0, trip.increment)
        failed = jnp.logical_not(trip.converged)
        state = FixedAdamsState(
            derivatives=trip.derivatives,
            slot=slot,
            count=count - failed,
            nfe=trip.nfe,
            non_converged=solver_state.non_converged + failed,
        )
        f0 = history.combine(1.0 * (age == 0), trip.derivatives)
        f1 = trip.latest
        if self.iterations == 0:
            beyond = history.combine(by_age(ahead), trip.derivatives)
            f1 = jax.tree.map(lambda a, b: jnp.where(starting, a, b), f1, beyond)
        k0, k1 = jax.tree.map(lambda f: (step_size * f).astype(f.dtype), (f0, f1))
        return y1, None, dict(y0=y0, y1=y1, k0=k0, k1=k1), state, RESULTS.successful


class ExplicitAdams(_FixedAdams):
    """Adams-Bashforth with a fixed step, torchdiffeq's `explicit_adams`.

    One evaluation a step after two Runge-Kutta steps; order `max_order` - 1 at full history.
    Dense output is cubic Hermite.

    Beware of its stability: on y' = lambda y it needs -0.3 < h * lambda at order 4 and -0.002 at
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
