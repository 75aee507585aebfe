"""Tests of solving hold JAX to its strictest: no dtype and no rank is promoted in silence."""

import contextlib

import jax
import pytest

# Of layers, which add a bias to a batch, and of the models and losses made of them.
OF_LAYERS = (
    "bfloat16", "cnf", "conv", "latent", "models", "regularise", "classify", "accelerators"
)  # fmt: skip


@pytest.fixture(autouse=True)
def _strict(request):
    with contextlib.ExitStack() as stack:
        if request.path.stem.removeprefix("test_") not in OF_LAYERS:
            stack.enter_context(jax.numpy_rank_promotion("raise"))
            stack.enter_context(jax.numpy_dtype_promotion("strict"))
        yield
