"""Back over the kept steps of a solve: what is the same for every one-step or multistep method.

diffrax solves and keeps the state at the end of every accepted step; the gradient goes back over
the steps. Each is computed again and differentiated, together with what was observed inside it, and
its inside forgotten. Step sizes are taken as given, as torchdiffeq does.

So does diffrax, but for one case: where a step that was cut at the last time is rejected, the next
one is a part of it in diffrax, and so its end moves with the last time; here only the last step's
end does. Both are derivatives of the solution to within the tolerance, and differ by that.
"""

from collections.abc import Callable

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jax_node.jumps import before_jump, between_jumps, moves_with_start

Scalar = Float[Array, ""]
# Maps (t0, t1, y0, y1, ks) to the polynomial through one step, which `ks` bend.
Interpolate = Callable[..., diffrax.AbstractLocalInterpolation]


def go_back(
    pull_step: Callable,
    interpolate: Interpolate,
    step_ts: Float[Array, " steps"],
    n_steps: Int[Array, ""],
    ts: Float[Array, " times"],
    params: PyTree,
    jump_ts: Float[Array, " jumps"] | None,
    observed: PyTree,
    memory: PyTree = (),
) -> tuple[PyTree, Float[Array, " times"], PyTree]:
    """The gradients with respect to `y0`, `ts` and the parameters.

    `step_ts` are the times from which the solve went on after each of its `n_steps` steps,
    `observed` the cotangents of the states at `ts`. Step `n` is pulled back by
    `pull_step(n, t0, t1, a, memory, observe)`, where `a` is the cotangent of the state at its end
    and `memory` what the step after it handed on. It returns the cotangents of `t0`, `t1`, the
    state at its start and the parameters; what `observe` returned second; and the memory for the
    step before. `observe(y0, y1, ks)` returns `a` with all that was observed inside the step: the
    cotangents of `t0`, `t1`, `y0`, `y1` and `ks`.
    """
    last = len(ts) - 1
    forwards = ts[-1] > ts[0]
    first, final = between_jumps(ts[0], ts[-1], jump_ts)
    at = lambda i: jax.tree.map(lambda leaf: leaf[i], observed)

    def body(carry):
        n, j, a, p, dts, memory = carry
        start = jnp.where(n == 0, first, step_ts[n - 1])
        end = before_jump(jnp.where(n == n_steps - 1, final, step_ts[n]), jump_ts, forwards)

        def observe(y0, y1, ks):
            zeros = jax.tree.map(jnp.zeros_like, (start, end, y0, a, ks))
            found = *zeros[:3], a, zeros[4]
            if last == 1:  # nothing is observed inside of steps
                return found, (j, dts)

            def inside(carry):
                j, *_ = carry
                return (j > 0) & jnp.where(forwards, ts[j] > start, ts[j] < start)

            def evaluate(t0, t1, y0, y1, ks, t):
                return interpolate(t0, t1, y0, y1, ks).evaluate(t)

            def pull(carry):
                j, found, dts = carry
                *more, dt = jax.vjp(evaluate, start, end, y0, y1, ks, ts[j])[1](at(j))
                return j - 1, add(found, tuple(more)), dts.at[j].add(dt)

            j_left, found, grown = jax.lax.while_loop(inside, pull, (j, found, dts))
            return found, (j_left, grown)

        (dt0, dt1, a, more), (j, dts), memory = pull_step(n, start, end, a, memory, observe)
        # Step times move with t0 up to the first jump, except the end, which is t1.
        moves = lambda t: moves_with_start(t, ts[0], jump_ts, forwards)
        dts = dts.at[0].add(jnp.where(moves(start), dt0, 0))
        at_end = n == n_steps - 1
        dts = dts.at[jnp.where(at_end, last, 0)].add(jnp.where(at_end | moves(end), dt1, 0))
        return n - 1, j, a, add(p, more), dts, memory

    p = jax.tree.map(jnp.zeros_like, params)
    start = n_steps - 1, last - 1, at(last), p, jnp.zeros_like(ts), memory
    _, _, a, p, dts, _ = jax.lax.while_loop(lambda carry: carry[0] >= 0, body, start)
    return add(a, at(0)), dts, p


def before(n: Int[Array, ""], y0: PyTree, step_ys: PyTree) -> PyTree:
    """The state at the start of step `n`, if `step_ys` are those at the ends of the steps."""
    return jax.tree.map(lambda first, kept: jnp.where(n == 0, first, kept[n - 1]), y0, step_ys)


def add(left: PyTree, right: PyTree) -> PyTree:
    """The sum, leaf by leaf."""
    return jax.tree.map(jnp.add, left, right)
