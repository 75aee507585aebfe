"""Step size control for `Adams`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from diffrax import RESULTS, AbstractAdaptiveStepSizeController, AbstractWrappedSolver
from jaxtyping import Array, Bool, Float, Int

from jax_node.adams.field import Y, add_scaled, evaluate
from jax_node.adams.variable import SAFETY, Adams

_GRID = 4  # a quarter of an octave is the least change that is worthwhile
_SHRINK_ACCEPTED = 0.91
_SHRINK_REJECTED = 0.7
_SHRINK_NOT_FINITE = 0.1
_STRETCH = 1.05  # a rest this much longer than the step is taken in one
_LARGEST, _SMALLEST = 100.0, 1e-3


class AdamsControllerState(eqx.Module):
    """What was planned: the `end` of the solve, and the size of this step if nothing cuts it short.

    `nfe` counts evaluations that the solver state does not: the ones for the first step size, and
    of rejected steps. A solver evaluates once more in a step that starts from a jump; that there
    was one shows in a start `t0` other than the `expected` one, since diffrax steps over a jump.
    """

    end: Float[Array, ""]
    planned: Float[Array, ""]
    expected: Float[Array, ""]
    after_jump: Bool[Array, ""]
    nfe: Int[Array, ""]


class AdamsController(AbstractAdaptiveStepSizeController[AdamsControllerState, Any]):
    """An integral controller for `Adams`, which leaves steps alone and looks after both ends.

    The error of a component y is measured in units of atol + rtol * max(|y_n|, |y_{n+1}|), and the
    step is accepted if the norm of these is below one. A step changes by powers of 2^(1/4), and
    stays where it would grow by less than a fifth: equal steps make the order's estimates sharper,
    and do not hang on rounding errors. After a step that was cut short, by `ClipStepSizeController`
    for one, the solve goes on with the step that was planned.

    The first step is chosen for order 1, about as in Hairer, Norsett, Wanner I, II.4; the last two
    are of equal size. A step that is rejected until it has shrunk to the spacing of floating point
    numbers ends the solve with `RESULTS.dt_min_reached`: the solution blows up, or the field is not
    finite.

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
        t0, t1 = jnp.asarray(t0), jnp.asarray(t1)
        solver = getattr(func, "__self__", None)
        if not isinstance(solver, Adams) or isinstance(solver, AbstractWrappedSolver):
            raise ValueError(
                "AdamsController chooses the steps of Adams, but the solver is "
                f"{type(solver).__name__}: use diffrax.PIDController(rtol, atol), or constant "
                "steps for a solver that estimates no error."
            )
        nfe = 0
        if dt0 is None:
            dt0 = self._first_step(terms, t0, t1, y0, args)
            nfe = 2
        state = AdamsControllerState(
            end=t1,
            planned=dt0,
            expected=t0,
            after_jump=jnp.asarray(False),
            nfe=jnp.asarray(nfe, jnp.int32),
        )
        return t0 + dt0, state

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        """Accept or reject, and return the next step's ends."""
        del args
        t0, t1 = jnp.asarray(t0), jnp.asarray(t1)
        state = controller_state
        taken = t1 - t0
        error = self._size(y_error, y0, y1_candidate).astype(t1.dtype)
        keep = error < 1
        tiny = jnp.finfo(error.dtype).tiny
        ideal = SAFETY * jnp.maximum(error, tiny) ** (-1 / error_order)
        on_grid = 2 ** (jnp.floor(_GRID * jnp.log2(ideal) + 0.01) / _GRID)
        factor = jnp.where(
            keep,
            jnp.clip(on_grid, _SHRINK_ACCEPTED, _LARGEST),
            jnp.clip(on_grid, _SMALLEST, _SHRINK_REJECTED),
        )
        factor = jax.lax.stop_gradient(
            jnp.where(jnp.isfinite(error), factor, _SHRINK_NOT_FINITE)
        ).astype(t1.dtype)
        start = jnp.where(keep, t1, t0)
        least = _resolution(start)
        planned = taken * factor
        planned = jnp.where(keep, jnp.maximum(planned, least), planned)
        cut_short = keep & (taken < (1 - 1e-3) * state.planned)
        planned = jnp.where(cut_short, jnp.maximum(planned, state.planned), planned)

        # A state that was saved at the end of a solve knows only the end of that one.
        rest = jnp.where(state.end > start, state.end - start, jnp.inf)
        last = rest <= _STRETCH * planned
        step = jnp.where(last, rest, jnp.where(rest < 2 * planned, rest / 2, planned))
        stop = jnp.where(last, state.end, start + step)

        after_jump = (t0 != state.expected) | state.after_jump
        wasted = jnp.where(keep, 0, 1 + after_jump.astype(state.nfe.dtype))
        new_state = AdamsControllerState(
            end=state.end,
            planned=planned,
            expected=start,
            after_jump=after_jump & ~keep,
            nfe=state.nfe + wasted,
        )
        stuck = ~keep & (planned <= least)
        result = RESULTS.where(stuck, RESULTS.dt_min_reached, RESULTS.successful)
        return keep, start, stop, False, new_state, result

    def _size(self, error: Y, y0: Y, y1: Y) -> Float[Array, ""]:
        def leaf(e: Array, a: Array, b: Array) -> Array:
            with jax.numpy_dtype_promotion("standard"):
                return e / (self.atol + self.rtol * jnp.maximum(jnp.abs(a), jnp.abs(b)))

        scaled = jax.lax.stop_gradient(jax.tree.map(leaf, error, y0, y1))
        with jax.numpy_dtype_promotion("standard"):  # leaves may have several dtypes
            return jnp.asarray(self.norm(scaled), float)

    def _first_step(self, terms, t0, t1, y0, args) -> Float[Array, ""]:
        """The step on which Euler's method errs by 1/100; as far as |y| / |f| at most.

        Unlike Hairer, Norsett and Wanner's, it is the same in all units of time: where they take
        the larger of y' and y'', it takes y''. A step too long is cut at the price of one
        evaluation.
        """

        def step(carry, _):
            t, y, f0, h = carry
            f = evaluate(terms, t, y, args)
            bend = jax.tree.map(lambda a, b: (a - b) / h.astype(a.dtype), f, f0)
            d0, d1, d2 = (self._size(e, y0, y0).astype(t.dtype) for e in (y0, f, bend))
            # Euler's trial moves the state by a hundredth of itself, or by a tolerance.
            trial = jnp.where(d0 < 1e-5, 1, 0.01 * d0) / d1
            trial = jnp.where(jnp.isfinite(trial), trial, 1e-6 * (t1 - t0))
            trial = jnp.minimum(jnp.maximum(trial, 100 * _resolution(t0)), t1 - t0)
            best = jnp.minimum(jnp.sqrt(0.01 / d2), 100 * h)
            # Rounding must not lead beyond the end, where the field need not be defined.
            t = jnp.minimum(t0 + trial, t1)
            return (t, add_scaled(y0, trial, f), f, trial), best

        zeros = jax.tree.map(jnp.zeros_like, y0)
        _, (_, best) = jax.lax.scan(step, (t0, y0, zeros, jnp.ones_like(t0)), None, length=2)
        least = 100 * _resolution(t0)
        return jax.lax.stop_gradient(jnp.where(jnp.isfinite(best), jnp.maximum(best, least), least))


def _resolution(t: Float[Array, ""]) -> Float[Array, ""]:
    """The least step worth taking from t: a few spacings of floating point numbers there."""
    info = jnp.finfo(t.dtype)
    return 4 * float(info.eps) * jnp.abs(t) + 1e3 * float(info.tiny)
