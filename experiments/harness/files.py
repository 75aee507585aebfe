"""Files that are whole or not there, and folders that one process has at a time."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import AcquireReturnProxy, FileLock, Timeout

from experiments.harness.errors import RunError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace `path`: whoever reads it sees the old or the new content, never a part of either."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync(path.parent)


@contextlib.contextmanager
def writing(what: object) -> Iterator[None]:
    """What the system says against writing `what` inside, as `RunError`."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{what} cannot be written ({error.strerror}).") from None


def read_object(path: Path, kinds: Mapping[str, type] | None = None) -> dict[str, Any]:
    """The JSON object in a file; `RunError` if it is damaged, or lacks what `kinds` names.

    `{"data.title": str}` is a text `title` in an object `data`.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}.") from None
    require(found, kinds or {}, path)
    return found


def require(found: Any, kinds: Mapping[str, type], where: Any) -> None:
    """Raise `RunError` unless `found` is a dictionary with what `kinds` names."""
    if not isinstance(found, dict):
        raise RunError(f"{where} is damaged: a JSON object expected.")
    for name, kind in kinds.items():
        value = found
        for key in name.split("."):
            if not isinstance(value, dict) or key not in value:
                raise RunError(f"{where} is damaged: it has no {name}.")
            value = value[key]
        if not isinstance(value, kind):
            raise RunError(f"{where} is damaged: its {name} is {value!r}.")


def last_line(log: Path) -> str:
    """The last line of a text file that is not blank; empty if there is none, or no file."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays as an npz file, whole or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())


def lock_folder(path: Path) -> AcquireReturnProxy:
    """Lock a folder until what is returned is left as a context; `RunError` if it is taken."""
    file = path / ".lock"
    try:
        lock = FileLock(file).acquire(blocking=False)
    except Timeout:
        owner = file.read_text().strip() or "unknown"
        raise RunError(f"{path} is in use by process {owner}; wait for it to end.") from None
    file.write_text(str(os.getpid()))
    return lock


def sync(path: Path) -> None:
    """Have a file or a folder's entries on the disk before anything that is written later."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """`sync` of everything in a folder."""
    for path, _, names in os.walk(folder):
        for name in names:
            sync(Path(path) / name)
        sync(Path(path))
