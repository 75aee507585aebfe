"""Convolutions in bfloat16 between layers in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jax_node import conv, models

EPS = float(jnp.finfo(jnp.bfloat16).eps)  # rounding to nearest is off by at most half of it


@pytest.fixture
def operands():
    keys = jax.random.split(jax.random.key(0))
    shapes = (6, 6, 4, 64), (3, 3, 64, 64)
    return [jax.random.normal(key, s, jnp.float32) for key, s in zip(keys, shapes, strict=True)]


def test_result_is_that_of_rounded_operands(operands):
    """In float64 the products and sums of the rounded operands are exact beside EPS."""
    x, kernel = operands
    rounded = [a.astype(jnp.bfloat16).astype(jnp.float64) for a in operands]
    exact = conv.plain(*rounded, padding=1)
    found = conv.in_bfloat16(conv.same3x3)(x, kernel)
    assert found.dtype == jnp.float32
    assert jnp.array_equal(found, found.astype(jnp.bfloat16).astype(jnp.float32))
    # float32's own error, then half an EPS of the result.
    in_float32 = conv.same3x3(*(a.astype(jnp.float32) for a in rounded))
    assert jnp.abs(in_float32.astype(exact.dtype) - exact).max() < 1e-4 * jnp.abs(exact).max()
    assert jnp.all(jnp.abs(found - in_float32) <= EPS / 2 * jnp.abs(in_float32))
    assert jnp.abs(found - conv.same3x3(x, kernel)).max() > 0


def test_gradients_are_rounded_alike(operands):
    x, kernel = operands
    loss = lambda convolve: lambda x, kernel: jnp.sum(jnp.sin(convolve(x, kernel)))
    low, full = (
        jax.grad(loss(convolve), (0, 1))(x, kernel)
        for convolve in (conv.in_bfloat16(conv.same3x3), conv.same3x3)
    )
    for a, b in zip(low, full, strict=True):
        assert a.dtype == jnp.float32
        # The argument of the sine, about 24, is off by some EPS / 2 of itself, so its slope by 0.1.
        assert 0 < jnp.linalg.norm((a - b).ravel()) < 0.1 * jnp.linalg.norm(b.ravel())


def test_every_convolution_of_a_model_is_rounded():
    models_ = [models.build("resnet1", low_precision=low) for low in (False, True)]
    weights = [jax.tree.leaves(nnx.state(model, nnx.Param)) for model in models_]
    for a, b in zip(*weights, strict=True):
        assert a.dtype == b.dtype == jnp.float32
        assert jnp.array_equal(a, b)
    images = jnp.asarray(np.random.default_rng(0).random((2, 28, 28, 1)), jnp.float32)
    for model in models_:
        text = str(jax.make_jaxpr(lambda x, model=model: model(x).logits)(images))
        assert ("reduce_precision" in text) == (model is models_[1])
    # Three convolutions to downsample and two in the block, each with two operands and a result.
    assert text.count("reduce_precision") == 3 * (3 + 2)
