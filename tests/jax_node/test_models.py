"""Shapes, parameter counts, and that the layers are what their formulas say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jax_node import blocks, conv
from jax_node.models import build, parameter_count
from jax_node.normalise import NORMS, BatchNorm, GroupNorm, normalisation
from jax_node.solve import solve

SOLVER = functools.partial(solve, solver="euler", step_size=0.5)


@pytest.mark.parametrize(
    ("name", "count"),
    [("odenet", 208_266), ("rknet", 208_266), ("resnet6", 576_778), ("resnet1", 206_858)],
)
def test_parameter_count(name, count):
    assert parameter_count(build(name, solver=SOLVER)) == count


@pytest.mark.parametrize("norm", NORMS)
def test_no_norm_changes_the_parameter_count(norm):
    model = nnx.eval_shape(lambda: build("odenet", solver=SOLVER, norm=norm))
    assert parameter_count(model) == 208_266
    found = {type(part.norm1) for part in (model.downsample, model.field)}
    assert found == ({BatchNorm, GroupNorm} if norm == "batch" else {GroupNorm})
    groups = {"group1": 1, "group64": 64}.get(norm, 32)
    assert {getattr(model.field, f"norm{i}").groups for i in (1, 2, 3)} == {groups}


@pytest.mark.parametrize("downsampling", ["conv", "residual"])
@pytest.mark.parametrize("name", ["odenet", "resnet2"])
def test_logits_for_a_batch_of_one(name, downsampling):
    model = build(name, solver=SOLVER, downsampling=downsampling)
    output = nnx.jit(model)(jnp.ones((1, 28, 28, 1), jnp.float32))
    assert output.logits.shape == (1, 10)
    assert output.logits.dtype == jnp.float32
    assert jnp.isfinite(output.logits).all()


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="choose one of resnet6, resnet1, rknet, odenet"):
        build("vgg")
    with pytest.raises(ValueError, match="choose conv or residual"):
        build("resnet1", downsampling="pool")
    with pytest.raises(ValueError, match="'layer' is unknown; choose one of group, group1, gr"):
        build("resnet1", norm="layer")


def test_weights_start_the_same_in_both_precisions():
    single, double = (build("resnet1", dtype=dtype) for dtype in (jnp.float32, jnp.float64))
    for a, b in zip(*(jax.tree.leaves(nnx.state(m)) for m in (single, double)), strict=True):
        assert (a.dtype, b.dtype) == (jnp.float32, jnp.float64)
        assert jnp.array_equal(a.astype(jnp.float64), b)


def test_final_relu_changes_the_head_only():
    with_relu, without = (build("resnet1", final_relu=choice) for choice in (True, False))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((6, 6, 3, 64)), jnp.float32)
    head = with_relu.head
    normalised = head.norm(x)
    np.testing.assert_allclose(
        head(x), head.linear(jnp.maximum(normalised, 0).mean((0, 1))), rtol=1e-6
    )
    np.testing.assert_allclose(
        without.head(x), without.head.linear(normalised.mean((0, 1))), rtol=1e-6
    )


def test_time_convolution_equals_the_concatenated_one():
    layer = blocks.TimeConv(rngs=nnx.Rngs(0))
    nnx.update(layer, jax.tree.map(lambda w: w.astype(jnp.float64), nnx.state(layer)))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((6, 6, 2, 64)))
    t = jnp.asarray(0.3)
    with_time = jnp.concatenate([jnp.full((6, 6, 2, 1), t), x], -1)
    expected = conv.plain(with_time, layer.kernel[...], padding=1)
    expected += layer.bias[None, None, None]
    np.testing.assert_allclose(layer(t, x), expected, atol=1e-13)  # rounding of ~600 terms


def drawn_layer(name):
    layer = normalisation(name, 64)
    nnx.update(layer, jax.tree.map(lambda w: w.astype(jnp.float64), nnx.state(layer)))
    rng = np.random.default_rng(0)
    layer.scale[...], layer.bias[...] = jnp.asarray(rng.standard_normal((2, 64)))
    return layer, rng.standard_normal((6, 6, 3, 64)) + 5


def scaled(layer, normalised):
    return normalised * np.asarray(layer.scale[...]) + np.asarray(layer.bias[...])


@pytest.mark.parametrize(("name", "groups"), [("group", 32), ("group1", 1), ("group64", 64)])
def test_group_norm_is_the_textbook_one(name, groups):
    layer, x = drawn_layer(name)
    grouped = x.reshape(6, 6, 3, groups, -1)
    mean = grouped.mean((0, 1, 4), keepdims=True)
    variance = grouped.var((0, 1, 4), keepdims=True)
    normalised = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    np.testing.assert_allclose(layer(jnp.asarray(x)), scaled(layer, normalised), atol=1e-12)


def test_batch_norm_is_the_textbook_one_in_training_and_in_evaluation():
    layer, x = drawn_layer("batch")
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    normalised = (x - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(layer(jnp.asarray(x)), scaled(layer, normalised), atol=1e-12)
    # From 0 and 1 a tenth of the way, the variance unbiased over 6 * 6 * 3 numbers.
    running = 0.1 * mean, 0.9 + 0.1 * x.var((0, 1, 2), ddof=1)
    for found, expected in zip((layer.mean[...], layer.var[...]), running, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-13)
    layer.eval()
    normalised = (x[:, :, :1] - running[0]) / np.sqrt(running[1] + 1e-5)
    alone = layer(jnp.asarray(x[:, :, :1]))
    np.testing.assert_allclose(alone, scaled(layer, normalised), atol=1e-12)
    np.testing.assert_allclose(layer.mean[...], running[0], atol=1e-13)
