from fractions import Fraction

import numpy as np
import pytest

from jax_node.adams import coefficients


def test_textbook_values():
    # Hairer, Norsett, Wanner I, III.1, equations (1.5') and (1.8').
    assert [w * 24 for w in coefficients.bashforth(4)] == [55, -59, 37, -9]
    assert [w * 720 for w in coefficients.moulton(5)] == [251, 646, -264, 106, -19]
    assert [coefficients.moulton_error(k) for k in range(1, 5)] == [
        Fraction(-1, 2),
        Fraction(-1, 12),
        Fraction(-1, 24),
        Fraction(-19, 720),
    ]


@pytest.mark.parametrize("k", range(1, 13))
def test_order_and_error_constant(k):
    """A method of order k integrates s^p exactly for p < k, and misses s^k by its constant."""
    for weights, first in ((coefficients.bashforth(k), 0), (coefficients.moulton(k), 1)):
        nodes = range(first, first - k, -1)
        moments = [
            sum(w * Fraction(x) ** p for w, x in zip(weights, nodes, strict=True))
            for p in range(k + 1)
        ]
        assert moments[:k] == [Fraction(1, p + 1) for p in range(k)]
        assert moments[k] != Fraction(1, k + 1)
    factorial = np.prod(range(1, k + 1), dtype=object)
    missed = Fraction(1, k + 1) - moments[k]
    assert missed == coefficients.moulton_error(k) * factorial


def test_extrapolation_is_exact_for_polynomials():
    for k in range(1, 13):
        weights = coefficients.extrapolation(k)
        for p in range(k):
            assert sum(w * (-j) ** p for j, w in enumerate(weights)) == 1


def test_tables_are_padded_by_zeros():
    explicit, implicit, ahead, new = coefficients.fixed_step_tables(11)
    assert explicit.shape == (12, 11)
    for table in (explicit, implicit, ahead):
        assert not np.triu(table).any()
    # A constant derivative is integrated exactly; the weights alternate up to a few thousand.
    np.testing.assert_allclose(explicit[1:].sum(1), 1, rtol=0, atol=1e-11)
    np.testing.assert_allclose(implicit[1:].sum(1) + new[1:], 1, rtol=0, atol=1e-12)
