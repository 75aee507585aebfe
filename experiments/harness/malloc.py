"""Memory that stays: a training step frees and takes hundreds of megabytes, again and again."""

import os
import platform
import sys
from pathlib import Path

_HUGE = Path("/sys/kernel/mm/hugepages/hugepages-1048576kB")
_TUNABLES = {
    # A thread's heap has four times this, whether there are such pages or not; otherwise 64 MB.
    "hugetlb": 2**30 if _HUGE.exists() else 1,
    "mmap_threshold": 2**40,  # nothing is mapped for itself, to be unmapped when freed
    "trim_threshold": 2**40,  # no heap shrinks
    "top_pad": 2**27,  # nor is one of 64 MB given back
}
# For a child process whose memory is measured: what is kept would not be taken again.
GIVEN_BACK = {"GLIBC_TUNABLES": ""}


def restart_with_kept_memory() -> None:
    """Start this program anew with a malloc that keeps what is freed.

    Otherwise every large buffer of XLA is fresh memory in each step, which the system must find and
    zero; in a virtual machine that returns free memory to its host, this took up to half of a
    step's time. glibc reads these settings before a program begins, so a running one cannot change
    them. Without glibc, or if they are set already, this does nothing.

    Heaps take address space and no memory until it is used. (One heap for all threads would keep
    any buffer too, but JAX's devices then wait in turns for its lock.)
    """
    if platform.libc_ver()[0] == "glibc" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = ":".join(
            f"glibc.malloc.{name}={value}" for name, value in _TUNABLES.items()
        )
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
