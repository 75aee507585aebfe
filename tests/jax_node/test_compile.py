"""What keeps compiling fast, and memory flat."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jax_node import learner as learners
from jax_node import solve as solve_module
from jax_node.mlp import Linear
from jax_node.solve import ADJOINTS, solve


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_a_solve_can_be_cached(adjoint):
    """JAX keeps no program with a host callback in its persistent cache."""

    def loss(y0, ts):
        return solve(lambda t, y, args: -y, y0, ts, solver="dopri5", adjoint=adjoint).ys.sum()

    lowered = jax.jit(jax.grad(loss, (0, 1))).lower(jnp.ones(2), jnp.array([0.0, 0.5, 1.0]))
    assert "callback" not in lowered.as_text()


def solved(i):
    """An eager solve and its gradient, of a field that is new each time."""
    field = lambda t, y, a: -a * y
    end = lambda a: solve(field, i, [0.0, 1.0], a, solver="rk4", step_size=0.1).ys[-1]
    np.testing.assert_allclose([end(1.0), -jax.grad(end)(1.0)], i * np.exp(-1), rtol=1e-5)
    return weakref.ref(field), weakref.ref(end)


@pytest.fixture
def applied():
    """A function of the weights that is new each time, and closes over another array."""
    layer = Linear(3, 2, rngs=nnx.Rngs(0))
    learner = learners.Learner(layer, lambda *_: None, precision="float64", device="cpu")
    one, kernel, bias = np.ones((1, 3)), layer.kernel[...], layer.bias[...]

    def apply(i):
        shift = jnp.full(2, i)
        function = lambda model, x: model(x)[0] + shift
        expected = (one @ kernel)[0] + bias + i
        np.testing.assert_allclose(learner.apply(function, x=one), expected, rtol=1e-12)
        return (weakref.ref(function),)

    return apply


@pytest.mark.parametrize("what", ["solved", "applied"])
def test_in_a_loop_all_is_compiled_once_and_no_function_is_kept(what, request):
    call = solved if what == "solved" else request.getfixturevalue("applied")
    call(1.0)
    sizes = solve_module._solve._cache_size(), learners._run._cache_size()
    references = [reference for i in (2.0, 3.0, 4.0) for reference in call(i)]
    assert sizes == (solve_module._solve._cache_size(), learners._run._cache_size())
    gc.collect()
    assert not any(reference() for reference in references)
