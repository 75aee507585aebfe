"""The training state as an Orbax checkpoint, written whole or not at all, checked before use."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, PyTree


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the first array that does not fit."""


@contextlib.contextmanager
def _quiet() -> Iterator[ocp.PyTreeCheckpointer]:
    """A checkpointer that does not report every write."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            yield checkpointer
    finally:
        logger.setLevel(level)


def write(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write `arrays` to the new directory `path`, which appears only once it is complete.

    Raises:
        FileExistsError: `path` exists.
    """
    path = Path(path).absolute()
    if path.exists():
        raise FileExistsError(f"checkpoint {path} exists already; choose a new directory")
    with _quiet() as checkpointer:
        checkpointer.save(path, dict(arrays))


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays in directory `path`.

    Raises:
        CheckpointError: there is no checkpoint, or it cannot be read.
    """
    path = Path(path).absolute()
    if not path.is_dir():
        raise CheckpointError(f"{path} is not there; expected a checkpoint written by JAX")
    try:
        with _quiet() as checkpointer:
            structure = checkpointer.metadata(path).item_metadata.tree
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), structure)
            return checkpointer.restore(path, restore_args=as_numpy)
    except Exception as error:  # Orbax raises whatever its storage layer raises
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is unreadable ({reason}); use another checkpoint") from error


def check(path: Path, found: Mapping[str, np.ndarray], expected: Mapping[str, Array]) -> None:
    """Raise `CheckpointError` naming the first missing, extra or misshapen array."""
    hint = "it was written by another model, optimiser or precision"
    for name, want in expected.items():
        if name not in found:
            raise CheckpointError(f"checkpoint {path} lacks the array {name}; {hint}")
        have = found[name]
        if have.shape != want.shape or have.dtype != want.dtype:
            raise CheckpointError(
                f"checkpoint {path} has the array {name} as {have.dtype}{list(have.shape)}, "
                f"expected {want.dtype}{list(want.shape)}; {hint}"
            )
    for name in found:
        if name not in expected:
            raise CheckpointError(f"checkpoint {path} has an extra array {name}; {hint}")


def flatten(prefix: str, tree: PyTree) -> dict[str, Any]:
    """Leaves by dotted name, `prefix` first: `model.field.conv1.kernel`."""
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator=".")
    return {
        f"{prefix}.{name(path)}".removesuffix(".value"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
