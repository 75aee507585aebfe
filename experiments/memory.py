"""Huge pages: a training step frees and takes hundreds of megabytes, again and again."""

import os
import platform
import sys

_TUNABLE = "GLIBC_TUNABLES"


def restart_with_huge_pages() -> None:
    """Start this program anew with malloc in huge pages; without glibc, or if tuned, do nothing.

    Every large buffer of XLA or torch comes as fresh pages, which the system must zero anew in each
    step, and 2 MB pages cost far fewer faults than 4 kB ones. glibc reads the setting before a
    program begins, so a running one cannot change it. (Keeping freed memory by `mallopt` needs a
    single arena, for whose lock JAX's devices then wait in turns.)
    """
    if platform.libc_ver()[0] == "glibc" and _TUNABLE not in os.environ:
        os.environ[_TUNABLE] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
