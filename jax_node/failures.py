"""Why a solve failed: a number inside compiled programs, a sentence outside of them."""

import enum
import math


class SolveError(RuntimeError):
    """A solve that did not reach its last time; the message says why, where and what to try."""


class Cause(enum.IntEnum):
    """What ended a solve."""

    NONE = 0
    STEPS = 1
    FIXED_STEPS = 2
    RESOLUTION = 3
    NOT_FINITE = 4
    TIMES = 5
    OPTIONS = 6


_WHY = {
    Cause.STEPS: "`max_steps` was reached: raise it, loosen `rtol` and `atol`, or, if the field is "
    "stiff, keep its weights smaller by a lower learning rate",
    Cause.FIXED_STEPS: "`max_steps` was reached: raise it, or enlarge `step_size`",
    Cause.RESOLUTION: "its steps shrank to the spacing of floating point numbers: the solution "
    "blows up or jumps there (give jumps as `jump_ts`), or `rtol` and `atol` are too tight for the "
    "dtype",
    Cause.NOT_FINITE: "the field or the state is not finite from there on: keep the state where "
    "the field is defined, or lower the learning rate, `rtol` and `atol` or the step size",
}
_REFUSED = {
    Cause.TIMES: "the solve was refused: `ts` must be finite and strictly increasing or "
    "decreasing, in its own dtype",
    Cause.OPTIONS: "the solve was refused: `rtol` and `atol` must be at least 0 and not both 0, "
    "`step_size` and `dtmax` finite, above 0 and above the spacing of floating point numbers at "
    "`ts` (of Adams methods by 500 times: count time from another origin), `jump_ts` finite, "
    "and `norm` larger for larger states",
}


def failure(cause: Cause, *, t: float, step: float, nfe: int, steps: int, rejected: int) -> str:
    """One sentence about a failed solve, that stopped at `t` in a step of size `step`."""
    if cause in _REFUSED:
        return _REFUSED[cause]
    size = f", the last of size {step:.2g}" if math.isfinite(step) else ""
    return (
        f"the solve stopped at t = {t:.9g} after {steps} steps ({rejected} rejected{size}, NFE "
        f"{nfe}): {_WHY[cause]}"
    )
