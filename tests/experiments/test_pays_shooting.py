"""Scores of dynamics by hand, sparse regression chosen by validation, and what is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.paying import kernels, shooting
from experiments.paying.kernels import Kernel
from experiments.paying.pieces import fields, fit, pieces
from experiments.paying.polynomials import fits
from experiments.paying.shooting import LYAPUNOV, Held
from experiments.series.series import Series
from experiments.trajectories.sindy import Polynomial
from experiments.trajectories.systems import SYSTEMS, sample
from jax_node.irregular import solve_at


def held(batch=2, count=5):
    return Held(np.linspace(0, 8, count), np.zeros((batch, count, 3)))


def test_scores_by_hand():
    one = held()
    assert shooting.rmse(one, np.full(one.truth.shape, 2.0)) == 2.0
    start_only = np.zeros(one.truth.shape)
    start_only[:, 0] = 9.0
    assert shooting.rmse(one, start_only) == 0.0  # the start is known
    found = np.zeros(one.truth.shape)
    found[0, 3:] = 1.0  # wrong from time 6 on; the other is right to the end, at 8
    assert shooting.invalid(2.0)(one, found) == pytest.approx(-(6 + 8) / 2 / 2 / LYAPUNOV)
    found[0, 3:] = 0.3  # within 0.4 deviations
    assert shooting.invalid(2.0)(one, found) == pytest.approx(-8 / 2 / LYAPUNOV)
    # a distribution does not mind the order, and a shift is a distance
    generator = np.random.default_rng(0)
    many = Held(np.linspace(0, 20, 40), generator.normal(size=(3, 40, 2)))
    assert shooting.climate(many, many.truth[::-1]) == pytest.approx(0, abs=1e-12)
    assert shooting.climate(many, many.truth + 0.5) == pytest.approx(0.5)
    assert (shooting.bounded(np.array([np.nan, np.inf, -99.0, 1.0])) == [10, 10, -10, 1]).all()


@pytest.fixture(scope="module")
def task():
    return shooting.task("t", "lotka-volterra", "", "", 3.0, "rmse", 0.1, True)


@pytest.fixture(scope="module")
def data(task):
    return task.data(0)


def test_sparse_regression_has_the_right_terms(task, data):
    # x, y and x y in either component and a constant, of scaled channels: 3 + 3 and no more than
    # the few that noise lets through of 20
    assert 6 <= task.methods["sparse"].parameters(data) <= 14
    assert task.methods["sparse"].score(data, "test") < 0.3
    # the mean is one deviation away; held-out trajectories begin anywhere in the box
    assert task.methods["mean"].score(data, "test") == pytest.approx(1, abs=0.5)
    scale = data.train.windows
    assert data.test.truth.shape[1] == len(data.test.times) == 21
    assert data.test.times[-1] == pytest.approx(3.0 * scale.pace, rel=0.05)
    assert not np.isin(data.validation.truth[:, 0], data.test.truth[:, 0]).any()


# 39 intervals in windows of five, or none cut.
@pytest.mark.parametrize(
    ("name", "windows"),
    [("field", 32 * 8), ("gru", 32 * 8), ("field-whole", 32), ("gru-whole", 32)],
)
def test_all_are_trained_with_learnt_starts(task, data, name, windows):
    learner = task.methods[name].learner(data, 8, 0)
    assert learner.state.weights["starts"].shape == (windows, 2)
    before = learner.train_step(data.batch(0), 1e-2)["loss"]
    for step in range(30):
        after = learner.train_step(data.batch(step), 1e-2)["loss"]
    assert after < 0.7 * before
    assert 0 < task.methods[name].score(learner, data, "test") < shooting.BOUND


def test_the_tasks_systems_are_known():
    assert {task.name.split("-climate")[0] for task in shooting.TASKS} <= set(SYSTEMS)


def test_a_polynomial_fitted_to_trajectories_finds_the_equation():
    """Without noise, and with values missing."""
    series = sample(
        SYSTEMS["lotka-volterra"], trajectories=4, observations=40, noise=0.0, missing=0.2,
        irregular=False, seed=0,
    )  # fmt: skip
    exact = np.zeros((10, 2))  # of 1, x, y, x x, x y, y y, and of degree 3
    exact[1, 0], exact[4, 0], exact[2, 1], exact[4, 1] = 1.5, -1, -3, 1
    found = list(fits(series, (2, 3)))
    # three steps of rk4 in a gap of 6 / 39, at rates up to 4: (4 h)^4 = 2e-3, of which a 5! th part
    assert [one.degree for one in found] == [2] * 4 + [3] * 4
    for one in (found[3], found[7]):
        assert one.coefficients == pytest.approx(exact[: len(one.coefficients)], abs=1e-3)


def test_pieces_double_and_cover_all_observations():
    found = list(pieces(14))
    assert [at.shape for at in found] == [(3, 6), (2, 11), (1, 14)]
    assert found[0].tolist() == [[*range(6)], [*range(5, 11)], [*range(8, 14)]]
    assert [at.tolist() for at in pieces(3)] == [[[0, 1, 2]]]


@pytest.mark.parametrize(
    "kind",
    [
        lambda c: Polynomial(c, 3),
        lambda c: Kernel(c, np.random.default_rng(1).normal(size=(7, 2)), 2.0),
    ],
    ids=["polynomial", "kernel"],
)
def test_sensitivities_are_the_derivatives_of_the_steps(kind):
    generator = np.random.default_rng(0)
    y0, c = generator.normal(size=(1, 2)), 0.1 * generator.normal(size=(10, 2))
    field, sensitive = fields(kind(c), 2)
    with jax.enable_x64(True):
        ts = jnp.asarray([[0.0, 0.1, 0.4]])
        y0, c = jnp.asarray(y0), jnp.asarray(c)
        start = jnp.concatenate([y0[..., None], jnp.eye(2)[None], jnp.zeros((1, 2, 20))], 2)
        found = solve_at(sensitive, start, ts, c)
        states = lambda y0, c: solve_at(field, y0, ts, c)
        by = jax.jacobian(states, (0, 1))(y0, c)
        expected = [part.reshape(1, 3, 2, -1) for part in by]
        np.testing.assert_allclose(found[..., 0], states(y0, c), rtol=1e-14)
        np.testing.assert_allclose(found[..., 1:], np.concatenate(expected, 3), atol=1e-13)


def test_a_first_guess_that_escapes_does_not_end_the_fit():
    series = sample(
        SYSTEMS["spiral"], trajectories=2, observations=20, noise=0.0, missing=0.0, irregular=False,
        seed=0,
    )  # fmt: skip
    times, values = (np.stack([getattr(s, name) for s in series]) for name in ("times", "values"))
    wild = Polynomial(np.full((3, 2), 1e3), 1)
    found, _ = fit(times, values, values, wild, next(pieces(20)))
    # three steps of rk4 in a gap of 6 / 19, at a rate of 2: (2 h)^4 = 2e-3, of which a 5! th part
    assert found.coefficients == pytest.approx(np.array([[0, 0], [-0.1, -2], [2, -0.1]]), abs=1e-4)


def test_a_kernels_features_have_its_covariance():
    centres = np.random.default_rng(0).normal(size=(9, 2))
    white = Kernel(np.zeros((12, 2)), centres, 1.0).features(centres)[:, 3:]
    gaps = ((centres[:, None] - centres) ** 2).sum(2)
    np.testing.assert_allclose(white @ white.T, np.exp(-gaps / 2), atol=2 * kernels.JITTER)


def test_a_kernels_field_is_found(monkeypatch):
    generator = np.random.default_rng(0)
    centres, weights = generator.normal(size=(4, 2)), generator.normal(size=(7, 2))
    truth = Kernel(weights - np.array([[0], [2], [2], [0], [0], [0], [0]]), centres, 1.0)
    times, starts = np.linspace(0, 1, 11), 2 * generator.normal(size=(12, 2))
    series = [Series(times, values, ("x", "y")) for values in truth.solve(starts, times)]
    monkeypatch.setattr(kernels, "kmeans2", lambda *_, **__: (centres, None))
    monkeypatch.setattr(kernels, "LENGTHS", (1.0,))
    monkeypatch.setattr(kernels, "RIDGES", (1e-6,))
    *_, found = kernels.fits(series)
    # the data are solved to 1e-6 a step, and three steps of rk4 in a gap at rates of 3 err by
    # (3 / 30)^4 / 5! = 1e-6 of a state of about 3
    data = np.stack([one.values for one in series])
    assert found.solve(starts, times) == pytest.approx(data, abs=3e-5)
