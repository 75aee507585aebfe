"""Dense output of the adaptive Adams method."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from diffrax import AbstractLocalInterpolation
from jaxtyping import Array, Bool, Float, Inexact, PyTree

from jax_node.adams.field import combine
from jax_node.adams.newton import integrals


class AdamsInterpolation(AbstractLocalInterpolation):
    """The integral of the polynomial P through the derivatives at and before the end of a step.

    With x = (t - t0) / (t1 - t0) and the smooth step s(x) = x^2 (3 - 2 x),

        y(t) = y0 + integral_{t0}^t P + s(x) (y1 - y0 - integral_{t0}^{t1} P).

    The last term (of the size of the tolerance: P uses the new derivative, y1 the predicted one)
    makes y(t) meet y0 and y1, and leaves its slope P there, so that the dense output is continuous
    with a continuous derivative over steps. Its order is that of the step. After Watts and
    Shampine, "Smoother interpolants for Adams codes", SIAM J. Sci. Stat. Comput. 7 (1986).
    """

    t0: Float[Array, ""]  # type: ignore[misc]  # diffrax declares class variables to mypy
    t1: Float[Array, ""]  # type: ignore[misc]
    y0: PyTree[Inexact[Array, "..."]]
    y1: PyTree[Inexact[Array, "..."]]
    differences: PyTree[Inexact[Array, "slots ..."]]  # of the derivatives at t1 and before
    times: Float[Array, " slots"]  # of the derivatives before t1, from t0 in units of t1 - t0
    used: Bool[Array, " slots"]

    def evaluate(self, t0, t1=None, left=True):
        """Return y(t0), or y(t1) - y(t0) if `t1` is given."""
        del left
        if t1 is not None:
            return jax.tree.map(jnp.subtract, self.evaluate(t1), self.evaluate(t0))
        step = self.t1 - self.t0
        x = jnp.where(step == 0, 0, (t0 - self.t0) / jnp.where(step == 0, 1, step))
        x = x.astype(self.times.dtype)
        smooth = x**2 * (3 - 2 * x)
        part, whole = integrals(self.times, x)
        weights = jnp.where(self.used, step * (part - smooth * whole), 0)
        bend = combine(weights, self.differences)

        def leaf(a: Array, b: Array, bend: Array) -> Array:
            return a + smooth.astype(a.dtype) * (b - a) + bend

        return jax.tree.map(leaf, self.y0, self.y1, bend)
