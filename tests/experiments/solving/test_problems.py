"""The problems against closed forms, the reference against an independent solver."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.optimize
import torch

from experiments.solving import reference
from experiments.solving.problems import InitialValue, problems

PROBLEMS = {problem.name: problem for problem in problems()}


def linear(name):
    """The exact end of a problem y' = M y, M from the field at the unit vectors."""
    problem = PROBLEMS[name]
    matrix = np.stack([problem.field(np, 0.0, e) for e in np.eye(len(problem.y0))], axis=1)
    return scipy.linalg.expm(problem.t1 * matrix) @ problem.y0


def kepler(eccentricity):
    """Position and velocity at t = 20, after perihelion at t = 0, by Kepler's equation."""
    anomaly = scipy.optimize.brentq(
        lambda u: u - eccentricity * np.sin(u) - 20, 0, 40, xtol=1e-15, rtol=1e-15
    )
    minor = np.sqrt(1 - eccentricity**2)
    speed = 1 / (1 - eccentricity * np.cos(anomaly))
    return [
        np.cos(anomaly) - eccentricity,
        minor * np.sin(anomaly),
        -np.sin(anomaly) * speed,
        minor * np.cos(anomaly) * speed,
    ]


def bessel(t):
    """J_{1/2}(t + 1) and its slope."""
    x = t + 1
    scale = np.sqrt(2 / (np.pi * x))
    return [scale * np.sin(x), scale * (np.cos(x) - np.sin(x) / (2 * x))]


CLOSED = {
    "A1": [np.exp(-20)],
    "A2": [1 / np.sqrt(21)],
    "A3": [np.exp(np.sin(20))],
    "A4": [20 / (1 + 19 * np.exp(-5))],
    "B2": linear("B2"),
    "C1": linear("C1"),
    "C2": linear("C2"),
    "C3": linear("C3"),
    "C4": linear("C4"),
    **{f"D{i}": kepler(e) for i, e in enumerate((0.1, 0.3, 0.5, 0.7, 0.9), start=1)},
    "E1": bessel(20.0),
}


@pytest.fixture(scope="module")
def ends():
    """References, made once."""
    return {name: reference.solve(problem) for name, problem in PROBLEMS.items()}


@pytest.mark.parametrize("name", CLOSED)
def test_reference_is_the_closed_form(name, ends):
    """To the rounding of the closed form in double, for D magnified by up to 200 (|y''| at e = 0.9,
    where 20 radians are known to eps alone)."""
    eps = np.finfo(float).eps
    allowed = 20 * 200 * eps if name.startswith("D") else 50 * eps
    np.testing.assert_allclose(ends[name].astype(float), CLOSED[name], rtol=0, atol=allowed)


@pytest.mark.parametrize("name", PROBLEMS)
def test_reference_agrees_with_dop853(name, ends):
    """At 1e-13 a step; a solution forgets none of its errors, and may magnify them.

    The largest allowed, 1e-10, is a thousand steps' worth; the Arenstorf orbit passes so close by
    the moon, and so starts, that an error grows by another four decimals.
    """
    problem = PROBLEMS[name]
    found = scipy.integrate.solve_ivp(
        lambda t, y: problem.field(np, t, y),
        (0, problem.t1),
        problem.y0,
        method="DOP853",
        rtol=1e-13,
        atol=1e-13,
    ).y[:, -1]
    error = np.max(np.abs(found - ends[name]) / (1 + np.abs(ends[name])))
    assert error < (1e-8 if name == "Arenstorf" else 1e-10)


def test_the_arenstorf_orbit_closes(ends):
    """The start is known to 24 digits, the float64 of it to 16: magnified as above."""
    np.testing.assert_allclose(
        ends["Arenstorf"].astype(float), PROBLEMS["Arenstorf"].y0, rtol=0, atol=1e-8
    )


@pytest.mark.parametrize("name", PROBLEMS)
def test_all_libraries_evaluate_the_same_field(name):
    problem = PROBLEMS[name]
    y = problem.y0 + 0.1
    in_numpy = problem.field(np, 0.3, y)
    assert in_numpy.shape == y.shape
    in_jax = problem.field(jnp, jnp.asarray(0.3), jnp.asarray(y))
    in_torch = problem.field(torch, torch.tensor(0.3, dtype=torch.float64), torch.tensor(y))
    # Sums of at most seven terms, in another order.
    np.testing.assert_allclose(in_jax, in_numpy, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(in_torch.numpy(), in_numpy, rtol=1e-14, atol=1e-14)


def test_a_tolerance_below_rounding_ends():
    with pytest.raises(ArithmeticError, match="decay: no step at t ="):
        reference.solve(InitialValue("decay", "", lambda xp, t, y: -y, np.ones(1), 1.0), 1e-30)
