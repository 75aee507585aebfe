import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jax_node.irregular import METHODS, solve_at


def decay(t, y, rate):
    return -rate * y + jnp.cos(t)[:, None]


def exact(ts, rate):
    """The solution of `decay` from 1 at each sample's first time."""
    forced = lambda t: ((rate * np.cos(t) + np.sin(t)) / (1 + rate**2))[:, :, None]
    start = ts[:, :1]
    return forced(ts) + (1 - forced(start)) * np.exp(-rate * (ts - start))[:, :, None]


@pytest.fixture
def times():
    return jnp.asarray(np.sort(np.random.default_rng(0).uniform(0, 2, (3, 7)), axis=1))


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_each_sample_is_solved_at_its_own_times_at_the_methods_order(times, solver, order):
    y0 = jnp.ones((3, 2))
    truth = exact(times, 1.3)
    errors = [
        np.abs(solve_at(decay, y0, times, 1.3, solver=solver, substeps=n) - truth).max()
        for n in (16, 32)
    ]
    # Halving the step divides the error by 2^order; 0.3 for the next term of the expansion.
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.3


def test_gradients_in_state_times_and_parameters(times):
    total = lambda y0, ts, rate: jnp.sum(
        jnp.sin(solve_at(decay, jnp.asarray(y0), jnp.asarray(ts), rate, substeps=2))
    )
    check_grads(total, (jnp.ones((3, 2)), times, 1.3), order=1, modes=["rev"])


def test_the_gradient_in_the_last_time_is_the_slope_there(times):
    # dy(t1)/dt1 = f(t1, y(t1)); rk4 with steps of about 0.02 has errors of 1e-8.
    total = lambda ts: solve_at(decay, jnp.ones((3, 2)), ts, 1.3, substeps=20)[:, -1].sum()
    ys = solve_at(decay, jnp.ones((3, 2)), times, 1.3, substeps=20)[:, -1]
    slope = decay(times[:, -1], ys, 1.3).sum(1)
    assert jax.grad(total)(times)[:, -1] == pytest.approx(np.asarray(slope), rel=1e-7)


def test_a_repeated_time_stands_still(times):
    padded = jnp.concatenate([times, times[:, -1:]], axis=1)
    ys = solve_at(decay, jnp.ones((3, 2)), padded, 1.3)
    assert (ys[:, -1] == ys[:, -2]).all()


def test_a_solver_that_cannot_is_answered_with_the_list(times):
    with pytest.raises(ValueError, match=", ".join(METHODS)):
        solve_at(decay, jnp.ones((3, 2)), times, 1.3, solver="dopri5")


@pytest.mark.usefixtures("_no_type_checks")
def test_substeps_may_be_numpys():
    arguments = lambda t, y, _: y, jnp.ones((1, 1)), jnp.array([[0.0, 1.0]])
    expected = solve_at(*arguments, substeps=2)
    np.testing.assert_array_equal(solve_at(*arguments, substeps=np.int64(2)), expected)


@pytest.mark.parametrize("substeps", [0, 2.5])
@pytest.mark.usefixtures("_no_type_checks")
def test_what_is_no_number_of_substeps_is_refused(substeps):
    with pytest.raises(ValueError, match=f"`substeps` is {substeps}"):
        solve_at(lambda t, y, _: y, jnp.ones((1, 1)), jnp.array([[0.0, 1.0]]), substeps=substeps)


def test_one_row_of_times_serves_all_and_times_may_be_wider_than_states():
    y0 = jnp.array([[1.0], [2.0]], jnp.float32)
    found = solve_at(lambda t, y, _: -y, y0, jnp.array([[0.0, 0.5]], jnp.float64), substeps=8)
    assert found.dtype == jnp.float32
    # rk4 with steps of a sixteenth: (1 / 16)^5 / 5! each, and float32's rounding
    assert found[:, 1, 0] == pytest.approx(np.exp(-0.5) * np.array([1, 2]), rel=1e-6)


@pytest.mark.usefixtures("_no_type_checks")
@pytest.mark.parametrize(
    ("y0", "ts", "field", "message"),
    [
        ([[1.0, 2.0]], [[0, 1]], decay, "`ts` is int64"),
        ([[1, 2]], [[0.0, 1.0]], decay, "`y0` is int64"),
        (jnp.ones((1, 2), jnp.bfloat16), [[0.0, 1.0]], decay, "`y0` is bfloat16"),
        ([[1.0, 2.0]], jnp.ones((1, 2), jnp.float16), decay, "`ts` is float16"),
        (
            [[1.0, 2.0]],
            [[0.0, 1.0]],
            lambda *_: jnp.ones((1, 1)),
            r"returns \[1, 1\] for .* \[1, 2",
        ),
        ([[1.0, 2.0]], [0.0, 1.0], decay, r"`ts` is \[2\] for `y0` of \[1, 2\]"),
        ([[1.0, 2.0]], [[0.0, 1.0]] * 2, decay, r"`ts` is \[2, 2\] for `y0` of \[1, 2\]"),
        ([[1.0, 2.0]], [[]], decay, r"`ts` is \[1, 0\]"),
    ],
)
def test_what_would_be_cut_or_spread_is_refused(y0, ts, field, message):
    with pytest.raises(ValueError, match=message):
        solve_at(field, jnp.array(y0), jnp.array(ts), 1.0, substeps=2)
