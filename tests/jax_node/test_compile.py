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


def inner_jit(a):
    a = jnp.array(a)
    return lambda t, y, _: jax.jit(lambda y: a * y)(y)


def callback(a):
    shape = jax.ShapeDtypeStruct((), jnp.float64)
    return lambda t, y, _: jax.pure_callback(lambda y: a * np.asarray(y), shape, y)


def own_jvp(a):
    def field(t, y, _):
        f = jax.custom_jvp(lambda y: y)
        f.defjvp(lambda primals, tangents: (primals[0], a * tangents[0]))
        return f(y)

    return field


def own_vjp(a):
    def field(t, y, _):
        f = jax.custom_vjp(lambda a, y: y, nondiff_argnums=(0,))
        f.defvjp(lambda a, y: (y, None), lambda a, _, g: (a * g,))
        return f(a, y)

    return field


@pytest.mark.parametrize("make", [inner_jit, callback, own_jvp, own_vjp])
def test_what_a_programs_text_does_not_show_is_not_remembered(make):
    """One step of Euler, of which either the end or the derivative has `a` in it."""
    own_rule = make in (own_jvp, own_vjp)

    def found(field):
        end = lambda y: solve(field, y, [0.0, 1.0], solver="euler", step_size=1.0, **how).ys[-1]
        how = {"adjoint": "direct", "max_steps": 1}
        return jax.grad(end)(1.0) if own_rule else end(1.0)

    first = make(1.0)
    assert [found(field) for field in (first, make(2.0), make(-3.0), first)] == [2, 3, -2, 2]
    size = solve_module._solve._cache_size()
    assert found(first) == 2
    assert solve_module._solve._cache_size() == size
    if not own_rule and make is not callback:
        assert jax.grad(lambda a: found(make(a)))(2.0) == 1


def test_a_field_with_own_rules_is_compiled_once():
    rates = 1.0, 2.0, 3.0
    make = lambda: lambda t, y, a: -a * jax.nn.relu(jax.nn.silu(y)) + jax.nn.softplus(y)
    end = lambda a: solve(make(), 1.0, [0.0, 1.0], a, solver="rk4", step_size=0.5).ys[-1]
    both = lambda a: (end(a), jax.grad(end)(a))
    both(rates[0])
    size = solve_module._solve._cache_size()
    assert len({float(both(a)[0]) for a in rates}) == 3
    assert solve_module._solve._cache_size() == size
