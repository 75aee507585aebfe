import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_node.adams import coefficients, weights


@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_equal_steps_give_the_fixed_coefficients(k):
    nodes = -jnp.arange(12.0)
    got = weights.lagrange_integrals(nodes, jnp.arange(12) < k, jnp.array(1.0))
    expected = np.pad([float(w) for w in coefficients.bashforth(k)], (0, 12 - k))
    # Rounding: weights of order 12 alternate and reach some hundreds.
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("k", [1, 4, 12])
def test_unequal_steps_in_any_order_are_exact_for_polynomials(k):
    rng = np.random.default_rng(k)
    places = rng.permutation(12)
    nodes = np.zeros(12)
    nodes[places] = -np.cumsum(rng.uniform(0.5, 2, 12)) / 4
    used = np.zeros(12, bool)
    used[places[:k]] = True
    values = np.polynomial.Polynomial(rng.normal(size=k))
    end = 0.7
    w = weights.lagrange_integrals(jnp.asarray(nodes), jnp.asarray(used), jnp.array(end))
    exact = values.integ()(end) - values.integ()(0)
    scale = np.sum(np.abs(w * values(nodes)))
    assert abs(w @ values(nodes) - exact) < 1e-13 * max(scale, 1)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_divided_difference_is_the_leading_coefficient(k):
    nodes = -jnp.asarray(np.cumsum(np.random.default_rng(0).uniform(0.5, 2, 12)))
    new, old = weights.divided_difference(nodes, jnp.arange(12) < k)
    for degree, expected in ((k - 1, 0.0), (k, 1.0)):
        terms = np.append(old * nodes**degree, new)
        assert abs(terms.sum() - expected) < 1e-13 * np.abs(terms).sum()


def test_integral_of_products():
    # integral_0^1 s (s + 1) (s + 2) ds = 1/4 + 1 + 1
    nodes = -jnp.arange(12.0)
    value = weights.integral_of_products(nodes, jnp.arange(12) < 3)
    np.testing.assert_allclose(value, 2.25, rtol=1e-14)


def test_gradients_are_finite_where_masked_points_coincide():
    """An unfilled history has all its points at zero."""

    def total(x):
        nodes = jnp.array([0.0, -0.5, 0.0, 0.0]) * x
        used = jnp.array([True, True, False, False])
        new, old = weights.divided_difference(nodes, used)
        return weights.lagrange_integrals(nodes, used, x).sum() + new + old.sum()

    slope = jax.grad(total)(jnp.array(1.3))
    step = 1e-6
    numerical = (total(jnp.array(1.3 + step)) - total(jnp.array(1.3 - step))) / (2 * step)
    np.testing.assert_allclose(slope, numerical, rtol=1e-8)
