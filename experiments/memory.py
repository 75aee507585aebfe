"""Keep freed memory: a training step frees and takes hundreds of megabytes, again and again."""

import ctypes
import platform

# mallopt's parameters (malloc.h)
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Tell glibc not to give freed memory back to the system; elsewhere do nothing.

    Otherwise every large buffer of XLA or torch comes as fresh pages, which the system must zero
    anew in each step: a third of ResNet-6's step in JAX on two cores, in one comparison.
    Returns whether it was done.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _ARENA_MAX: 1, _TOP_PAD: 2**26}
    return all([mallopt(parameter, value) == 1 for parameter, value in settings.items()])
