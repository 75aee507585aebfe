"""The remedies for a slow gradient in a loop compute the same convolution and gradients."""

import jax
import jax.numpy as jnp
import pytest

from experiments import convolution_in_loop as loop


@pytest.mark.parametrize("convolve", [loop.canonical, loop.as_products])
def test_remedies_equal_the_plain_form(convolve):
    """Float64; Winograd multiplies rounding by about ten (see conv.same3x3)."""
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (2, 6, 6, 3), jnp.float64)
    kernel = jax.random.normal(keys[1], (3, 3, 3, 5), jnp.float64)
    loss = lambda convolve: lambda x, kernel: jnp.sum(jnp.sin(convolve(x, kernel)))
    ours, plain = (
        jax.jit(jax.value_and_grad(loss(f), (0, 1)))(x, kernel) for f in (convolve, loop.plain)
    )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        assert jnp.allclose(a, b, rtol=0, atol=1e-12 * float(jnp.abs(b).max()))
