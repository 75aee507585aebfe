"""Adams of variable order and step: predict, evaluate, correct, evaluate.

At order k the polynomial through the last k derivatives, at whatever steps they were taken, gives
the predictor; one more point, f at the predicted state, gives the corrector. In Newton's form the
two differ by one term in the divided difference of order k:

    p  = y_n + integral_{t_n}^{t_{n+1}} P_k
    D_k = f[t_{n+1}, t_n, ..., t_{n+1-k}]  with  f_{n+1} = f(t_{n+1}, p)
    y_{n+1} = p + D_k * integral prod_{j<k} (t - t_{n-j}) dt               (order k + 1)
    error   =     D_k * integral (t - t_{n+1}) prod_{j<k-1} (t - t_{n-j}) dt.

The error is that of the corrector of order k; the step goes on with order k + 1 (local
extrapolation). The last evaluation, f(t_{n+1}, y_{n+1}), is made only for an accepted step, and
only where the corrector moved the state by more than `_SETTLED` tolerances: the corrector is then
as good as converged, and the derivative at p stands in. So a step costs one evaluation or two.

This is the method of Shampine and Gordon (1975) and of Hairer, Norsett, Wanner I, III.5, with two
differences. Their modified divided differences are kept up by a recurrence over the order, which
rewrites the whole history at every step; here the derivatives themselves are kept, in a ring, and
the order is in short weight vectors (`weights`), so that a step reads the history once and writes
it once. And the step need not be constant or doubled for economy, since no recurrence is saved.

VODE (Brown, Byrne, Hindmarsh 1989) iterates the corrector instead; docs/solvers.md compares the
two, and LSODA, at equal error on the DETEST problems. That one correction does better than two here
was seen while this was written, and is not part of that comparison.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from diffrax import RESULTS, AbstractAdaptiveSolver, AbstractImplicitSolver, AbstractTerm
from jaxtyping import Array, Bool, Float, Inexact, Int, PyTree

from jax_node.adams import history
from jax_node.adams.coefficients import scaled_error_constants
from jax_node.adams.interpolation import AdamsInterpolation
from jax_node.adams.selection import select
from jax_node.adams.state import AdamsState, Tolerances
from jax_node.adams.weights import divided_difference, integral_of_products, lagrange_integrals

_SETTLED = 0.1
_REJECTED_BEFORE = 0.9  # a step so much shorter than expected follows a rejection: lower the order
_STRETCHED = 4.0  # a history this many times longer than as many steps of the present size
_SMOOTH = 0.5  # the history must predict the new derivative this much better than the latest one
ERROR_ORDER = 2  # what the error is scaled to (see `Adams`), and order 1's own
SAFETY = 0.9  # that of diffrax's PID controller

Y = PyTree[Inexact[Array, "..."]]


class _Trip(eqx.Module):
    """What one evaluation of the vector field hands on to the next within a step."""

    at: Y  # where the next evaluation is made: at the predicted state, then at the corrected one
    latest: Y  # derivative
    active: Bool[Array, ""]  # whether the next evaluation is made
    accepted: Bool[Array, ""]
    broken: Bool[Array, ""]  # whether the history was of no use
    sizes: Float[Array, "3"]  # norms of D_{k-2}, D_{k-1}, D_k
    correction: Float[Array, ""]  # norm of the corrector's move
    change: Float[Array, ""]  # norm of what that move changed in the derivative
    nfe: Int[Array, ""]


class Adams(AbstractAdaptiveSolver[AdamsState], AbstractImplicitSolver[AdamsState]):
    """Variable-order, variable-step Adams-Bashforth-Moulton (PECE), of order 2 to `max_order` + 1.

    To be used with `AdamsController(rtol, atol)`; diffrax's own controllers work too. They know
    only a fixed order: the error returned is scaled such that an I controller of error order 2
    and safety 0.9 takes the step that the solver's own order and step selection chose.

    `made_jump` drops the history. Dense output has the order of the step.

    **Arguments:**

    - `max_order`: of the predictor, 1 to 12. The history is `max_order` derivatives long; a low
      order saves memory on large states at loose tolerances, where high orders are not reached.
    - `root_finder`: `Tolerances`, which need to be given only for controllers that have none.
    """

    term_structure: ClassVar = AbstractTerm
    interpolation_cls: ClassVar = AdamsInterpolation

    max_order: int = eqx.field(static=True, default=12)
    root_finder: Any = Tolerances()  # type: ignore[misc]  # diffrax declares a class variable

    def __check_init__(self):
        if not 1 <= self.max_order <= 12:
            raise ValueError(f"max_order is {self.max_order}; give a predictor order of 1 to 12.")

    @property
    def root_find_max_steps(self):  # type: ignore[override]
        """The corrector is applied once."""
        return 1

    def order(self, terms):
        """The highest order of a step."""
        return self.max_order + 1

    def error_order(self, terms):
        """What the error estimate is scaled to, whatever the order of the step."""
        return ERROR_ORDER

    def func(self, terms, t0, y0, args):
        """The vector field."""
        return terms.vf(t0, y0, args)

    def init(self, terms, t0, t1, y0, args) -> AdamsState:
        """A history of one derivative, for order 1."""
        zero = jnp.zeros((), jnp.int32)
        one = jnp.ones((), jnp.int32)
        slots = self.max_order
        f0 = history.evaluate(terms, jnp.asarray(t0), y0, args)
        return AdamsState(
            derivatives=history.push(history.empty(y0, slots), f0, zero),
            offsets=jnp.zeros(slots, jnp.result_type(t0)),
            slot=zero,
            count=one,
            order=one,
            starting=jnp.asarray(True),
            expected=jax.lax.stop_gradient(t1 - t0),
            nfe=one,
            highest_order=one,
            contraction=jnp.zeros((), jnp.result_type(t0)),
        )

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """One step by PECE, and the choice of the next."""
        state = solver_state
        slots = self.max_order
        h = t1 - t0

        shorter = h / state.expected
        restart = jnp.asarray(made_jump)
        rejected_before = shorter < _REJECTED_BEFORE
        k = jnp.where(restart, 1, jnp.maximum(state.order - rejected_before, 1))
        count = jnp.where(restart, 1, state.count)
        starting = restart | (state.starting & ~rejected_before)

        derivatives, nfe = state.derivatives, state.nfe
        if made_jump is not False:
            f0 = jax.lax.cond(
                made_jump,
                lambda: history.evaluate(terms, t0, y0, args),
                lambda: history.at(derivatives, state.slot),
            )
            derivatives = history.push(derivatives, f0, state.slot)
            nfe = nfe + jnp.asarray(made_jump)

        age = history.ages(state.slot, slots)
        x = state.offsets / h
        # Errors decide on the step, and are not differentiated: nor is what only they need.
        h_fixed, x_fixed = jax.lax.stop_gradient((h, x))
        orders = k + jnp.arange(-2, 2)
        new_weights, old_weights = jax.vmap(
            lambda j: divided_difference(x_fixed, age < jnp.minimum(j, count))
        )(orders)
        new_k, old_k = divided_difference(x, age < k)
        new_weights, old_weights = new_weights.at[2].set(new_k), old_weights.at[2].set(old_k)
        # The end point, at 1, in place of the oldest: (t - t_{n+1}) prod_{j<k-1} (t - t_{n-j}).
        oldest_at_end = jnp.where(age == k - 1, 1, x_fixed)
        error_weight = h_fixed * integral_of_products(oldest_at_end, age < k)
        corrector = h * integral_of_products(x, age < k)
        predictor = h * lagrange_integrals(x, age < k, jnp.ones_like(h))
        latest = 1.0 * (age == 0)
        rows = jnp.concatenate([predictor[None], old_weights, latest[None]])
        combined = history.combine(rows, derivatives)

        def difference(i: int, f: Y, weight: Float[Array, ""]) -> Y:
            """Return weight * D_j for the i-th of j = k - 2, ..., k + 1, with f at the end."""
            return jax.tree.map(
                lambda c, f: (weight * (new_weights[i] * f + c[i + 1])).astype(f.dtype), combined, f
            )

        def size(e: Y, y1: Y) -> Float[Array, ""]:
            """Norm of e in units of the tolerance."""
            scaled = jax.tree.map(lambda e, s: e / s, e, self._scale(y0, y1))
            return jnp.asarray(self.root_finder.norm(jax.lax.stop_gradient(scaled)), h.dtype)

        def correct(trip: _Trip, f: Y) -> _Trip:
            """The derivative at the predicted state is known: correct, and judge the step."""
            y1 = jax.tree.map(jnp.add, trip.at, difference(2, f, corrector))
            sizes = jnp.stack([size(difference(i, f, jnp.ones_like(h)), y1) for i in range(3)])
            error = jnp.abs(error_weight) * sizes[2]
            # After a rejection, and while the past points are far for this step's size: is the
            # field smooth? Far points count little in the corrector, and its error estimate would
            # take a jump for a small error.
            change = size(jax.tree.map(lambda c, f: f - c[5], combined, f), y1)
            missed = sizes[2] / new_weights[2]
            reach = -jnp.min(jnp.where(age < k, x_fixed, 0))
            doubtful = rejected_before | (reach > _STRETCHED * k)
            broken = doubtful & (k > 1) & (missed > _SMOOTH * change)
            y1 = jax.tree.map(
                lambda y, c, f, y1: jnp.where(broken, y + h / 2 * (c[5] + f), y1).astype(y.dtype),
                y0,
                combined,
                f,
                y1,
            )
            error = jnp.where(broken, h_fixed / 2 * change, error)
            sizes = jnp.where(broken, jnp.stack([change] * 3), sizes)
            correction = size(jax.tree.map(jnp.subtract, y1, trip.at), y1)
            accepted = error <= 1  # false if not finite
            active = accepted & (correction > _SETTLED)
            return _Trip(y1, f, active, accepted, broken, sizes, correction, trip.change, trip.nfe)

        def finish(trip: _Trip, f: Y) -> _Trip:
            """The derivative at the corrected state, if it was evaluated, replaces the other."""
            change = size(jax.tree.map(jnp.subtract, f, trip.latest), trip.at)
            return eqx.tree_at(lambda trip: (trip.latest, trip.change), trip, (f, change))

        def body(trip: _Trip, first: Bool[Array, ""]) -> tuple[_Trip, None]:
            f = jax.lax.cond(
                trip.active,
                lambda: history.evaluate(terms, t1, trip.at, args),
                lambda: trip.latest,
            )
            trip = eqx.tree_at(lambda trip: trip.nfe, trip, trip.nfe + trip.active)
            return jax.lax.cond(first, correct, finish, trip, f), None

        # One scan over the evaluations of a step, so that the vector field is compiled once.
        zero = jnp.zeros_like(h)
        trip = _Trip(
            at=jax.tree.map(lambda y, c: y + c[0], y0, combined),
            latest=jax.tree.map(jnp.zeros_like, y0),
            active=jnp.asarray(True),
            accepted=jnp.asarray(False),
            broken=jnp.asarray(False),
            sizes=jnp.zeros(3, h.dtype),
            correction=zero,
            change=zero,
            nfe=nfe,
        )
        trip, _ = jax.lax.scan(body, trip, jnp.array([True, False]))
        y1, f1 = trip.at, trip.latest

        settled = trip.accepted & (trip.correction > _SETTLED) & ~trip.broken
        rate = corrector * new_weights[2] * trip.change / jnp.where(settled, trip.correction, 1)
        higher = jnp.where(count > k, size(difference(3, f1, jnp.ones_like(h)), y1), jnp.inf)
        k, count, higher = (
            jnp.where(trip.broken, a, b) for a, b in ((1, k), (1, count), (jnp.inf, higher))
        )
        orders = k + jnp.arange(-2, 2)
        constants = h_fixed * jnp.asarray(scaled_error_constants(14), h.dtype)[orders]
        estimates = jnp.where(orders > 0, constants * jnp.append(trip.sizes, higher), jnp.inf)
        choice = select(k, estimates, trip.accepted, starting | trip.broken, self.max_order)

        slot = jnp.mod(state.slot + 1, slots)
        here = jnp.arange(slots) == slot
        derivatives = history.push(derivatives, f1, slot)
        new_state = AdamsState(
            derivatives=derivatives,
            offsets=jnp.where(here, 0, state.offsets - h),
            slot=slot,
            count=jnp.minimum(count + 1, slots),
            order=choice.order,
            starting=choice.starting,
            expected=jax.lax.stop_gradient(h * jnp.minimum(choice.factor, 1)),
            nfe=trip.nfe,
            highest_order=jnp.maximum(state.highest_order, k),
            contraction=jax.lax.stop_gradient(
                jnp.maximum(state.contraction, jnp.where(settled, rate, 0))
            ),
        )
        dense_info = dict(
            y0=y0,
            y1=y1,
            derivatives=derivatives,
            nodes=jnp.where(here, 1, x),
            used=history.ages(slot, slots) <= k,
        )
        error = self._encode(choice.factor, y0, y1)
        return y1, error, dense_info, new_state, RESULTS.successful

    def _scale(self, y0: Y, y1: Y) -> Y:
        """The tolerance, component by component, as diffrax's controllers have it."""

        def leaf(a: Array, b: Array) -> Array:
            b = jnp.where(jnp.isnan(b).any(), a, b)
            size = jnp.maximum(jnp.abs(a), jnp.abs(b))
            scale = self.root_finder.atol + self.root_finder.rtol * size
            return jax.lax.stop_gradient(scale.astype(size.dtype))

        return jax.tree.map(leaf, y0, y1)

    def _encode(self, factor: Float[Array, ""], y0: Y, y1: Y) -> Y:
        """Return an error whose norm makes an I controller change the step by `factor`.

        Such a controller changes it by safety * norm^(-1 / error order), and accepts a norm below
        one: a factor above the safety factor says accepted, one below says rejected.
        """
        scale = self._scale(y0, y1)
        ones = self.root_finder.norm(jax.tree.map(jnp.ones_like, scale))
        norm = jax.lax.stop_gradient((SAFETY / factor) ** ERROR_ORDER)
        spread = norm / jnp.where(ones == 0, 1, ones)
        return jax.tree.map(lambda s: (spread * s).astype(s.dtype), scale)
