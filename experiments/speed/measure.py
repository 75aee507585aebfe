"""How `benchmark.py` measures: in turns; compile time and memory in processes of their own."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax
import torch

from experiments.harness import malloc

# A sample is as many calls as fill this time, so that small work is measured as well as large.
SAMPLE_SECONDS = 0.1


def take_turns(
    calls: Mapping[str, Callable[[], dict[str, float]]], repeats: int
) -> dict[str, dict[str, Any]]:
    """Seconds a call of every side, sampled in turns after a warm-up, and what it returned.

    The sides share one process, so that the machine's moods strike all of them.
    """
    found: dict[str, dict[str, Any]] = {}
    for side, call in calls.items():
        call()
        seconds, work = timed(call)
        times = max(1, round(SAMPLE_SECONDS / seconds))
        found[side] = {"calls_a_sample": times, "samples": [], **work}
    for turn in range(repeats):
        for side in list(calls)[:: 1 if turn % 2 == 0 else -1]:
            seconds, _ = timed(calls[side], found[side]["calls_a_sample"])
            found[side]["samples"].append(seconds)
    for result in found.values():
        result["seconds"] = statistics.median(result["samples"])
    return found


def timed(call: Callable[[], Any], times: int = 1) -> tuple[float, Any]:
    """Mean seconds of a call, and what the last one returned."""
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(times):
            result = call()
        return (time.perf_counter() - start) / times, result
    finally:
        gc.enable()


def in_process(function: Callable[..., Any], *arguments: Any, **environment: str) -> Any:
    """`function(*arguments)` in a fresh process, with these environment variables as well."""
    saved = dict(os.environ)
    os.environ.update(environment)  # the child must find them before it imports JAX or torch
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()
    finally:
        os.environ.clear()
        os.environ.update(saved)


def alone(make: Callable[..., Callable[[], Any]], *arguments: Any, **environment: str) -> Any:
    """`compile_and_peak` in a process of its own, whose malloc keeps nothing."""
    environment |= malloc.GIVEN_BACK
    return in_process(compile_and_peak, make, *arguments, **environment)


def compile_and_peak(make: Callable[..., Callable[[], Any]], *arguments: Any) -> dict[str, Any]:
    """Seconds by which the first call exceeds the second, and the peak memory of a third (MB)."""
    call = make(*arguments)
    first, _ = timed(call)
    second, _ = timed(call)
    return {"compile_seconds": first - second, "peak_mb": peak_memory(call)}


def peak_memory(call: Callable[[], Any]) -> float | None:
    """Megabytes that `call` takes at its peak beyond those held before it.

    On a GPU by the statistics of the allocators of JAX (whose peak also covers compilation) and
    torch; without one by the resident set, which only Linux lets us reset (None elsewhere).
    """
    if torch.cuda.is_available() or jax.default_backend() != "cpu":
        return _peak_on_gpu(call)
    if platform.libc_ver()[0] != "glibc" or not Path("/proc/self/clear_refs").exists():
        return None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is freed is not held
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    call()
    return _resident("VmHWM") - before


def _peak_on_gpu(call: Callable[[], Any]) -> float:
    device = jax.devices()[0]
    statistic = lambda name: (device.memory_stats() or {}).get(name, 0)
    cuda = torch.cuda.is_available()
    before = statistic("bytes_in_use") + (torch.cuda.memory_allocated() if cuda else 0)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    call()
    peak = statistic("peak_bytes_in_use") + (torch.cuda.max_memory_allocated() if cuda else 0)
    return (peak - before) / 2**20


def _resident(field: str) -> float:
    """A field of /proc/self/status in megabytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 2**10
