import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jax_node import cnf


@pytest.fixture(scope="module")
def model():
    """A flow far from the identity: initial weights times 1.5, in float64."""
    flows = cnf.build(2, width=8, layers=4, seed=0)
    nnx.update(flows, jax.tree.map(lambda w: 1.5 * w.astype(float), nnx.state(flows, nnx.Param)))
    return flows


@pytest.fixture(scope="module")
def points():
    return jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)))


def by_jacobian(to_noise, x):
    """The change of variables itself: log N(g(x)) + log |det dg/dx|."""
    z = to_noise(x[None])[0]
    jacobian = jax.jacrev(lambda x: to_noise(x[None])[0])(x)
    return cnf.normal(z[None])[0] + jnp.linalg.slogdet(jacobian)[1]


def test_the_exact_trace_gives_the_determinant_of_the_flow(model, points):
    steps = {"solver": "rk4", "step_size": 0.01}
    found, _ = cnf.log_density(model.cnf, points, **steps)
    noise = lambda x: cnf.log_density(model.cnf, x, jnp.ones_like(x), **steps)[1]
    # rk4's error at h = 0.01 is of the order of 1e-8 in both.
    expected = jnp.stack([by_jacobian(noise, x) for x in points[:2]])
    assert np.asarray(found[:2]) == pytest.approx(np.asarray(expected), abs=1e-6)


def test_coupling_layers_report_their_determinant(model, points):
    z, determinant = model.coupling(points)
    found = cnf.normal(z) + determinant
    expected = jnp.stack([by_jacobian(lambda x: model.coupling(x)[0], x) for x in points])
    assert np.asarray(found) == pytest.approx(np.asarray(expected), abs=1e-10)


def test_hutchinsons_estimate_is_unbiased(model, points):
    # In two dimensions the four probes of +-1 are all there are: their mean is the expectation.
    probes = [jnp.array([a, b]) for a in (-1.0, 1.0) for b in (-1.0, 1.0)]
    steps = {"solver": "rk4", "step_size": 0.1}
    estimates = [
        cnf.log_density(model.cnf, points, jnp.broadcast_to(p, points.shape), **steps)[0]
        for p in probes
    ]
    exact, _ = cnf.log_density(model.cnf, points, **steps)
    assert np.mean(estimates, axis=0) == pytest.approx(np.asarray(exact), abs=1e-12)
    assert np.ptp(estimates, axis=0).max() > 1e-3


def test_density_integrates_to_one_and_round_trips(model):
    side = jnp.linspace(-9, 9, 181)
    grid = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)
    logp, _ = cnf.log_density(model.cnf, grid)
    mass = float(jnp.exp(logp).sum() * (18 / 180) ** 2)
    assert mass == pytest.approx(1, abs=1e-3)


def test_a_round_trip_errs_no_more_than_its_steps_may(model):
    side = jnp.linspace(-3, 3, 7)
    x = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)
    to_noise = lambda x: cnf.log_density(model.cnf, x[None])[1][0]
    stretch = jnp.linalg.svd(jax.vmap(jax.jacrev(to_noise))(x), compute_uv=False)
    # Each of at most 256 steps (a solve with more is NaN) errs by tolerance * (1 + |y|) in the RMS
    # of the batch, and the way back magnifies that by the flow's condition at most.
    condition = float((stretch[:, 0] / stretch[:, 1]).max())
    for tolerance in (1e-5, 1e-9):
        bound = 2 * 256 * tolerance * (1 + float(jnp.abs(x).max())) * condition
        found = np.asarray(cnf.round_trip(model, x, tolerance) - x)
        assert 0 < np.sqrt(np.mean(found**2)) < bound


def test_flow_matching_is_least_at_the_mean_velocity(points):
    model = cnf.build(2, width=8, layers=2, seed=0)
    nnx.update(model, jax.tree.map(lambda w: w.astype(points.dtype), nnx.state(model)))
    batch = {"x": points, "noise": -points, "probe": jnp.ones_like(points), "t": jnp.full(6, 0.5)}
    _, parts = cnf.loss(model, batch, trace="exact", steps=1)
    found = model.matching(batch["t"], jnp.zeros_like(points))
    assert float(parts["matching"]) == pytest.approx(float(jnp.mean((found - 2 * points) ** 2)))
