"""Properties of the adaptive Adams method over random problems."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_node.adams import Adams, AdamsController, statistics

SIZE = 4
few = settings(max_examples=25, deadline=None, derandomize=True)


@jax.jit
def linear(matrix, y0, t0, t1, rtol, atol):
    """y' = M y over [t0, t1], compiled once for all examples."""
    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, m: m @ y),
        Adams(),
        t0,
        t1,
        None,
        y0,
        matrix,
        stepsize_controller=AdamsController(rtol=rtol, atol=atol),
        saveat=diffrax.SaveAt(t1=True, solver_state=True, controller_state=True),
        throw=False,
    )
    return sol.ys[0], sol.result == diffrax.RESULTS.successful, statistics(sol)["nfe"]


def system(seed, size, growth):
    rng = np.random.default_rng(seed)
    matrix = np.zeros((SIZE, SIZE))
    matrix[:size, :size] = growth * rng.normal(size=(size, size))
    return matrix, np.pad(rng.normal(size=size), (0, SIZE - size))


@few
@given(
    seed=st.integers(0, 1000),
    size=st.integers(1, SIZE),
    growth=st.sampled_from([0.1, 1.0, 3.0]),
    t0=st.floats(-5, 5),
    length=st.floats(-2, 2),
    tol=st.sampled_from([1e-4, 1e-7, 1e-10]),
)
def test_linear_systems_both_ways_in_time(seed, size, growth, t0, length, tol):
    matrix, y0 = system(seed, size, growth)
    y, ok, _ = linear(matrix, y0, t0, t0 + length, tol, tol)
    assert ok
    # A local error of the tolerance grows by at most exp(|M| |t1 - t0|); a few hundred steps.
    bound = np.exp(np.linalg.norm(matrix, 2) * abs(length)) * (1 + np.linalg.norm(y0))
    exact = scipy.linalg.expm(matrix * length) @ y0
    assert np.max(np.abs(y - exact)) < 100 * tol * bound


@few
@given(
    seed=st.integers(0, 1000),
    state=st.integers(-20, 20),
    time=st.integers(-8, 8),
)
def test_units_do_not_matter(seed, state, time):
    """In units of a power of two, of the state or of time, the same numbers come out, exactly."""
    matrix, y0 = system(seed, SIZE, 1.0)
    plain, _, nfe = linear(matrix, y0, 0.0, 1.0, 1e-6, 1e-6)
    unit, clock = 2.0**state, 2.0**time
    scaled, _, nfe_scaled = linear(matrix / clock, unit * y0, 0.0, clock, 1e-6, unit * 1e-6)
    np.testing.assert_array_equal(scaled / unit, plain)
    assert nfe == nfe_scaled


@few
@given(seed=st.integers(0, 1000))
def test_there_and_back(seed):
    matrix, y0 = system(seed, SIZE, 0.5)
    there, _, _ = linear(matrix, y0, 0.0, 2.0, 1e-9, 1e-9)
    back, _, _ = linear(matrix, there, 2.0, 0.0, 1e-9, 1e-9)
    growth = np.linalg.cond(scipy.linalg.expm(2 * matrix))
    assert np.max(np.abs(back - y0)) < 1e-7 * growth


shapes = st.lists(st.integers(0, 3), max_size=2).map(tuple)
trees = st.recursive(
    shapes,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3),
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
    ),
    max_leaves=4,
)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(tree=trees)
def test_any_pytree(tree):
    is_shape = lambda node: isinstance(node, tuple)
    y0 = jax.tree.map(lambda shape: jnp.ones(shape), tree, is_leaf=is_shape)
    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: jax.tree.map(jnp.negative, y)),
        Adams(max_order=4),
        0.0,
        1.0,
        None,
        y0,
        stepsize_controller=AdamsController(rtol=1e-6, atol=1e-6),
    )
    assert jax.tree.structure(sol.ys) == jax.tree.structure(y0)
    for leaf in jax.tree.leaves(sol.ys):
        np.testing.assert_allclose(leaf, np.exp(-1), atol=1e-5)
