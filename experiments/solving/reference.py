"""Reference solutions in extended precision, by extrapolation.

Gragg's explicit midpoint rule has an error expansion in even powers of the step, which polynomial
extrapolation removes (the method of Gragg, Bulirsch and Stoer; Hairer, Norsett, Wanner, Solving
Ordinary Differential Equations I, II.9). In numpy's longdouble (64 bits of mantissa on x86) it is
better than any double precision solver under comparison; where longdouble is no longer than
double, it is as good as they can be.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from experiments.solving.problems import InitialValue

_COLUMNS = 10
_EPS = np.finfo(np.longdouble).eps
_TOLERANCE = 100 * float(_EPS)
_SUBSTEPS = np.array([2 * (j + 1) for j in range(_COLUMNS)])  # harmonic sequence, doubled


def _extrapolated(problem: InitialValue, t, y, step):
    """Return the step's result, and its relative difference to the entry of lower order.

    Of the results of order 4 to 2 * _COLUMNS that of the smallest difference is taken: where a step
    is small, as near a singularity, more columns only magnify rounding.
    """
    best, least = y, np.longdouble(np.inf)
    f0 = problem.field(np, t, y)
    row: list = []
    for i, n in enumerate(_SUBSTEPS):
        h = step / n
        before, now = y, y + h * f0
        for j in range(1, n):
            before, now = now, before + 2 * h * problem.field(np, t + j * h, now)
        # The parity of n is even, so the last point itself is the value of Gragg's expansion.
        new = [now]
        for k in range(i):
            ratio = (np.longdouble(n) / _SUBSTEPS[i - k - 1]) ** 2
            new.append(new[k] + (new[k] - row[k]) / (ratio - 1))
        if i:
            scale = 1e-3 + np.maximum(np.abs(y), np.abs(new[-1]))
            # Two results may agree by chance: neither is better than its last digit.
            size = max(np.max(np.abs(new[-1] - new[-2]) / scale), _EPS)
            if size < least:
                best, least = new[-1], size
        row = new
    return best, least


def solve(problem: InitialValue, tolerance: float = _TOLERANCE) -> Float[np.ndarray, " size"]:
    """Return y(t1) in longdouble; `tolerance` bounds each step's relative extrapolation error.

    Raises:
        ArithmeticError: the step became too small; the tolerance is below the rounding errors.
    """
    t, t1 = np.longdouble(0), np.longdouble(problem.t1)
    y = problem.y0.astype(np.longdouble)
    step = t1 / 100
    while t < t1:
        step = min(step, t1 - t)
        new, size = _extrapolated(problem, t, y, step)
        if size <= tolerance:
            t, y = t + step, new
        elif step < 1e-6 * t1:
            raise ArithmeticError(f"{problem.name}: no step at t = {t:.6g} errs below {tolerance}.")
        factor = 0.9 * (tolerance / size) ** (1 / (2 * _COLUMNS - 1))
        step = step * np.longdouble(min(3.0, max(0.2, factor)))
    return y
