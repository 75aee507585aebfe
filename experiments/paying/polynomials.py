"""A polynomial field fitted to trajectories: the rival that is told the form.

Sparse regression differentiates noisy splines, and what it loses there is not the polynomial's
fault. Here coefficients and starts of a polynomial are fitted to the observations themselves, by
least squares over whole trajectories (rk4), from what regression found on.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import least_squares

from experiments.series.series import Series
from experiments.trajectories.sindy import Polynomial, products
from jax_node.irregular import solve_at

SUBSTEPS = 3  # of rk4 between two observations


def fit_trajectories(series: Sequence[Series], start: Polynomial) -> Polynomial:
    """The polynomial of `start`'s degree whose trajectories are nearest to the observations.

    All coefficients are free, and so is where each series starts. Every series has as many
    observations as the others; those that are NaN do not count. Returns `start` if its own
    trajectories are not finite.
    """
    times, values = (np.stack([getattr(s, name) for s in series]) for name in ("times", "values"))
    first = np.stack([one.filled()[0] for one in series])
    terms = products(values.shape[2], start.degree)
    known, shape = ~np.isnan(values), start.coefficients.shape

    def residuals(flat):
        y0 = flat[: first.size].reshape(first.shape)
        coefficients = flat[first.size :].reshape(shape)
        field = lambda t, y, c: jnp.stack([y[:, at].prod(1) for at in terms], axis=1) @ c
        found = solve_at(field, y0, jnp.asarray(times), coefficients, substeps=SUBSTEPS)
        return jnp.where(known, found - np.nan_to_num(values), 0.0).ravel()

    with jax.enable_x64(True):
        function, jacobian = jax.jit(residuals), jax.jit(jax.jacfwd(residuals))
        guess = np.concatenate([first.ravel(), start.coefficients.ravel()])
        if not np.isfinite(function(guess)).all():
            return start
        found = least_squares(
            lambda flat: np.asarray(function(flat)),
            guess,
            lambda flat: np.asarray(jacobian(flat)),
            x_scale="jac",
            max_nfev=50,
        )
    return Polynomial(start.degree, found.x[first.size :].reshape(shape))
