"""The fast convolutions equal XLA's own, with their derivatives."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_node import conv

CASES = {
    "same3x3": (conv.same3x3, (6, 6, 2, 3), (3, 3, 3, 4), {"padding": 1}),
    "same3x3, two tiles": (conv.same3x3, (7, 7, 2, 3), (3, 3, 3, 4), {"padding": 1}),
    "same3x3, not square": (conv.same3x3, (5, 8, 2, 3), (3, 3, 3, 4), {"padding": 1}),
    "same3x3, large": (conv.same3x3, (13, 13, 2, 3), (3, 3, 3, 4), {"padding": 1}),
    "valid3x3": (conv.valid3x3, (28, 28, 2, 1), (3, 3, 1, 4), {}),
    "half4x4, even": (conv.half4x4, (26, 26, 2, 3), (4, 4, 3, 4), {"stride": 2, "padding": 1}),
    "half4x4, not square": (conv.half4x4, (9, 12, 2, 3), (4, 4, 3, 4), {"stride": 2, "padding": 1}),
    "half4x4, odd": (conv.half4x4, (13, 13, 2, 3), (4, 4, 3, 4), {"stride": 2, "padding": 1}),
}
# Winograd's three transforms, in two dimensions, can enlarge rounding by their norms' product:
# 2776 for this tile, 2403 for half4x4's of 7 outputs and 2 taps.
AMPLIFICATION = math.prod(np.linalg.norm(matrix, 2) ** 2 for matrix in conv.winograd(6, 3))


@pytest.fixture(autouse=True)
def _as_on_cpu(monkeypatch):
    monkeypatch.setattr(conv, "use_products", lambda: True)


def _data(shape_x, shape_kernel, dtype=jnp.float64):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in (shape_x, shape_kernel)]


def _relative(a, b):
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


@pytest.mark.parametrize("name", CASES)
def test_equals_plain_with_gradients(name):
    fast, shape_x, shape_kernel, options = CASES[name]
    x, kernel = _data(shape_x, shape_kernel)

    def value_and_gradients(f):
        loss = lambda x, kernel: jnp.sum(jnp.sin(f(x, kernel)))
        return f(x, kernel), *jax.grad(loss, (0, 1))(x, kernel)

    ours = jax.jit(lambda: value_and_gradients(fast))()
    plain = jax.jit(lambda: value_and_gradients(lambda *a: conv.plain(*a, **options)))()
    for a, b in zip(ours, plain, strict=True):
        assert _relative(a, b) < AMPLIFICATION * np.finfo(np.float64).eps


def test_float32_error_is_as_documented():
    x, kernel = _data((6, 6, 16, 64), (3, 3, 64, 64), jnp.float32)
    exact = conv.plain(x.astype(jnp.float64), kernel.astype(jnp.float64), padding=1)
    assert _relative(conv.same3x3(x, kernel), exact) < 1e-5
    x, kernel = _data((26, 26, 4, 64), (4, 4, 64, 64), jnp.float32)
    exact = conv.plain(x.astype(jnp.float64), kernel.astype(jnp.float64), stride=2, padding=1)
    assert _relative(conv.half4x4(x, kernel), exact) < 1e-5


def test_forward_mode_and_vmap():
    x, kernel = _data((6, 6, 2, 3), (3, 3, 3, 4))
    f = lambda x: conv.same3x3(x, kernel)
    _, tangent = jax.jvp(f, (x,), (x,))
    np.testing.assert_allclose(tangent, f(x), atol=1e-12)  # linear
    stacked = jax.vmap(f)(jnp.stack([x, 2 * x]))
    np.testing.assert_allclose(stacked[1], 2 * f(x), atol=1e-12)


def test_accelerators_get_the_plain_convolution(monkeypatch):
    monkeypatch.setattr(conv, "use_products", lambda: False)
    x, kernel = _data((6, 6, 2, 3), (3, 3, 3, 4))
    assert jnp.array_equal(conv.same3x3(x, kernel), conv.plain(x, kernel, padding=1))
