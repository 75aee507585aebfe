"""The library is held to JAX's strictest: no dtype and no rank is promoted in silence."""

import jax
import pytest


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield
