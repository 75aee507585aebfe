"""Gradients of every method against what is exact, on small fields."""

import numpy as np
import pytest

from crosscheck import (
    breakdown,
    fields,
    gradient_checks,
    gradients,
    reference,
    sweeps,
    trajectories,
)
from crosscheck.check import difference
from crosscheck.problem import cotangent


def failures(checks):
    return [check.describe() for check in checks if not check.passed]


def test_the_square_of_euler():
    spiral = fields.spiral()
    square = gradients.square(
        spiral, "euler", adjoints=("direct", "adjoint", "handwritten"), refine=True
    )
    assert failures(gradient_checks.checks(square)) == []
    names, table = square.matrix()
    at = names.index
    # The two families differ by the step, not by rounding.
    assert table[at("jax adjoint"), at("jax direct")] > 1e-3
    assert table[at("jax adjoint"), at("torch handwritten")] < 1e-12
    assert table[at("jax direct"), at("complex step")] < 1e-12


def test_complex_steps_are_exact():
    linear = fields.linear()
    assert failures(gradient_checks.linear_checks(linear)) == []


def test_complex_steps_along_directions_are_those_of_the_gradient():
    mlp = fields.mlp()
    loss = cotangent(mlp, fields.THREE)
    whole = reference.gradients(mlp, "midpoint", 0.25, fields.THREE, loss)
    along = reference.along(gradients.without_times(whole), mlp)
    slopes = reference.slopes(mlp, "midpoint", 0.25, fields.THREE, loss)
    assert difference(along, slopes).error < 1e-13


def test_errors_shrink_with_the_tolerance():
    sweep = sweeps.of_gradients(fields.mlp(), (1e-3, 1e-5, 1e-7), ("direct", "adjoint"))
    assert failures(sweeps.checks(sweep)) == []
    assert set(sweep.errors) == {"jax direct", "jax adjoint", "torch direct", "torch adjoint"}


def test_the_same_adaptive_steps():
    pair = trajectories.solve_both(fields.mlp(), "dopri5")
    found = trajectories.checks(pair)
    assert failures(found) == []
    assert [check.quantity for check in found][-1] == "largest difference of accepted step times"
    assert pair.jax.accepted > 3


def test_the_adjoint_breaks_down_as_predicted():
    found = breakdown.measure((1.0, 10.0, 30.0), ("direct", "adjoint"))
    assert failures(breakdown.checks(found)) == []
    for method in ("jax adjoint", "torch adjoint"):
        gentle, middle, harsh = found.errors[method]
        assert gentle < 1e-4
        assert middle == pytest.approx(found.predicted[1], rel=0.9)  # rtol exp(k T) = 0.02
        assert harsh > 1
    assert np.all(found.errors["torch direct"] < 1e-3)
