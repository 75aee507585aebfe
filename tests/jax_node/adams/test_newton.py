import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_node.adams import coefficients, newton

SLOTS = 12
TIMES = -np.cumsum(np.random.default_rng(0).uniform(0.5, 2, SLOTS)) / 4


ROUNDING = 4 * 2.0**SLOTS * np.finfo(float).eps  # a triangle of differences doubles it every row


def differences(times, values):
    """phi_j, from the triangle of divided differences."""
    column, found = list(values), []
    for j in range(len(values)):
        found.append(column[0] * np.prod(times[0] - times[1 : j + 1]))
        column = [
            (a - b) / (times[i] - times[i + j + 1])
            for i, (a, b) in enumerate(zip(column, column[1:], strict=False))
        ]
    return np.array(found)


@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_equal_steps_give_the_fixed_coefficients(k):
    """g_j are the gamma_j of Adams-Bashforth's backward differences: sum over the differences."""
    c = newton.coefficients(-jnp.arange(float(SLOTS)), jnp.array(SLOTS))
    np.testing.assert_allclose(c.beta, 1, rtol=1e-14)
    np.testing.assert_allclose(c.sigma, 1, rtol=1e-14)
    values = np.random.default_rng(k).normal(size=k)
    bashforth = sum(float(w) * f for w, f in zip(coefficients.bashforth(k), values, strict=True))
    ours = np.asarray(c.g)[:k] @ differences(-np.arange(float(k)), values)
    # Rounding: weights of order 12 alternate and reach some hundreds.
    np.testing.assert_allclose(ours, bashforth, rtol=0, atol=1e-10)
    # g_k - g_{k-1} is the error constant of Adams-Moulton.
    np.testing.assert_allclose(
        c.g[k] - c.g[k - 1], float(coefficients.moulton_error(k)), rtol=0, atol=1e-14
    )


@pytest.mark.parametrize("k", [1, 4, 12])
def test_unequal_steps_are_exact_for_polynomials(k):
    polynomial = np.polynomial.Polynomial(np.random.default_rng(k).normal(size=k))
    phi = np.pad(differences(TIMES[:k], polynomial(TIMES[:k])), (0, SLOTS - k))
    c = newton.coefficients(jnp.asarray(TIMES), jnp.array(k))
    terms = np.asarray(c.beta) * phi
    scale = np.abs(terms).sum()
    np.testing.assert_allclose(terms.sum(), polynomial(1), rtol=0, atol=ROUNDING * scale)
    exact = polynomial.integ()(1) - polynomial.integ()(0)
    np.testing.assert_allclose(np.asarray(c.g)[:-1] @ terms, exact, rtol=0, atol=ROUNDING * scale)


def test_the_new_differences_are_those_of_the_new_times():
    """Phi_j = f - P_j(1), against the triangle with the end in front."""
    values = np.random.default_rng(1).normal(size=SLOTS + 1)
    c = newton.coefficients(jnp.asarray(TIMES), jnp.array(SLOTS))
    terms = np.asarray(c.beta) * differences(TIMES, values[1:])
    ours = values[0] - np.concatenate([[0], np.cumsum(terms)])
    # phi of the new triangle is scaled by the distances to the end, which is its first time.
    expected = differences(np.concatenate([[1.0], TIMES]), values)
    np.testing.assert_allclose(ours, expected, rtol=1e-10)


@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
def test_the_interpolant_integrates_its_polynomial(x):
    polynomial = np.polynomial.Polynomial(np.random.default_rng(2).normal(size=SLOTS))
    times = np.concatenate([[1.0], TIMES[: SLOTS - 1]])
    phi = differences(times, polynomial(times))
    part, whole = newton.integrals(jnp.asarray(TIMES), jnp.array(x))
    for weights, end in ((part, x), (whole, 1.0)):
        exact = polynomial.integ()(end) - polynomial.integ()(0)
        scale = np.abs(phi).max()
        np.testing.assert_allclose(np.asarray(weights) @ phi, exact, rtol=0, atol=ROUNDING * scale)


def test_gradients_are_finite_where_unused_times_coincide():
    """An unfilled history has all its times at zero."""

    def total(x):
        c = newton.coefficients(jnp.array([0.0, -0.5, 0.0, 0.0]) * x, jnp.array(2))
        return c.g[:3].sum() + c.beta.sum() + c.sigma[:3].sum()

    slope = jax.grad(total)(jnp.array(1.3))
    step = 1e-6
    numerical = (total(jnp.array(1.3 + step)) - total(jnp.array(1.3 - step))) / (2 * step)
    np.testing.assert_allclose(slope, numerical, rtol=1e-8)
