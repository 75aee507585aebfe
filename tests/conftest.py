"""Every test may ask for float64: numerics are tested there, and float32 is asked for by name."""

import jax

jax.config.update("jax_enable_x64", True)
