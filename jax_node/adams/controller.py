"""Step size control for `Adams`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from diffrax import RESULTS, AbstractAdaptiveStepSizeController
from jaxtyping import Array, Bool, Float, Inexact, Int, PyTree

from jax_node.adams import history
from jax_node.adams.variable import ERROR_ORDER, SAFETY

_STRETCH = 1.05  # a rest this much longer than the step is taken in one
_LARGEST, _SMALLEST, _NOT_FINITE = 10.0, 1e-3, 0.1  # factors of the step size

Y = PyTree[Inexact[Array, "..."]]


class AdamsControllerState(eqx.Module):
    """`end` is the last time of the solve; `nfe` counts evaluations that the solver state does not.

    These are the ones for the first step size, and of rejected steps. A solver evaluates once more
    in a step that starts from a jump; that there was one shows in a start `t0` other than the
    `expected` one, since diffrax steps over a jump.
    """

    end: Float[Array, ""]
    expected: Float[Array, ""]
    after_jump: Bool[Array, ""]
    nfe: Int[Array, ""]


class AdamsController(AbstractAdaptiveStepSizeController[AdamsControllerState, Any]):
    """Takes the steps that `Adams` chooses, and looks after both ends of the interval.

    The error of a component y is measured in units of atol + rtol * max(|y_n|, |y_{n+1}|), and the
    step is accepted if the norm of these is below one. The first step is chosen for order 1, about
    as in Hairer, Norsett, Wanner I, II.4; the last two are of equal size. A step that shrinks to
    the spacing of floating point numbers ends the solve with `RESULTS.dt_min_reached`: the solution
    blows up, or the field is not finite.

    **Arguments:** `rtol`, `atol`, and `norm`, from a PyTree to a scalar (root mean square).
    """

    rtol: Any
    atol: Any
    norm: Callable = optx.rms_norm

    def wrap(self, direction):
        """Diffrax integrates forwards and turns the field: nothing to change here."""
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        """Return the end of the first step, and the state."""
        nfe = 0
        if dt0 is None:
            dt0 = self._first_step(terms, t0, t1, y0, args)
            nfe = 2
        state = AdamsControllerState(
            end=t1,
            expected=t0,
            after_jump=jnp.asarray(False),
            nfe=jnp.asarray(nfe, jnp.int32),
        )
        return t0 + dt0, state

    def adapt_step_size(self, t0, t1, y0, y1_candidate, args, y_error, error_order, state):
        """Accept or reject, and return the next step's ends."""
        del args, error_order
        error = self._size(y_error, y0, y1_candidate)
        keep = error < 1
        tiny = jnp.finfo(error.dtype).tiny
        factor = jnp.clip(
            SAFETY * jnp.maximum(error, tiny) ** (-1 / ERROR_ORDER), _SMALLEST, _LARGEST
        )
        factor = jnp.where(jnp.isfinite(error), factor, _NOT_FINITE)
        start = jnp.where(keep, t1, t0)
        step = (t1 - t0) * jax.lax.stop_gradient(factor).astype(t1.dtype)
        rest = state.end - start
        last = rest <= _STRETCH * step
        step = jnp.where(last, rest, jnp.where(rest < 2 * step, rest / 2, step))
        stop = jnp.where(last, state.end, start + step)

        after_jump = (t0 != state.expected) | state.after_jump
        wasted = jnp.where(keep, 0, 1 + after_jump).astype(state.nfe.dtype)
        new_state = AdamsControllerState(
            end=state.end,
            expected=start,
            after_jump=after_jump & ~keep,
            nfe=state.nfe + wasted,
        )
        stuck = (step <= _resolution(start)) & (rest > step)
        result = RESULTS.where(stuck, RESULTS.dt_min_reached, RESULTS.successful)
        return keep, start, stop, False, new_state, result

    def _size(self, error: Y, y0: Y, y1: Y) -> Float[Array, ""]:
        def leaf(e: Array, a: Array, b: Array) -> Array:
            b = jnp.where(jnp.isnan(b).any(), a, b)
            return e / (self.atol + self.rtol * jnp.maximum(jnp.abs(a), jnp.abs(b)))

        return jnp.asarray(self.norm(jax.lax.stop_gradient(jax.tree.map(leaf, error, y0, y1))))

    def _first_step(self, terms, t0, t1, y0, args) -> Float[Array, ""]:
        """The step on which Euler's method errs by 1/100; as far as |y| / |f| at most.

        Unlike Hairer, Norsett and Wanner's, it is the same in all units of time: where they take
        the larger of y' and y'', it takes y''. A step too long is cut at the price of one
        evaluation.
        """

        def step(carry, _):
            t, y, f0, h = carry
            f = history.evaluate(terms, t, y, args)
            d0, d1, d2 = (
                self._size(e, y0, y0)
                for e in (y0, f, jax.tree.map(lambda a, b: (a - b) / h, f, f0))
            )
            # Euler's trial moves the state by a hundredth of itself, or by a tolerance.
            trial = (jnp.where(d0 < 1e-5, 1, 0.01 * d0) / d1).astype(t.dtype)
            trial = jnp.where(jnp.isfinite(trial), trial, 1e-6 * (t1 - t0))
            trial = jnp.maximum(trial, 100 * _resolution(t0))
            best = jnp.minimum(jnp.sqrt(0.01 / d2).astype(t.dtype), 100 * h)
            y = jax.tree.map(lambda y, f: (y + trial * f).astype(y.dtype), y0, f)
            return (t0 + trial, y, f, trial), best

        zeros = jax.tree.map(jnp.zeros_like, y0)
        _, (_, best) = jax.lax.scan(step, (t0, y0, zeros, jnp.ones_like(t0)), None, length=2)
        least = 100 * _resolution(t0)
        return jnp.where(jnp.isfinite(best), jnp.maximum(best, least), least)


def _resolution(t: Float[Array, ""]) -> Float[Array, ""]:
    """The least step worth taking from t: a few spacings of floating point numbers there."""
    info = jnp.finfo(t.dtype)
    return 4 * info.eps * jnp.abs(t) + 1e3 * info.tiny
