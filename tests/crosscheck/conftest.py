"""crosscheck compiles step sizes and tolerances as arguments, so `solve` gets arrays for floats."""

import jaxtyping
import pytest


@pytest.fixture(autouse=True)
def _floats_may_be_arrays():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
