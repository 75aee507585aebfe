"""Where a result comes from: versions, machine, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from experiments.harness.files import write_atomic


def environment(packages: dict[str, str]) -> dict[str, Any]:
    """What a reader needs to repeat a run: versions of Python and packages, machine, git commit."""
    versions = {"python": platform.python_version(), "numpy": importlib.metadata.version("numpy")}
    return {
        "versions": versions | packages,
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "git_commit": git_commit(Path(__file__).parent),
    }


def git_commit(folder: Path) -> str | None:
    """Commit of the work tree that `folder` is in, `-dirty` if changed; None outside of git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(
            [*command, "--exclude", "*"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def keep_changes(folder: Path, commit: str | None, name: str = "changes.diff") -> None:
    """Write what the work tree of this file has over `commit` into `folder`, if it has anything."""
    if not (commit or "").endswith("-dirty"):
        return
    command = ["git", "-C", str(Path(__file__).parent), "diff", "--binary", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return
    write_atomic(folder / name, done.stdout)


def short(commit: str | None) -> str:
    """A commit in ten digits, still marked if it was dirty."""
    commit = commit or "none"
    return commit[:10] + ("-dirty" if commit.endswith("-dirty") else "")
