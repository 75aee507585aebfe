"""Adams of variable order and step: predict, evaluate, correct, evaluate.

At order k the polynomial through the last k derivatives, at whatever steps they were taken, gives
the predictor; one more point, f at the predicted state, gives the corrector. In Newton's form (see
`newton`) the two differ by one term, in the difference of order k:

    p       = y_n + h sum_{j<k} g_j phi*_j
    Phi_k   = f(t_{n+1}, p) - P_k(t_{n+1})
    y_{n+1} = p + h g_k Phi_k                      (order k + 1)
    error   =     h (g_k - g_{k-1}) Phi_k.

The error is that of the corrector of order k; the step goes on with order k + 1 (local
extrapolation). The last evaluation, f(t_{n+1}, y_{n+1}), is made only for an accepted step, and
only where the corrector moved the state by more than `_SETTLED` tolerances: the corrector is then
as good as converged, and the derivative at p stands in. So a step costs one evaluation or two.

This is the method of Shampine and Gordon (1975) and of Hairer, Norsett, Wanner I, III.5, with one
difference: the step need not be constant or doubled for economy, since no recurrence is saved.

VODE (Brown, Byrne, Hindmarsh 1989) iterates the corrector instead; docs/solvers.md compares the
two, and LSODA, at equal error on the DETEST problems. That one correction does better than two here
was seen while this was written, and is not part of that comparison.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from diffrax import (
    RESULTS,
    AbstractAdaptiveSolver,
    AbstractImplicitSolver,
    AbstractTerm,
    with_stepsize_controller_tols,
)
from jaxtyping import Array, Bool, Float, Shaped

from jax_node.adams.coefficients import moulton_errors
from jax_node.adams.field import Y, evaluate
from jax_node.adams.interpolation import AdamsInterpolation
from jax_node.adams.newton import coefficients
from jax_node.adams.pece import Correction, Size, correct, predict
from jax_node.adams.selection import select
from jax_node.adams.state import AdamsState

_SETTLED = 0.1
_REJECTED_BEFORE = 0.82  # a step so much shorter than the last follows a rejection: lower the order
_STRETCHED = 4.0  # a history this many times longer than as many steps of the present size
_CUT_SHORT = 0.01  # a step so much shorter than the last, and without an error, was cut by others
ERROR_ORDER = 2  # what the error is scaled to (see `Adams`), and order 1's own
SAFETY = 0.9  # that of diffrax's PID controller


# Its annotation names root finders; what it needs are the arguments rtol, atol and norm.
_tolerances: Any = with_stepsize_controller_tols(cast(Any, optx.FixedPointIteration))


class Adams(AbstractAdaptiveSolver[AdamsState], AbstractImplicitSolver[AdamsState]):
    """Variable-order, variable-step Adams-Bashforth-Moulton (PECE), of order 2 to `max_order` + 1.

    Use it with `AdamsController(rtol, atol)`, or with any of diffrax's adaptive controllers. These
    know only a fixed order, and so the error returned is scaled to `error_order` 2 whatever the
    order of the step: it points where the error does, and its norm is (step / ideal step)^2, with
    0.9^2 for the ideal step and below one just if the step is good. `AdamsController` takes the
    steps that need the fewest evaluations.

    The corrector's equation is solved by one fixed point iteration; `root_finder` says in which
    tolerances the error of that, and the error that chooses the order, are measured. `made_jump`
    drops the history. Dense output has the order of the step.

    **Arguments:**

    - `max_order`: of the predictor, 1 to 12. The history is `max_order` derivatives long; a low
      order saves memory on large states at loose tolerances, where high orders are not reached.
    - `root_finder`: an `optimistix.FixedPointIteration`, by default with the tolerances and the
      norm of the step size controller. Only a controller without tolerances needs another.
    """

    term_structure: ClassVar = AbstractTerm
    interpolation_cls: ClassVar = AdamsInterpolation

    max_order: int = eqx.field(static=True, default=12)
    root_finder: Any = _tolerances()  # type: ignore[misc]

    def __check_init__(self):
        if not (isinstance(self.max_order, int) and 1 <= self.max_order <= 12):
            raise ValueError(f"max_order is {self.max_order}; give a predictor order of 1 to 12.")
        finder = self.root_finder
        if not isinstance(finder, optx.FixedPointIteration) or finder.damp != 0:
            raise ValueError(
                f"root_finder is {finder}; Adams solves its corrector by an undamped "
                "optimistix.FixedPointIteration(rtol, atol, norm)."
            )

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
        t0, t1 = jnp.asarray(t0), jnp.asarray(t1)
        f0 = evaluate(terms, t0, y0, args)
        one = jnp.ones((), jnp.int32)
        return AdamsState(
            differences=jax.tree.map(lambda f: _first_of(f, self.max_order), f0),
            offsets=jnp.zeros(self.max_order, t0.dtype),
            count=one,
            order=one,
            starting=jnp.asarray(True),
            step=jnp.zeros((), t0.dtype),
            nfe=one,
            highest_order=one,
            contraction=jnp.zeros((), t0.dtype),
        )

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """One step by PECE, and the choice of the next order."""
        t0, t1 = jnp.asarray(t0), jnp.asarray(t1)
        past = solver_state
        if made_jump is not False:
            past = self._restart_after(made_jump, terms, t0, y0, args, past)
        h = t1 - t0
        times = past.offsets / jnp.where(h == 0, 1, h)
        rejected_before = h < _REJECTED_BEFORE * past.step
        k = jnp.where(rejected_before, jnp.maximum(past.order - 1, 1), past.order)
        starting = past.starting & ~rejected_before
        # After a rejection, or while the past points are far for this step's size: is f smooth?
        far = -times[k - 1] > _STRETCHED * k.astype(h.dtype)
        doubtful = (k > 1) & (rejected_before | far)

        c = coefficients(times, past.count)
        predicted = predict(h, c, k, y0, past)
        size = lambda f: self._size(h, f, scale=self._tolerance(y0, predicted.state))
        f = evaluate(terms, t1, predicted.state, args)
        found = correct(h, c, k, y0, past, predicted, f, doubtful, size)
        f1, change, again = self._evaluate_again(terms, t1, args, found, f, size)

        beyond = size(jax.tree.map(jnp.subtract, f1, predicted.higher))
        beyond = jnp.where((past.count > k) & ~found.broken, beyond, jnp.inf)
        k = jnp.where(found.broken, 1, k)
        orders = k + jnp.arange(-2, 2, dtype=k.dtype)
        constants = jnp.asarray(moulton_errors(self.max_order + 1), h.dtype) * c.sigma
        constants = constants[jnp.clip(orders, 0, self.max_order)]
        estimates = jnp.where(orders > 0, constants * jnp.append(found.sizes, beyond), jnp.inf)
        choice = select(
            k,
            jax.lax.stop_gradient(estimates),
            jnp.where(found.broken, jnp.inf, found.sizes[1]),  # at order 1 that of h f
            found.accepted,
            starting | found.broken,
            self.max_order,
        )

        rate = jnp.where(again & ~found.broken, change * jnp.abs(c.g[k]) / found.move_size, 0)
        new = AdamsState(
            differences=jax.tree.map(lambda f, p: f[None] - p[:-1], f1, predicted.by_any),
            offsets=jnp.concatenate([jnp.zeros((1,), h.dtype), past.offsets[:-1] - h]),
            count=jnp.minimum(jnp.where(found.broken, 1, past.count) + 1, self.max_order),
            order=choice.order,
            starting=choice.starting,
            step=jax.lax.stop_gradient(h),
            nfe=past.nfe + 1 + again.astype(past.nfe.dtype),
            highest_order=jnp.maximum(past.highest_order, k),
            contraction=jnp.maximum(past.contraction, jax.lax.stop_gradient(rate)),
        )
        dense_info = dict(
            y0=y0,
            y1=found.state,
            differences=new.differences,
            times=times,
            used=jnp.arange(self.max_order, dtype=k.dtype) <= k,
        )
        # A step cut short by others, a step time or a jump, would leave two derivatives at almost
        # one time, of which the next step could make nothing: the history stays as it is, and the
        # step may grow to what it was.
        cut_short = (h <= _CUT_SHORT * past.step) & (found.error_size < _CUT_SHORT) | (h == 0)
        new = self._without_the_step(cut_short, h, past, new)
        as_before = jnp.minimum(past.step / jnp.where(h == 0, 1, h), 1 / _CUT_SHORT)
        ratio = jnp.where(cut_short, jnp.maximum(choice.ratio, as_before), choice.ratio)
        error = self._report(found, ratio, y0)
        return found.state, error, dense_info, new, RESULTS.successful

    def _restart_after(self, made_jump, terms, t0, y0, args, state: AdamsState) -> AdamsState:
        """The state after a jump, if there was one: one derivative, beyond the jump."""
        made_jump = jnp.asarray(made_jump)
        f0 = jax.lax.cond(
            made_jump,
            lambda: evaluate(terms, t0, y0, args),
            lambda: jax.tree.map(lambda d: d[0], state.differences),
        )
        one = jnp.ones_like(state.count)
        changed = lambda s: (s.differences, s.offsets, s.count, s.order, s.starting, s.step, s.nfe)
        return eqx.tree_at(
            changed,
            state,
            (
                jax.tree.map(lambda d, f: d.at[0].set(f), state.differences, f0),
                jnp.where(made_jump, 0, state.offsets),
                jnp.where(made_jump, one, state.count),
                jnp.where(made_jump, one, state.order),
                state.starting | made_jump,
                jnp.where(made_jump, 0, state.step),
                state.nfe + made_jump.astype(jnp.int32),
            ),
        )

    def _evaluate_again(
        self, terms, t1, args, found: Correction, f: Y, size: Size
    ) -> tuple[Y, Shaped[Array, ""], Bool[Array, ""]]:
        """The derivative at the corrected state, its distance to `f`, and whether it was needed."""
        again = found.accepted & (found.broken | (found.move_size > _SETTLED))

        def evaluated():
            f1 = evaluate(terms, t1, found.state, args)
            return f1, size(jax.tree.map(jnp.subtract, f1, f))

        f1, change = jax.lax.cond(again, evaluated, lambda: (f, jnp.zeros_like(found.move_size)))
        return f1, change, again

    def _without_the_step(self, skipped, h, past: AdamsState, new: AdamsState) -> AdamsState:
        """The state after a step; where it is `skipped`, with the history from before the step."""
        kept = lambda s: (s.differences, s.count, s.order, s.starting, s.step)
        old = jax.tree.map(lambda a, b: jnp.where(skipped, a, b), kept(past), kept(new))
        new = eqx.tree_at(kept, new, old)
        offsets = jnp.where(skipped, past.offsets - h, new.offsets)
        return eqx.tree_at(lambda s: s.offsets, new, offsets)

    def _tolerance(self, y0: Y, y1: Y) -> Y:
        """atol + rtol * |y|, component by component, as diffrax's controllers have it."""

        def leaf(a: Array, b: Array) -> Array:
            size = jnp.maximum(jnp.abs(a), jnp.abs(b))
            with jax.numpy_dtype_promotion("standard"):
                scale = self.root_finder.atol + self.root_finder.rtol * size
            return jnp.asarray(scale, size.dtype)

        return jax.lax.stop_gradient(jax.tree.map(leaf, y0, y1))

    def _size(self, h, f: Y, scale: Y) -> Shaped[Array, ""]:
        """Norm of h * f in units of the tolerance; errors decide, and are not differentiated."""
        scaled = jax.tree.map(lambda f, s: f / s.astype(f.dtype), f, scale)
        with jax.numpy_dtype_promotion("standard"):  # leaves may have several dtypes
            norm = jnp.asarray(self.root_finder.norm(scaled), h.dtype)
        return jax.lax.stop_gradient(h * norm)

    def _report(self, found: Correction, ratio: Float[Array, ""], y0: Y) -> Y:
        """The error, scaled such that its norm is (safety / ratio)^2: see the class."""
        scale = self._tolerance(y0, found.state)
        size = self._size(jnp.ones_like(ratio), found.error, scale)
        wanted = (SAFETY / ratio) ** ERROR_ORDER
        factor = wanted / jnp.where(size == 0, 1, size)

        def leaf(error: Array, scale: Array) -> Array:
            # Without an error there is still a step to recommend: any direction will do.
            error = jnp.where(size == 0, scale.astype(error.dtype), error)
            return jnp.where(jnp.isfinite(size), factor.astype(error.dtype) * error, jnp.inf)

        return jax.lax.stop_gradient(jax.tree.map(leaf, found.error, scale))


def _first_of(f: Array, slots: int) -> Array:
    """The history of one derivative."""
    return jnp.zeros((slots, *f.shape), f.dtype).at[0].set(f)
