"""Every test may ask for float64: numerics are tested there, and float32 is asked for by name."""

import os

# The tests run in one process per core; threads of their own would only contend.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax  # noqa: E402

jax.config.update("jax_enable_x64", True)
