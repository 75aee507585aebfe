"""The latent ODE in float64: padding, missing values, gradients in the observation times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jax_node.irregular import solve_at
from jax_node.latent import build, decode, encode, forecast, loss
from jax_node.mlp import MLP
from jax_node.solve import solve

EPS = np.finfo(np.float64).eps


@pytest.fixture(scope="module")
def model():
    found = build(2, latent=3, hidden=5, width=4, seed=1)
    state = nnx.state(found, nnx.Param)
    nnx.update(found, jax.tree.map(lambda w: w.astype(jnp.float64), state))
    return found


@pytest.fixture(scope="module")
def batch():
    generator = np.random.default_rng(0)
    mask = (generator.uniform(size=(3, 5, 2)) > 0.3).astype(float)
    mask[:, [0, -1]] = 1
    arrays = {
        "times": np.sort(generator.uniform(0.2, 2, (3, 5)), axis=1),
        "values": generator.normal(size=(3, 5, 2)),
        "mask": mask,
        "noise": generator.normal(size=(3, 3)),
        "kl": np.array(1.0),
    }
    return {name: jnp.asarray(a) for name, a in arrays.items()}


@pytest.fixture(scope="module")
def objective(model):
    return jax.jit(lambda batch: loss(model, batch, solver="rk4")[0])


def test_what_is_masked_or_padded_changes_nothing(objective, batch):
    value = objective(batch)
    other = {**batch, "values": batch["values"] + 100 * (1 - batch["mask"])}
    assert objective(other) == pytest.approx(float(value), rel=100 * EPS)
    front = lambda a: jnp.pad(a, [(0, 0), (2, 0), *[(0, 0)] * (a.ndim - 2)])
    padded = {name: front(batch[name]) for name in ("times", "values", "mask")}
    assert objective({**batch, **padded}) == pytest.approx(float(value), rel=100 * EPS)


@pytest.mark.usefixtures("_no_type_checks")
def test_times_that_are_not_those_of_the_values_are_refused(model, batch):
    with pytest.raises(ValueError, match="`times` has shape"):
        encode(model, batch["times"][:, :3], batch["values"], batch["mask"])


def test_a_missing_value_may_be_nan(model, objective, batch):
    missing = jnp.where(batch["mask"] == 0, jnp.nan, batch["values"])
    found, of_nan = (
        jax.grad(objective)({**batch, "values": v}) for v in (batch["values"], missing)
    )
    for name, gradient in found.items():
        assert of_nan[name] == pytest.approx(np.asarray(gradient), rel=100 * EPS, abs=100 * EPS)
    assert objective({**batch, "values": missing}) == objective(batch)
    observed = batch["times"], missing, batch["mask"]
    assert all(np.isfinite(code).all() for code in encode(model, *observed))
    assert np.isfinite(forecast(model, *observed, batch["times"] + 2)).all()


def test_the_gradient_of_the_elbo_in_the_times_is_that_of_finite_differences(objective, batch):
    of_times = lambda times: objective({**batch, "times": times})
    gradient = jax.grad(of_times)(batch["times"])
    assert np.abs(gradient).min() > 0
    # Central differences: h^2 of the third derivative, here of order 1 to 100, and eps / h.
    h = 1e-5
    for at in [(0, 0), (1, 2), (2, 4)]:
        shift = jnp.zeros_like(batch["times"]).at[at].set(h)
        difference = (of_times(batch["times"] + shift) - of_times(batch["times"] - shift)) / (2 * h)
        assert float(gradient[at]) == pytest.approx(float(difference), abs=1e-8)


def test_the_adjoint_is_exact_in_times_that_weight_the_data():
    """`L = sum_k t_k |y(t_k) - d_k|^2`, by the adjoint method and from observation to observation.

    The optimised step sizes do not enter: both take rk4 at steps so small that its error,
    1e-3^4 times derivatives of order 1, is far below the bound.
    """
    net = MLP((2, 4, 2), rngs=nnx.Rngs(0))
    graph, weights = nnx.split(net)
    weights = jax.tree.map(lambda w: w.astype(jnp.float64), weights)
    field = lambda t, y, weights: nnx.merge(graph, weights)(y) * jnp.cos(jnp.reshape(t, (-1, 1)))
    ts, y0 = jnp.array([0.0, 0.3, 0.4, 1.0]), jnp.array([[1.0, -0.5]])
    data = jnp.asarray(np.random.default_rng(0).normal(size=(4, 1, 2)))
    weighted = lambda ts, ys: jnp.sum(ts[:, None, None] * (ys - data) ** 2)

    def by_adjoint(ts, weights):
        options = {"solver": "rk4", "step_size": 1e-2, "adjoint": "adjoint"}
        return weighted(ts, solve(field, y0, ts, weights, **options).ys)

    def by_steps(ts, weights):
        ys = solve_at(field, y0, ts[None], weights, solver="rk4", substeps=20)
        return weighted(ts, jnp.moveaxis(ys, 1, 0))

    left, right = (jax.jit(jax.grad(f, (0, 1)))(ts, weights) for f in (by_adjoint, by_steps))
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a == pytest.approx(np.asarray(b), abs=1e-7)
    h = 1e-4
    for k in range(1, len(ts)):
        shift = jnp.zeros_like(ts).at[k].set(h)
        difference = (by_steps(ts + shift, weights) - by_steps(ts - shift, weights)) / (2 * h)
        assert float(left[0][k]) == pytest.approx(float(difference), abs=1e-6)


def test_a_latent_trajectory_runs_back_to_where_it_came_from(model, batch):
    z0, forward = batch["noise"], jnp.tile(jnp.linspace(0.05, 1, 20), (3, 1))
    field = lambda t, z: model.rnn.field(z)
    at = lambda z, ts: solve_at(lambda t, z, _: field(t, z), z, ts, solver="rk4")[:, -1]
    there = at(z0, forward)
    back = at(there, forward[:, ::-1])
    # rk4 at steps of 0.05: 0.05^4 = 6e-6 times derivatives below 1.
    assert np.abs(back - z0).max() < 1e-6
    assert np.abs(there - z0).max() > 0.1


def test_answers_have_the_shapes_of_the_questions(model, batch):
    observed = batch["times"], batch["values"], batch["mask"]
    mean, log_variance, _, _ = encode(model, *observed)
    assert mean.shape == log_variance.shape == (3, 3)
    ask = jnp.tile(jnp.linspace(2, 3, 4), (3, 1))
    assert [x.shape for x in decode(model, mean, mean, ask)] == [(3, 4, 2)] * 2
    assert forecast(model, *observed, ask).shape == (3, 4, 2)


def test_a_batch_of_one_with_one_observation_is_finite(objective, batch):
    one = {name: a[:1, -1:] if a.ndim == 3 else a for name, a in batch.items()}
    one |= {"times": batch["times"][:1, -1:], "noise": batch["noise"][:1]}
    assert np.isfinite(objective(one))
