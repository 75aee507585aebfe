r"""Adams formulae in Newton's form, on unequal steps, for an order known only at run time.

The derivatives f_0, f_1, ... were taken at the times x_0 > x_1 > ..., the latest first, and the
next one, f, is taken at the end of a step from 0 to 1 (all times are in units of that step, so that
x_0 <= 0). Of the past the method keeps the modified divided differences

    phi_j  = (x_0 - x_1) ... (x_0 - x_j) f[x_0, ..., x_j],        phi_0 = f_0,

which are of the size of the derivative whatever the order and the steps. Multiplied by

    beta_j = prod_{i<j} (1 - x_i) / (x_0 - x_{i+1})

they are the terms of the polynomial P_j through the latest j derivatives, at the end of the step:

    P_j(1) = sum_{i<j} beta_i phi_i,                 integral_0^1 P_j = sum_{i<j} g_i beta_i phi_i,
    g_i    = integral_0^1 prod_{l<i} (s - x_l) / (1 - x_l) ds.

The same differences with the new derivative in front are what the polynomials miss it by,

    Phi_j  = (1 - x_0) ... (1 - x_{j-1}) f[1, x_0, ..., x_{j-1}] = f - P_j(1),

so that one product of a small matrix with the past gives all that a step needs of it. With steps of
this size throughout, Phi_j sigma_j would be the j-th backward difference,

    sigma_j = prod_{i<j} (i + 1) / (1 - x_i).

Every factor under the integral is between 0 and 1 and none is divided by a difference of close
times, so that nothing here overflows in single precision.

Source: Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, III.5 (there phi*_j is
beta_j phi_j, and g_j by recurrences after Krogh 1974); Shampine and Gordon (1975), chapter 5.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class Coefficients(NamedTuple):
    """g_j and sigma_j for j = 0, ..., slots; beta_j, zero where phi_j is not known."""

    g: Float[Array, " orders"]
    beta: Float[Array, " slots"]
    sigma: Float[Array, " orders"]


def coefficients(times: Float[Array, " slots"], count: Int[Array, ""]) -> Coefficients:
    """Coefficients of a step from 0 to 1 when the latest `count` of `times` are in use."""
    slots = times.shape[0]
    points, weights = (jnp.asarray(a, times.dtype) for a in _gauss(slots))
    place = jnp.arange(slots, dtype=count.dtype)
    to_end = 1 - times
    # Beyond the last time in use there is nothing to stretch; its place may coincide with another.
    known = place[1:] < count
    past = jnp.where(known, times[0] - times[1:], 1)
    stretch = jnp.append(jnp.where(known, to_end[:-1] / past, 1), jnp.ones((), times.dtype))
    spread = (place + 1).astype(times.dtype) / to_end
    inside = (points[:, None] - times[None, :]) / to_end[None, :]
    products = running_products(jnp.concatenate([inside, stretch[None], spread[None]]))
    beta = jnp.where(place < count, products[-2, :-1], 0)
    return Coefficients(weights @ products[:-2], beta, products[-1])


def integrals(
    times: Float[Array, " slots"], x: Float[Array, ""]
) -> tuple[Float[Array, " slots"], Float[Array, " slots"]]:
    """Integrals over [0, x] and over [0, 1] of prod_{l<i} (s - X_l) / (1 - x_l), i < slots.

    The X_l are 1, x_0, x_1, ...: the terms of the polynomial through the new derivative and the
    past ones, as the Phi_j have it.
    """
    slots = times.shape[0]
    points, weights = (jnp.asarray(a, times.dtype) for a in _gauss(slots))
    with_end = jnp.concatenate([jnp.ones((1,), times.dtype), times[:-1]])
    places = jnp.concatenate([x * points, points])
    factors = (places[:, None] - with_end[None, :]) / (1 - times)[None, :]
    products = running_products(factors)[:, :-1]
    part, whole = products[: len(points)], products[len(points) :]
    return x * (weights @ part), weights @ whole


def running_products(factors: Float[Array, "rows slots"]) -> Float[Array, "rows orders"]:
    """Products of the first 0, 1, ..., slots factors of each row."""
    first = jnp.ones_like(factors[:, :1])
    return jnp.concatenate([first, jax.lax.cumprod(factors, axis=1)], axis=1)


@functools.cache
def _gauss(slots: int) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Gauss-Legendre points and weights on [0, 1], exact up to degree `slots` + 1."""
    points, weights = np.polynomial.legendre.leggauss(slots // 2 + 1)
    return (points + 1) / 2, weights / 2
