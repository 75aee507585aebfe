"""Fixed-step Adams methods, with the meaning of torchdiffeq's `explicit_adams`, `implicit_adams`.

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

The coefficients assume equal steps. A step of another size, as a jump, starts the history again.

Sources: Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, III.1; Kutta's 3/8 rule
in II.1; torchdiffeq 0.2.5, `_impl/fixed_adams.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from diffrax import (
    RESULTS,
    AbstractSolver,
    AbstractTerm,
    ThirdOrderHermitePolynomialInterpolation,
)
from jaxtyping import Array, Bool, Float, Inexact, Int, PyTree

from jax_node.adams import ring
from jax_node.adams.coefficients import fixed_step_tables
from jax_node.adams.field import Y, add_scaled, combine, evaluate
from jax_node.adams.rule import Rule, adams, kutta

STARTING_HISTORY = 3  # derivatives that an Adams step needs


class FixedAdamsState(eqx.Module):
    """Solver state of a fixed-step Adams method, at the start of a step.

    `count` past derivatives, taken every `step`, are in use, the latest in place `slot` of
    `derivatives`. `nfe` counts evaluations of the vector field, `non_converged` the steps whose
    functional iteration ended without convergence; both over the whole solve.
    """

    derivatives: PyTree[Inexact[Array, "slots ..."]]
    slot: Int[Array, ""]
    count: Int[Array, ""]
    step: Float[Array, ""]
    nfe: Int[Array, ""]
    non_converged: Int[Array, ""]


class _Trip(eqx.Module):
    """What one evaluation of the vector field hands on to the next within a step."""

    increment: Y  # d: the next evaluation is at y_n + d
    total: Y  # s: the known part of the corrector, or the sum of the Runge-Kutta step
    origin: Y  # f_0
    latest: Y
    active: Bool[Array, ""]
    converged: Bool[Array, ""]
    nfe: Int[Array, ""]


class _FixedAdams(AbstractSolver[FixedAdamsState]):
    """What the explicit and the implicit method share: start-up, history, order ramp."""

    term_structure: ClassVar = AbstractTerm
    interpolation_cls: ClassVar = ThirdOrderHermitePolynomialInterpolation

    max_order: int = eqx.field(static=True, default=5)
    assume_equal_steps: bool = eqx.field(static=True, default=False)

    @property
    def iterations(self) -> int:
        """The most iterations of the corrector in a step; 0 makes the method explicit."""
        return 0

    def __check_init__(self):
        if not (isinstance(self.max_order, int) and 4 <= self.max_order <= 20):
            raise ValueError(
                f"max_order is {self.max_order}; an Adams method needs 4 to 20 "
                "(below 4 every step would be a Runge-Kutta step: use rk4)."
            )

    def order(self, terms):
        """Global order: that of the full history, but the first Adams step, one of many, limits it.

        The explicit method's first one is of order 3, the implicit one's of order 4.
        """
        return min(self.max_order, 5) if self.iterations else min(self.max_order - 1, 4)

    def func(self, terms, t0, y0, args):
        """The vector field."""
        return terms.vf(t0, y0, args)

    def init(self, terms, t0, t1, y0, args) -> FixedAdamsState:
        """An empty history."""
        zero = jnp.zeros((), jnp.int32)
        step = jnp.asarray(t1) - jnp.asarray(t0)
        derivatives = ring.empty(y0, self.max_order - 1)
        return FixedAdamsState(derivatives, zero, zero, step, zero, zero)

    def _converged(self, old: Y, new: Y) -> Bool[Array, ""]:
        """Whether two iterates of the corrector agree; a method without a corrector has none."""
        return jnp.asarray(True)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """One step: Runge-Kutta in the start-up, then Adams."""
        t0, t1 = jnp.asarray(t0), jnp.asarray(t1)
        slots = self.max_order - 1
        moved = t1 - t0
        restart = jnp.asarray(made_jump)
        if not self.assume_equal_steps:
            restart |= _differ(solver_state.step, moved, t0, t1)
        slot = jnp.mod(solver_state.slot + 1, slots)
        count = jnp.minimum(jnp.where(restart, 0, solver_state.count) + 1, slots)
        starting = count < STARTING_HISTORY
        # The weights are of equal steps: where this one's end moves, the state does by its slope.
        h = jnp.where(starting, moved, jax.lax.stop_gradient(moved))
        age = ring.ages(slot, slots)
        # Of each table, the weights of this order in the order of the ring; zero beyond `count`.
        *tables, implicit_new = fixed_step_tables(slots)
        explicit, implicit, ahead = (jnp.asarray(a, h.dtype)[count][age] for a in tables)
        unseen = starting | (age == 0)  # f_0 is not in the history yet
        weights = jnp.stack([jnp.where(unseen, 0, w) for w in (explicit, implicit)])
        past = combine(h * weights, solver_state.derivatives)
        predicted, known = (jax.tree.map(lambda p, i=i: p[i], past) for i in range(2))

        trips = 1 + max(3, self.iterations)
        of_origin = lambda weights: jnp.sum(jnp.where(age == 0, weights, 0))
        new = jnp.asarray(implicit_new, h.dtype)[count]
        either = lambda a, b: jnp.where(starting, jnp.asarray(a, h.dtype), jnp.asarray(b, h.dtype))
        multistep = adams(trips, of_origin(explicit), of_origin(implicit), new)
        rules = jax.tree.map(either, kutta(trips), multistep)
        last = jnp.where(starting, 3, self.iterations)

        def evaluate_and_go_on(trip: _Trip, i, rule: Rule) -> _Trip:
            y = jax.tree.map(jnp.add, y0, trip.increment)
            t = t0 + rule.time * h
            t += jax.lax.stop_gradient(jnp.minimum(t, t1) - t)  # rounding may lead beyond
            f = evaluate(terms, t, y, args)
            first = i == 0
            origin = jax.tree.map(lambda f, old: jnp.where(first, f, old), f, trip.origin)

            total = add_scaled(trip.total, h * rule.weight, f)
            increment = jax.tree.map(
                lambda d, f, origin, total, rest: (
                    rule.increment(h, d, f, origin, total) + jnp.where(first, rest, 0)
                ),
                trip.increment,
                f,
                origin,
                total,
                predicted,
            )
            agree = ~starting & ~first & self._converged(trip.increment, increment)
            done = agree | (starting & (i == last)) | (last == 0)
            return _Trip(
                increment=increment,
                total=total,
                origin=origin,
                latest=f,
                active=~done & (i < last),
                converged=done,
                nfe=trip.nfe + 1,
            )

        def body(trip: _Trip, inputs) -> tuple[_Trip, None]:
            go_on = lambda: evaluate_and_go_on(trip, *inputs)
            return jax.lax.cond(trip.active, go_on, lambda: trip), None

        # One scan over all evaluations of a step, so that the vector field is compiled once.
        zeros = jax.tree.map(jnp.zeros_like, y0)
        trip = _Trip(
            increment=zeros,
            total=known,
            origin=zeros,
            latest=zeros,
            active=jnp.asarray(True),
            converged=jnp.asarray(False),
            nfe=solver_state.nfe,
        )
        trip, _ = jax.lax.scan(body, trip, (jnp.arange(trips, dtype=slot.dtype), rules))

        y1 = jax.tree.map(jnp.add, y0, trip.increment)
        failed = (~trip.converged).astype(slot.dtype)
        state = FixedAdamsState(
            derivatives=ring.push(solver_state.derivatives, trip.origin, slot),
            slot=slot,
            count=count - failed,
            step=jax.lax.stop_gradient(moved),
            nfe=trip.nfe,
            non_converged=solver_state.non_converged + failed,
        )
        f1 = trip.latest
        if self.iterations == 0:
            beyond = combine(ahead, state.derivatives)
            f1 = jax.tree.map(lambda a, b: jnp.where(starting, a, b), f1, beyond)
        y1 = add_scaled(y1, moved - h, f1)
        k0, k1 = jax.tree.map(lambda f: moved.astype(f.dtype) * f, (trip.origin, f1))
        return y1, None, dict(y0=y0, y1=y1, k0=k0, k1=k1), state, RESULTS.successful


class ExplicitAdams(_FixedAdams):
    """Adams-Bashforth with a fixed step.

    One evaluation a step after two Runge-Kutta steps; order `max_order` - 1 at full history.
    Dense output is cubic Hermite.

    The higher the order the less is stable: on y' = lambda y it needs -0.3 < h * lambda at order 4,
    the default's, and -0.0034 at order 11. The global order is 4 in any case.

    **Arguments:**

    - `max_order`: 4 to 20.
    - `assume_equal_steps`: go on after a step of another size as if it were one of the same.

    torchdiffeq's `explicit_adams` is `ExplicitAdams(max_order=12, assume_equal_steps=True)`.
    """


class ImplicitAdams(_FixedAdams):
    """Adams-Bashforth-Moulton with a fixed step.

    Functional iteration of the corrector, 1 + (1 to `max_iters`) evaluations a step after two
    Runge-Kutta steps; order `max_order` at full history. Dense output is cubic Hermite. The global
    order is 5 at most.

    **Arguments:**

    - `max_order`: 4 to 20.
    - `assume_equal_steps`: go on after a step of another size as if it were one of the same.
    - `max_iters`: at least 1.
    - `rtol`, `atol`: end the iteration of the corrector (they control no step).
    - `everywhere`: of a truth about this device's part of the state, whether it holds for all.

    torchdiffeq's `implicit_adams` is `ImplicitAdams(max_order=12, assume_equal_steps=True)`.
    """

    max_iters: int = eqx.field(static=True, default=4)
    rtol: Any = 1e-7
    atol: Any = 1e-9
    everywhere: Callable[[Bool[Array, ""]], Bool[Array, ""]] = eqx.field(
        static=True, default=lambda truth: truth
    )

    @property
    def iterations(self) -> int:
        """The most iterations of the corrector in a step."""
        return self.max_iters

    def __check_init__(self):
        if not (isinstance(self.max_iters, int) and self.max_iters >= 1):
            raise ValueError(
                f"max_iters is {self.max_iters}; give at least 1, or use ExplicitAdams."
            )

    def _converged(self, old: Y, new: Y) -> Bool[Array, ""]:
        def leaf(a: Array, b: Array) -> Array:
            size = jnp.maximum(jnp.abs(a), jnp.abs(b))
            with jax.numpy_dtype_promotion("standard"):
                return jnp.all(jnp.abs(a - b) < self.atol + self.rtol * size)

        here = jax.tree.reduce(
            jnp.logical_and, jax.tree.map(leaf, old, new), initializer=jnp.asarray(True)
        )
        return self.everywhere(here)


def _differ(a: Array, b: Array, t0: Array, t1: Array) -> Bool[Array, ""]:
    """Whether two step sizes differ by more than the rounding errors of the times t0 and t1."""
    rounding = 8 * float(jnp.finfo(b.dtype).eps) * jnp.maximum(jnp.abs(t0), jnp.abs(t1))
    return jnp.abs(a - b) > rounding + 1e-6 * jnp.abs(b)
