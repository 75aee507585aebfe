"""Every test may ask for float64: numerics are tested there, and float32 is asked for by name."""

import atexit
import os
import shutil
import tempfile

# The tests run in one process per core; threads of their own would only contend.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A program that one test has compiled the others load, in all processes of this session.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    programs = tempfile.mkdtemp(prefix="jax-programs-")
    atexit.register(shutil.rmtree, programs, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = programs
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import jax  # noqa: E402

jax.config.update("jax_enable_x64", True)
