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


def _data(shape_x, shape_kernel, dtype=jnp.float64):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in (shape_x, shape_kernel)]


def _relative(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


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


@pytest.mark.parametrize(
    ("fast", "shape_x", "shape_kernel"),
    [CASES[name][:3] for name in ("same3x3", "valid3x3", "half4x4, even")],
)
@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_the_platform_that_runs_chooses(fast, shape_x, shape_kernel, platform):
    """Whatever the default backend is: `--device cpu` on a machine with a GPU is fast too."""
    traced = jax.jit(fast).trace(*_data(shape_x, shape_kernel, jnp.float32))
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.convolution" in program) == (platform == "cuda")


def test_bfloat16_is_native_on_an_accelerator_only():
    x, kernel = _data((6, 6, 2, 3), (3, 3, 3, 4), jnp.float32)
    traced = jax.jit(conv.in_bfloat16(conv.same3x3)).trace(x, kernel)
    on_cpu = traced.lower(lowering_platforms=("cpu",)).compile().as_text()
    assert "bf16[" not in on_cpu
    assert "bf16>" in traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.usefixtures("_no_type_checks")
@pytest.mark.parametrize("name", ["same3x3", "valid3x3", "half4x4, odd"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32])
def test_narrow_dtypes_err_no_more_than_plain(name, dtype):
    """Winograd's transforms made 9% of bfloat16's rounding, and nonsense of whole numbers."""
    fast, shape_x, shape_kernel, options = CASES[name]
    x, kernel = (jnp.round(4 * array).astype(dtype) for array in _data(shape_x, shape_kernel))
    exact = conv.plain(x.astype(float), kernel.astype(float), **options)
    eps = 0 if dtype == jnp.int32 else float(jnp.finfo(dtype).eps)
    # Sums of 48 terms at most, each rounded.
    assert _relative(fast(x, kernel).astype(float), exact) <= 48 * eps / 2


@pytest.mark.usefixtures("_no_type_checks")
def test_other_kernels_are_refused_and_a_single_pixel_is_not():
    for fast, size in ((conv.same3x3, 3), (conv.valid3x3, 3), (conv.half4x4, 4)):
        for shape in ((size, 1, 3, 4), (5, 5, 3, 4), (size, size, 2, 4)):
            with pytest.raises(ValueError, match=rf"give .*\[{size}, {size}, c_in, c_out\]"):
                fast(*_data((8, 8, 2, 3), shape))
    one = _data((1, 1, 2, 3), (4, 4, 3, 4))
    assert conv.half4x4(*one).shape == conv.plain(*one, stride=2, padding=1).shape
