"""Weights between Flax and torch by structure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from crosscheck import layers, trained, weights
from jax_node import models


def test_every_model_survives_both_ways_bit_by_bit():
    found = weights.checks(all_models=True)
    assert len(found) == 16
    assert [check.describe() for check in found if not check.passed] == []


def test_layouts():
    rng = np.random.default_rng(0)
    arrays = {
        "a.conv.kernel": rng.normal(size=(3, 2, 4, 5)),  # height, width, in, out
        "a.linear.kernel": rng.normal(size=(4, 6)),
        "a.norm.scale": rng.normal(size=7),
        "a.norm.bias": rng.normal(size=7),
        "a.norm.mean": rng.normal(size=7),
        "a.norm.var": rng.normal(size=7),
        "free": rng.normal(size=(2, 3)),
    }
    moved = weights.to_torch(arrays)
    assert moved["a.conv.weight"][4, 3, 2, 1] == arrays["a.conv.kernel"][2, 1, 3, 4]
    assert moved["a.linear.weight"][5, 0] == arrays["a.linear.kernel"][0, 5]
    assert list(moved) == [
        "a.conv.weight",
        "a.linear.weight",
        "a.norm.weight",
        "a.norm.bias",
        "a.norm.running_mean",
        "a.norm.running_var",
        "free",
    ]
    back = weights.to_jax(moved)
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)
    assert list(back) == list(arrays)


def test_names_cover_the_model_without_a_list():
    flax, twin = layers.twins("odenet", None, "float32")
    assert sorted(weights.to_torch(weights.of_jax(flax))) == sorted(dict(twin.named_parameters()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("head.linear.kernel"), r"lack head\.linear\.kernel.*\[64, 10\]"),
        (lambda w: w.update({"head.extra": np.zeros(1)}), r"have head\.extra, which .* lacks"),
        (
            lambda w: w.update({"head.linear.bias": np.zeros(10, complex)}),
            r"have head\.linear\.bias as complex128; real numbers",
        ),
        (
            lambda w: w.update({"head.linear.bias": np.zeros(9)}),
            r"have head\.linear\.bias as \[9\].*\[10\]",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(change, message):
    model = models.build("resnet1")
    found = weights.of_jax(model)
    change(found)
    with pytest.raises(weights.WeightsError, match=message):
        weights.into_jax(model, found)


def test_torch_weights_that_do_not_fit_are_named():
    with pytest.raises(weights.WeightsError, match=r"lack weight, .*\[3, 2\]"):
        weights.into_torch(torch.nn.Linear(2, 3), {"bias": np.zeros(3)})


def test_into_jax_keeps_the_model_s_precision():
    model = models.build("resnet1", dtype="float32")
    doubles = {name: value.astype(np.float64) for name, value in weights.of_jax(model).items()}
    weights.into_jax(model, doubles)
    assert {str(w.dtype) for w in jax.tree.leaves(nnx.state(model, nnx.Param))} == {"float32"}


@pytest.mark.parametrize(("name", "downsampling"), [("odenet", "conv"), ("resnet1", "residual")])
def test_layers_agree(name, downsampling):
    found = layers.checks(name, None, trained.batch(0, 2)["images"], "float64", downsampling)
    assert len(found) > 12
    assert [check.describe() for check in found if not check.passed] == []


@pytest.mark.parametrize("dtype", ["int32", ">f8", "float16", "bfloat16", "longdouble"])
def test_numbers_of_any_dtype_are_put_into_either(dtype):
    numbers = np.array([[1.0, 2.0], [3.0, -4.0]])
    given = (
        np.asarray(jnp.asarray(numbers, dtype)) if dtype == "bfloat16" else numbers.astype(dtype)
    )
    flax, twin = nnx.Linear(2, 2, rngs=nnx.Rngs(0)), torch.nn.Linear(2, 2)
    weights.into_jax(flax, {"kernel": given, "bias": np.zeros(2)})
    weights.into_torch(twin, {"weight": given.T, "bias": np.zeros(2)})
    np.testing.assert_array_equal(np.asarray(flax.kernel[...]), numbers)
    np.testing.assert_array_equal(twin.weight.detach().numpy(), numbers.T)


@pytest.mark.parametrize(
    ("move", "names"),
    [(weights.to_torch, ("n.scale", "n.weight")), (weights.to_jax, ("n.mean", "n.running_mean"))],
)
def test_two_tensors_of_one_name_are_refused(move, names):
    with pytest.raises(weights.WeightsError, match="two tensors that become"):
        move({name: np.zeros(2) for name in names})
