"""Initial value problems with closed forms, in no framework: `xp` is `jax.numpy` or `torch`.

The state is a vector. `field(xp, t, y, a)` is its derivative at time `t`, a scalar, with the
parameter `a`, a scalar; `exact(xp, t, t0, y0, a)` the state at `t` if it is `y0` at `t0`. A closed
form is differentiated like any function, so it is also the closed form of every gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """`y' = field`, from `ts[0]` forwards through `ts`, or from `ts[-1]` backwards."""

    name: str
    field: Callable[..., Any]
    exact: Callable[..., Any]
    y0: tuple[float, ...]
    a: float
    ts: tuple[float, ...]


def _decay(xp, t, y, a):
    return -a * y


def _decay_exact(xp, t, t0, y0, a):
    return y0 * xp.exp(-a * (t - t0))


def _logistic(xp, t, y, a):
    return a * y * (1 - y) * xp.cos(t)


def _logistic_exact(xp, t, t0, y0, a):
    return 1 / (1 + (1 / y0 - 1) * xp.exp(-a * (xp.sin(t) - xp.sin(t0))))


def _rotation(xp, t, y, a):
    return a * xp.stack([y[1], -y[0]])


def _rotation_exact(xp, t, t0, y0, a):
    c, s = xp.cos(a * (t - t0)), xp.sin(a * (t - t0))
    return xp.stack([c * y0[0] + s * y0[1], c * y0[1] - s * y0[0]])


def _forced(xp, t, y, a):
    return a * (xp.sin(t) - y) + xp.cos(t)


def _forced_exact(xp, t, t0, y0, a):
    return xp.sin(t) + (y0 - xp.sin(t0)) * xp.exp(-a * (t - t0))


DECAY = Problem("decay", _decay, _decay_exact, (1.0, 0.4), 0.7, (0.0, 0.5, 1.0))
LOGISTIC = Problem("logistic", _logistic, _logistic_exact, (0.1, 0.4), 2.0, (0.0, 0.5, 1.25, 2.0))
ROTATION = Problem("rotation", _rotation, _rotation_exact, (1.0, -0.5), 1.3, (0.25, 0.75, 1.25))
FORCED = Problem("forced", _forced, _forced_exact, (0.3, -0.2), 0.5, (-1.0, 0.0, 0.5, 1.0))
PROBLEMS = (DECAY, LOGISTIC, ROTATION, FORCED)

# What a state may be made of, alike in both frameworks: numbers that are no floats become the
# framework's default floats, and these dtypes, in which a solve makes no sense, are refused.
REFUSED_DTYPES = ("float16", "bfloat16", "complex64")

# y' is 2, from t = 1 on -3, and from t = 2 on 5: times, and the slope at each on the way to it, at
# the first on the way from it.
SLOPES_AT = (
    ((0.25, 3), (2, 5)),
    ((0.25, 1, 1.5, 2, 3), (2, 2, -3, -3, 5)),
    ((3, 2, 1.5, 1, 0.25), (5, 5, -3, -3, 2)),
    ((1, 1.25, 1.5, 1.75, 2), (-3, -3, -3, -3, -3)),
    ((2, 1), (-3, -3)),
)
