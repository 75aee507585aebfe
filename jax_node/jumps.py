"""Times at which a field jumps: no step reaches over one, and none evaluates the field at one.

diffrax steps to the floating point number before a jump and goes on from the one after it. The
ends of a solve, and the steps that a gradient goes back over, are moved here in the same way.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Time = Float[Array, ""]
Jumps = Float[Array, " jumps"] | None


def between_jumps(t0: Time, t1: Time, jump_ts: Jumps) -> tuple[Time, Time]:
    """`t0` and `t1`, each moved towards the other by a rounding if it is a jump."""
    if jump_ts is None:
        return t0, t1
    towards = lambda t, other: jnp.where(jnp.any(jump_ts == t), _next(t, other), t)
    return towards(t0, t1), towards(t1, t0)


def before_jump(end: Time, jump_ts: Jumps, forwards: Bool[Array, ""]) -> Time:
    """Where a step ended, if the next one starts at `end`: it may have jumped in between."""
    if jump_ts is None:
        return end
    back = jnp.where(forwards, -jnp.inf, jnp.inf).astype(end.dtype)
    jump = _next(end, back)
    return jnp.where(jnp.any(jump_ts == jump), _next(jump, back), end)


def moves_with_start(
    t: Time, t0: Time, jump_ts: Jumps, forwards: Bool[Array, ""]
) -> Bool[Array, ""] | bool:
    """Whether no jump ends the way from `t0` to a step time `t`, so that `t` moves with `t0`."""
    if jump_ts is None:
        return True
    ahead = jnp.where(forwards, 1, -1).astype(t.dtype)
    reached = (_next(t, ahead * jnp.inf) - jump_ts) * ahead >= 0
    return ~jnp.any(((jump_ts - t0) * ahead > 0) & reached)


def _next(t: Time, towards: Time) -> Time:
    """The floating point number after `t` (of normal ones, as in diffrax); it moves as `t` does."""
    at, towards = jax.lax.stop_gradient((t, towards))
    tiny = jnp.copysign(jnp.finfo(t.dtype).tiny, towards - at).astype(t.dtype)
    return t + (jnp.where(at == 0, tiny, jnp.nextafter(at, towards)) - at)
