"""Step sizes: the first of an adaptive solve, the following ones, and fixed ones.

All of them exist in diffrax 0.7.2 but not as they are needed here. It means to choose the first
step size, but wraps the vector field before it looks whether there is one, and takes 0.01 for
every problem. Its `PIDController` has one smallest step for all times, and goes on with a step of
NaN; its `ConstantStepSize` makes one step of `dt0` and divides the rest evenly.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from diffrax import RESULTS
from jaxtyping import Array, Bool, Float, Int, PyTree

from jax_node import sharding
from jax_node.adjoint import Field, measured

Scalar = Float[Array, ""]
SAFETY, LARGEST, SMALLEST, NOT_FINITE = 0.9, 10.0, 0.2, 0.1  # factors of the step size
TRIES = 10  # so often a step is divided by ten before a field is given up as not finite


def resolution(t: Scalar) -> Scalar:
    """The least step worth taking at `t`: a few spacings of floating point numbers there."""
    info = jnp.finfo(t.dtype)
    return 4 * info.eps * jnp.abs(t) + 1e3 * info.tiny


def scaled_norm(
    errors: PyTree, sizes: PyTree, rtol: Scalar, atol: Scalar, norm: Callable[[PyTree], Scalar]
) -> Scalar:
    """Norm of `errors` in units of `atol + rtol * |sizes|`; what is 0 is 0 in units of 0 too."""

    def scale(error: Array, size: Array) -> Array:
        unit = atol.astype(size.dtype) + rtol.astype(size.dtype) * jnp.abs(size)
        return error / jnp.maximum(unit, jnp.finfo(size.dtype).tiny)

    return norm(jax.tree.map(scale, errors, sizes))


def first_step(
    field: Field,
    t0: Scalar,
    t1: Scalar,
    y0: PyTree,
    args: PyTree,
    *,
    order: int,
    rtol: Scalar,
    atol: Scalar,
    norm: Callable[[PyTree], Scalar],
) -> tuple[Scalar, PyTree]:
    """A step size whose error the tolerances allow, by two evaluations; its sign is `t1 - t0`'s.

    Returned with it is the first of the two, `field(t0, y0, args)`, which the first step needs too.
    Neither is outside of `t0` to `t1`.

    Hairer, Norsett and Wanner, *Solving ODEs I*, II.4, "Starting step size": an explicit Euler
    step estimates the second derivative, and `h^order * max(|y'|, |y''|) = 0.01`. Components that
    start at 0 under an `atol` of 0 have no size to measure by, and are left out.
    """
    rtol, atol, size_of = jnp.asarray(rtol), jnp.asarray(atol), measured(y0)

    def scaled(tree: PyTree) -> Scalar:
        known = jax.tree.map(
            lambda a, y: jnp.where((y == 0) & (atol == 0), 0, a), measured(tree), size_of
        )
        return scaled_norm(known, size_of, rtol, atol, norm)

    span = jnp.abs(t1 - t0)
    direction = jnp.sign(t1 - t0)
    f0 = field(t0, y0, args)
    size, slope = scaled(y0), scaled(f0)
    tiny = (size < 1e-5) | (slope < 1e-5)
    h0 = jnp.where(tiny, 1e-6, 0.01 * size / jnp.where(tiny, 1, slope)).astype(t0.dtype)
    h0 = jnp.minimum(h0, span)
    move = direction * h0
    y_euler = jax.tree.map(lambda y, f: y + move.astype(y.dtype) * f, y0, f0)
    f1 = field(jnp.where(h0 == span, t1, t0 + move), y_euler, args)
    curvature = scaled(jax.tree.map(jnp.subtract, f1, f0)) / h0.astype(slope.dtype)
    largest = jnp.maximum(slope, curvature)
    flat = largest <= 1e-15
    h1 = jnp.where(
        flat,
        jnp.maximum(1e-6, h0 * 1e-3).astype(slope.dtype),
        (0.01 / jnp.where(flat, 1, largest)) ** (1 / order),
    ).astype(t0.dtype)
    # Beyond the end where one step will do: diffrax cuts it there, and the derivative of a cut
    # between equals would be halved.
    h = jnp.minimum(jnp.minimum(100 * h0, h1), 2 * span)
    return jax.lax.stop_gradient(direction * h), f0


class StepState(NamedTuple):
    """State of a controller: what `Solution` tells of the steps.

    `step` is the size of the latest, `finite` whether its error (or state) was; `expected` is where
    the next one starts unless a jump is stepped over, and `restarts` counts steps that did not
    start there: a first-same-as-last method evaluates once more in each. `wall` is the earliest
    end of `tries` steps that were not finite, as long as no step has come beyond it.
    """

    step: Float[Array, ""]
    finite: Bool[Array, ""]
    expected: Float[Array, ""]
    restarts: Int[Array, ""]
    wall: Float[Array, ""]
    tries: Int[Array, ""]

    @classmethod
    def start(cls, t0: Scalar) -> "StepState":
        """Before the first step."""
        none = jnp.zeros((), jnp.int32)
        infinity = jnp.full((), jnp.inf, t0.dtype)
        return cls(jnp.zeros_like(t0), jnp.asarray(True), t0, none, infinity, none)

    def after(
        self, t0: Scalar, t1: Scalar, keep: Bool[Array, ""], finite: Bool[Array, ""]
    ) -> "StepState":
        """After a step from `t0` to `t1`."""
        passed = keep & (t1 > self.wall)
        wall = jnp.where(finite, self.wall, jnp.minimum(self.wall, t1))
        return StepState(
            step=t1 - t0,
            finite=finite,
            expected=jnp.where(keep, t1, self.expected),
            restarts=self.restarts + (t0 != self.expected).astype(jnp.int32),
            wall=jnp.where(passed, jnp.inf, wall),
            tries=jnp.where(passed, 0, self.tries + (~finite).astype(jnp.int32)),
        )


class AdaptiveStep(diffrax.AbstractAdaptiveStepSizeController[StepState, Scalar]):
    """The step is multiplied by `0.9 error^(-1 / order)`, within 0.2 and 10; accepted below 1.

    As diffrax's `PIDController` with its defaults, but the smallest step is the resolution of the
    *present* time: a rejected step below it ends the solve with `dt_min_reached`. So do errors that
    are not finite, if smaller steps (a field may be asked outside of its domain by too long a step)
    do not come beyond where they began.

    **Arguments:** `rtol`, `atol`, `norm`.
    """

    rtol: Scalar
    atol: Scalar
    norm: Callable[[PyTree], Scalar]

    def wrap(self, direction):
        """Diffrax turns the field: the same forwards and backwards in time."""
        del direction
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        """The end of the first step, and the state."""
        del terms, t1, y0, args, func, error_order
        return t0 + dt0, StepState.start(t0)

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        """Accept or reject, and the ends of the next step."""
        del args
        sizes = jax.tree.map(
            lambda a, b: jnp.maximum(jnp.abs(a), jnp.where(jnp.isnan(b).any(), 0, jnp.abs(b))),
            measured(y0),
            measured(y1_candidate),
        )
        y_error = measured(y_error)
        error = jax.lax.stop_gradient(scaled_norm(y_error, sizes, self.rtol, self.atol, self.norm))
        keep, finite = error < 1, jnp.isfinite(error)
        factor = jnp.clip(
            SAFETY * (1 / error) ** (1 / error_order),
            jnp.where(keep, 1, SMALLEST),
            jnp.where(keep, LARGEST, SAFETY),
        )
        step = t1 - t0
        factor = jnp.where(finite, factor, NOT_FINITE).astype(step.dtype)
        following = step * factor
        start = jnp.where(keep, t1, t0)
        state = controller_state.after(t0, t1, keep, finite)
        # A step of NaN is stuck too.
        stuck = ~keep & (~(following > resolution(start)) | (state.tries > TRIES))
        result = RESULTS.where(stuck, RESULTS.dt_min_reached, RESULTS.successful)
        return keep, start, start + following, False, state, result


class Limited(diffrax.AbstractAdaptiveStepSizeController):
    """Another controller's steps, of `dtmax` at most; and a `StepState` for one that has none."""

    rtol: Scalar
    atol: Scalar
    norm: Callable[[PyTree], Scalar]
    controller: diffrax.AbstractStepSizeController
    dtmax: Scalar | None

    def wrap(self, direction):
        """The other one's."""
        return dataclasses.replace(self, controller=self.controller.wrap(direction))

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        """The end of the first step, and both states."""
        end, state = self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)
        return self._limited(t0, end), (state, StepState.start(t0))

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        """The other one's, cut short."""
        inner, state = controller_state
        keep, start, end, jump, inner, result = self.controller.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, inner
        )
        state = state.after(t0, t1, keep, all_finite(y_error))
        stuck = state.tries > TRIES
        result = RESULTS.where(stuck, RESULTS.dt_min_reached, result)
        return keep, start, self._limited(start, end), jump, (inner, state), result

    def _limited(self, start, end):
        return end if self.dtmax is None else jnp.minimum(end, start + self.dtmax)


class FixedStep(diffrax.AbstractStepSizeController[tuple, Scalar]):
    """Steps of `dt0` from `t0` on, the last one cut at `t1`: the grid that torchdiffeq makes.

    A step to a state that is not finite ends the solve with `dt_min_reached`, back at its start.
    """

    def wrap(self, direction):
        """The same forwards and backwards in time."""
        del direction
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        """First step, and the state: steps made, t0, t1, dt0, and what is told of the steps."""
        del terms, y0, args, func, error_order
        first = _end_of_step(t0, t1, dt0, 1)
        return first, (jnp.asarray(1), t0, t1, dt0, StepState.start(t0))

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        """Accept the step; the next ends at `t0 + n dt0`, free of accumulated rounding."""
        del y0, args, y_error, error_order
        made, start, end, dt0, state = controller_state
        t_next = _end_of_step(start, end, dt0, made + 1)
        finite = all_finite(y1_candidate)
        state = state._replace(step=t1 - t0, finite=finite)
        result = RESULTS.where(finite, RESULTS.successful, RESULTS.dt_min_reached)
        at = jnp.where(finite, t1, t0)
        return True, at, t_next, False, (made + 1, start, end, dt0, state), result


def _end_of_step(start: Scalar, end: Scalar, dt0: Scalar, number: Int[Array, ""] | int) -> Scalar:
    """`start + number dt0`; what rounding leaves before the end is no step.

    The last step's end moves with `end`, and not by half: so diffrax's cut between equals would
    differentiate it.
    """
    t_next = start + jnp.asarray(number, dt0.dtype) * dt0
    rounding = 8 * jnp.finfo(t_next.dtype).eps * jnp.maximum(jnp.abs(start), jnp.abs(end))
    return jnp.where(jnp.abs(end - t_next) <= rounding, end, t_next)


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether all numbers are finite, on all devices that share the batch."""
    not_finite = [jnp.sum(~jnp.isfinite(leaf), dtype=jnp.int32) for leaf in jax.tree.leaves(tree)]
    return sharding.total(sum(not_finite, start=jnp.zeros((), jnp.int32))) == 0
