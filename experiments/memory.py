"""Memory that stays: a training step frees and takes hundreds of megabytes, again and again."""

import os
import platform
import sys

_TUNABLES = {
    "hugetlb": 1,  # in pages of 2 MB, of which the system zeroes and maps far fewer than of 4 kB
    "mmap_threshold": 2**40,  # nothing is mapped for itself, to be unmapped when freed
    "trim_threshold": 2**40,  # no heap shrinks
    "top_pad": 2**27,  # nor is one given back that is empty: two heaps' size is to be left over
}


def restart_with_kept_memory() -> None:
    """Start this program anew with a malloc that keeps what is freed, in huge pages.

    Otherwise every large buffer of XLA is fresh memory in each step, which the system must find and
    zero; in a virtual machine that returns free memory to its host, this took up to half of a
    step's time. glibc reads these settings before a program begins, so a running one cannot change
    them. Without glibc, or if they are set already, this does nothing.

    A thread's heap has 64 MB, so XLA is asked for smaller pieces (`jax_node.device`), and its
    warnings of each buffer that is larger are silenced. (One heap for all threads would keep any
    buffer, but JAX's devices then wait in turns for its lock.)
    """
    if platform.libc_ver()[0] == "glibc" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = ":".join(
            f"glibc.malloc.{name}={value}" for name, value in _TUNABLES.items()
        )
        if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":  # JAX's own setting
            os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
