"""Run commands in processes of their own, some at once, each on its share of the cores.

A process that crashes, is killed or leaks takes nothing with it. XLA's threads leave a second core
half idle on small models, so by default a process gets one core and there are as many as cores.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.harness.files import last_line

# Enough for a run of the laptop's size; more at once would swap.
BYTES_PER_JOB = 3 * 2**30
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Task:
    """Commands to be run one after the other, the next only if all before returned 0."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    log: Path


@dataclass(frozen=True)
class Outcome:
    """How a task ended: `failure` is None, or one sentence."""

    name: str
    failure: str | None
    seconds: float


def available_cores() -> list[int]:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def default_jobs() -> int:
    """One job a core, as far as memory goes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(available_cores()), memory // BYTES_PER_JOB))


def shares(cores: Sequence[int], jobs: int) -> list[list[int]]:
    """The cores of each of `jobs` slots; with more slots than cores some slots share one."""
    if jobs >= len(cores):
        return [[cores[slot % len(cores)]] for slot in range(jobs)]
    bounds = [len(cores) * slot // jobs for slot in range(jobs + 1)]
    return [list(cores[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]


def run(
    tasks: Sequence[Task],
    jobs: int,
    ended: Callable[[Outcome], None],
    *,
    may_begin: Callable[[], bool] = lambda: True,
    wait: Callable[[float], None] = time.sleep,
) -> list[Task]:
    """Run `tasks` in order, `jobs` at once; `ended` hears of each. Returns those not begun.

    No task begins once `may_begin` says no. If this raises (Ctrl-C), the processes are ended first.
    """
    waiting, slots = list(tasks), shares(available_cores(), jobs)
    running: list[_Running | None] = [None] * len(slots)
    try:
        while any(running) or (waiting and may_begin()):
            for slot, current in enumerate(running):
                if current is None and waiting and may_begin():
                    running[slot] = _Running(waiting.pop(0), slots[slot])
                elif current is not None and (outcome := current.poll()):
                    running[slot] = None
                    ended(outcome)
            wait(POLL_SECONDS)
    finally:
        for left in running:
            if left is not None:
                left.kill()
    return waiting


class _Running:
    """A task under way on its cores."""

    def __init__(self, task: Task, cores: list[int]):
        self.task, self._cores = task, cores
        self._left = list(task.commands)
        self._process: subprocess.Popen[bytes] | None = None
        self._began = time.monotonic()
        self._failure = self._next()

    def poll(self) -> Outcome | None:
        """The outcome once the last command has ended, or one has failed."""
        if self._process is not None and self._failure is None:
            code = self._process.poll()
            if code is None:
                return None
            self._failure = self._next() if code == 0 else _reason(code, self.task.log)
            if self._process is not None and self._failure is None:
                return None
        return Outcome(self.task.name, self._failure, time.monotonic() - self._began)

    def kill(self) -> None:
        """End the process and wait for it."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _next(self) -> str | None:
        """Start the next command, if there is one; a sentence if it cannot be started."""
        self._process = None
        if not self._left:
            return None
        threads = str(len(self._cores))
        try:
            self.task.log.parent.mkdir(parents=True, exist_ok=True)
            with self.task.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._left.pop(0),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "OMP_NUM_THREADS": threads},
                    preexec_fn=_die_with_parent if _PRCTL else None,
                )
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(self._process.pid, self._cores)
        except ProcessLookupError:
            pass  # ended at once; its exit code will tell
        except OSError as error:
            return f"it could not be started: {error}"
        return None


def _reason(code: int, log: Path) -> str:
    """One sentence on a process that did not return 0: its own last line, or its signal."""
    if code < 0:
        hint = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
        return f"killed by {signal.Signals(-code).name}{hint}"
    return last_line(log) or f"exit code {code}"


_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """Have the kernel end this process when the study's is gone, even by kill -9."""
    assert _PRCTL is not None
    _PRCTL(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
