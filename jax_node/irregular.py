"""Solve for many samples at once, each observed at its own times.

A batched solve has one clock. Here it counts observations: on the k-th interval, time is
`t = t_k + s (t_{k+1} - t_k)` with `s` from 0 to 1, where `t_k` is each sample's own, so that
`dy/ds = (t_{k+1} - t_k) f(t, y)`. Every step lands on an observation of every sample; nothing is
padded, interpolated or waited for, and the gradient with respect to the times is that of the
computed states. A sample with fewer observations repeats its last time and stands still there.
"""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jax_node import validate
from jax_node.adjoint import Field
from jax_node.rk4 import RK4
from jax_node.runge_kutta import step

Values = Float[Array, "*batch times channels"]

METHODS = {"euler": diffrax.Euler, "midpoint": diffrax.Midpoint, "rk4": RK4}


def known(values: Values, mask: Values) -> Values:
    """`values`, and 0 where `mask` is: what is not there may be NaN, and 0 times NaN is NaN.

    ValueError for a mask of another shape.
    """
    validate.shape("mask", mask, values.shape)
    return jnp.where(mask == 0, 0, values)


def solve_at(
    field: Field,
    y0: Float[Array, " batch *state"],
    ts: Float[Array, "#batch times"],
    args: PyTree = None,
    *,
    solver: str = "rk4",
    substeps: int = 1,
) -> Float[Array, " batch times *state"]:
    """The states of `dy/dt = field(t, y, args)`, `y(ts[:, 0]) = y0`, at each sample's own times.

    Args:
        field: maps times `[batch]` and states to derivatives, sample by sample.
        y0: initial states.
        ts: observation times; within a row never decreasing (or never increasing). One row serves
            all samples.
        args: parameters of the field.
        solver: a name in `METHODS`.
        substeps: equal steps between two observations.

    Gradients are those of the computed states (discretise-then-optimise), in all arguments.

    Raises:
        ValueError: the solver is not in `METHODS`, `substeps` is no whole number from 1 on, `y0` or
            `ts` are no float32 or float64 (states may be complex), `ts` has not a row for each
            sample, or the field does not return the shape of the state.
    """
    y0, ts = jnp.asarray(y0), jnp.asarray(ts)
    if not isinstance(substeps, int | np.integer) or substeps < 1:
        raise ValueError(f"`substeps` is {substeps}: give a whole number, at least 1")
    if solver not in METHODS:
        raise ValueError(
            f"solver {solver!r} does not step from observation to observation: choose one of "
            f"{', '.join(METHODS)}"
        )
    for name, dtype in (("y0", y0.real.dtype), ("ts", ts.dtype)):
        if dtype not in validate.DTYPES:  # in bfloat16 a small step is none
            raise ValueError(f"`{name}` is {dtype}: give float32 or float64")
    if ts.ndim != 2 or 0 in ts.shape or y0.ndim < 1 or len(ts) not in (1, len(y0)):
        raise ValueError(
            f"`ts` is {list(ts.shape)} for `y0` of {list(y0.shape)}: give times [batch, times] for "
            "states [batch, ...]"
        )
    method = METHODS[solver]()
    column = lambda t: t.reshape(t.shape + (1,) * (y0.ndim - 1))

    # Times may be wider than states, and stay so.
    clock = jnp.linspace(0, 1, substeps + 1, dtype=jnp.finfo(y0.dtype).dtype)

    def interval(y, times):
        start, end = times
        gap = end - start
        # start + gap may be a rounding beyond the end, where the field need not be defined.
        at = lambda s: jnp.where(s == 1, end, start + s.astype(gap.dtype) * gap)

        def scaled(s, y, args):
            dy = field(at(s), y, args)
            if dy.shape != y.shape:
                raise ValueError(
                    f"the field returns {list(dy.shape)} for a state of {list(y.shape)}: return "
                    "dy/dt with the shape of the state"
                )
            return column(gap).astype(clock.dtype) * dy

        def substep(y, s):
            y, _ = step(scaled, method, s[0], s[1], y, args, last_stage=False)
            return y, None

        if substeps == 1:
            y, _ = substep(y, clock[:2])
        else:
            y, _ = jax.lax.scan(substep, y, jnp.stack([clock[:-1], clock[1:]], axis=1))
        return y, y

    _, ys = jax.lax.scan(interval, y0, (ts[:, :-1].T, ts[:, 1:].T))
    return jnp.concatenate([y0[:, None], jnp.moveaxis(ys, 0, 1)], axis=1)
