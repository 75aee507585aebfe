"""Step sizes: fixed ones, and the first of an adaptive solve.

Both exist in diffrax 0.7.2 but not as its documentation says. It means to choose the first step
size, but wraps the vector field before it looks whether there is one, and takes 0.01 for every
problem. Its `ConstantStepSize` makes one step of `dt0` and divides the rest evenly.
"""

from collections.abc import Callable

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jax_node.adjoint import Field


def first_step(
    field: Field,
    t0: Float[Array, ""],
    t1: Float[Array, ""],
    y0: PyTree,
    args: PyTree,
    *,
    order: int,
    rtol: float | Float[Array, ""],
    atol: float | Float[Array, ""],
    norm: Callable[[PyTree], Float[Array, ""]],
) -> tuple[Float[Array, ""], PyTree]:
    """A step size whose error the tolerances allow, by two evaluations; its sign is `t1 - t0`'s.

    Returned with it is the first of the two, `field(t0, y0, args)`, which the first step needs too.

    Hairer, Norsett and Wanner, *Solving ODEs I*, II.4, "Starting step size": an explicit Euler
    step estimates the second derivative, and `h^order * max(|y'|, |y''|) = 0.01`.
    """
    scaled = lambda tree: norm(jax.tree.map(lambda a, y: a / (atol + rtol * jnp.abs(y)), tree, y0))
    direction = jnp.sign(t1 - t0)
    f0 = field(t0, y0, args)
    size, slope = scaled(y0), scaled(f0)
    tiny = (size < 1e-5) | (slope < 1e-5)
    h0 = jnp.where(tiny, 1e-6, 0.01 * size / jnp.where(tiny, 1.0, slope)).astype(t0.dtype)
    y_euler = jax.tree.map(lambda y, f: y + direction * h0 * f, y0, f0)
    f1 = field(t0 + direction * h0, y_euler, args)
    curvature = scaled(jax.tree.map(jnp.subtract, f1, f0)) / h0
    largest = jnp.maximum(slope, curvature)
    flat = largest <= 1e-15
    h1 = jnp.where(
        flat,
        jnp.maximum(1e-6, h0 * 1e-3),
        (0.01 / jnp.where(flat, 1.0, largest)) ** (1 / order),
    )
    h = jnp.minimum(jnp.minimum(100 * h0, h1), jnp.abs(t1 - t0))
    return jax.lax.stop_gradient((direction * h).astype(t0.dtype)), f0


class FixedStep(diffrax.AbstractStepSizeController[tuple, None]):
    """Steps of `dt0` from `t0` on, the last one cut at `t1`: the grid that torchdiffeq makes."""

    def wrap(self, direction):
        """The same forwards and backwards in time."""
        del direction
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        """First step, and the state `(steps made, t0, t1, dt0)`."""
        del terms, y0, args, func, error_order
        return t0 + dt0, (jnp.asarray(1), t0, t1, dt0)

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        """Accept the step; the next ends at `t0 + n dt0`, free of accumulated rounding."""
        del t0, y0, y1_candidate, args, y_error, error_order
        made, start, end, dt0 = controller_state
        t_next = start + (made + 1) * dt0
        # What rounding leaves before the end is no step.
        rounding = 8 * jnp.finfo(t_next.dtype).eps * jnp.maximum(jnp.abs(start), jnp.abs(end))
        t_next = jnp.where(jnp.abs(end - t_next) <= rounding, end, t_next)
        return True, t1, t_next, False, (made + 1, start, end, dt0), diffrax.RESULTS.successful
