"""Coefficients of the Adams methods, derived as exact rationals.

An Adams method replaces y' by the polynomial through known derivatives and integrates it:

    y(t + h) - y(t) = h * sum_j w_j f_j,    w_j = integral_0^1 L_j(s) ds,

where the L_j are the Lagrange polynomials of the nodes at which the f_j were taken, in steps of h
from t. Adams-Bashforth (explicit) takes the nodes 0, -1, ..., 1 - k; Adams-Moulton (implicit) also
takes 1. Source: Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, III.1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Float


def lagrange_integrals(nodes: Sequence[int]) -> list[Fraction]:
    """Return the integral over [0, 1] of the Lagrange polynomial of each node.

    `nodes` are distinct integers; the result sums to one and integrates every polynomial of degree
    below `len(nodes)` exactly.
    """
    weights = []
    for j in nodes:
        polynomial = [Fraction(1)]  # ascending powers of s
        for m in nodes:
            if m == j:
                continue
            shifted = [Fraction(0), *polynomial]
            scaled = [*(-m * c for c in polynomial), Fraction(0)]
            polynomial = [(a + b) / (j - m) for a, b in zip(shifted, scaled, strict=True)]
        weights.append(sum((c / (p + 1) for p, c in enumerate(polynomial)), Fraction(0)))
    return weights


def bashforth(k: int) -> list[Fraction]:
    """Weights of the k-step, order-k Adams-Bashforth method, latest derivative first."""
    return lagrange_integrals(range(0, -k, -1))


def moulton(k: int) -> list[Fraction]:
    """Weights of the order-k Adams-Moulton method: the new derivative, then the k - 1 latest."""
    return lagrange_integrals(range(1, 1 - k, -1))


def extrapolation(k: int) -> list[Fraction]:
    """Weights that extrapolate k equally spaced derivatives one step ahead, latest first."""
    return [Fraction((-1) ** j * math.comb(k, j + 1)) for j in range(k)]


def moulton_error(k: int) -> Fraction:
    """Error constant gamma*_k: the order-k Adams-Moulton step errs by gamma*_k h^(k+1) y^(k+1).

    By the generating function (Hairer, Norsett, Wanner I, III.1, equation 1.9) gamma*_0 = 1 and
    sum_{j=0}^{k} gamma*_j / (k + 1 - j) = 0 for k >= 1.
    """
    gammas: list[Fraction] = [Fraction(1)]
    for m in range(1, k + 1):
        gammas.append(-sum((g / (m + 1 - j) for j, g in enumerate(gammas)), Fraction(0)))
    return gammas[k]


@functools.cache
def fixed_step_tables(
    steps: int,
) -> tuple[
    Float[np.ndarray, "rows steps"],
    Float[np.ndarray, "rows steps"],
    Float[np.ndarray, "rows steps"],
    Float[np.ndarray, " rows"],
]:
    """Return float64 tables for 0 to `steps` known derivatives, one row each, padded by zeros.

    Row k holds, for k known derivatives with the latest first: the Adams-Bashforth weights, the
    Adams-Moulton weights of the known derivatives, the weights of one-step extrapolation; and, as a
    vector, the Adams-Moulton weight of the new derivative.
    """
    explicit, implicit, ahead = (np.zeros((steps + 1, steps)) for _ in range(3))
    new = np.zeros(steps + 1)
    for k in range(1, steps + 1):
        corrector = moulton(k + 1)
        explicit[k, :k] = [float(w) for w in bashforth(k)]
        implicit[k, :k] = [float(w) for w in corrector[1:]]
        ahead[k, :k] = [float(w) for w in extrapolation(k)]
        new[k] = float(corrector[0])
    return explicit, implicit, ahead, new


@functools.cache
def moulton_errors(count: int) -> Float[np.ndarray, " count"]:
    """Return |gamma*_k| for k = 0, ..., count - 1, as float64."""
    return np.array([float(abs(moulton_error(k))) for k in range(count)])
