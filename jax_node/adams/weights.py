"""Weights of Adams formulae on unequal steps, for an order that is known only at run time.

Times are measured from the start of the step in units of its size: the new point is at 1, the past
points x_j at 0 and below. The past points stand in a ring of fixed size, in any order, and a mask
says which of them a formula uses; a masked point leaves the products below. Every weight is a
product of differences, or the integral of one by a Gauss rule that is exact for its degree, so that
no recurrence over the order is needed and nothing is unrolled.

Source: Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, III.5 (there by
recurrences, after Krogh 1974 and Shampine & Gordon 1975).
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


@functools.cache
def _gauss(slots: int) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Gauss-Legendre points and weights on [0, 1], exact up to degree `slots` + 1."""
    points, weights = np.polynomial.legendre.leggauss(slots // 2 + 1)
    return (points + 1) / 2, weights / 2


def _others(used: Bool[Array, " slots"]) -> Bool[Array, "slots slots"]:
    """Return [j, m]: whether x_m is a factor of the j-th polynomial; both points are used.

    Unused points may coincide with used ones: a division by their distance, even if masked later,
    would make gradients NaN.
    """
    return used[:, None] & used & ~jnp.eye(used.shape[0], dtype=bool)


def lagrange_integrals(
    nodes: Float[Array, " slots"], used: Bool[Array, " slots"], end: Float[Array, ""]
) -> Float[Array, " slots"]:
    """Return w with integral_0^end P(s) ds = sum_j w_j P(x_j) for every P of degree < sum(used)."""
    slots = nodes.shape[0]
    points, weights = (jnp.asarray(a, nodes.dtype) for a in _gauss(slots))
    others = _others(used)
    above = end * points[:, None, None] - nodes  # [point, 1, m]
    below = nodes[:, None] - nodes  # [j, m]
    basis = jnp.prod(jnp.where(others, above / jnp.where(others, below, 1), 1), axis=-1)
    return jnp.where(used, end * (weights @ basis), 0)


def integral_of_products(
    nodes: Float[Array, " slots"], used: Bool[Array, " slots"]
) -> Float[Array, ""]:
    """Return integral_0^1 prod_j (s - x_j) ds over the used points."""
    points, weights = (jnp.asarray(a, nodes.dtype) for a in _gauss(nodes.shape[0]))
    return weights @ jnp.prod(jnp.where(used, points[:, None] - nodes, 1), axis=-1)


def divided_difference(
    nodes: Float[Array, " slots"], used: Bool[Array, " slots"]
) -> tuple[Float[Array, ""], Float[Array, " slots"]]:
    """Return (a, b) with the divided difference f[1, x_1, ..., x_k] = a f(1) + sum_j b_j f(x_j)."""
    others = _others(used)
    between = jnp.prod(jnp.where(others, nodes[:, None] - nodes, 1), axis=-1)
    new = jnp.prod(jnp.where(used, 1 - nodes, 1))
    return 1 / new, jnp.where(used, 1 / jnp.where(used, between * (nodes - 1), 1), 0)
