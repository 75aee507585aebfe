"""The training state in one file, written whole or not at all, and checked before it is used."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FILE = "state.pt"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the first tensor that does not fit."""


def write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors` to the new directory `path`, which appears only once it is complete.

    Raises FileExistsError if `path` exists.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"checkpoint {path} exists already; choose a new directory")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        complete = Path(scratch) / path.name
        complete.mkdir()
        with open(complete / FILE, "wb") as file:
            torch.save(dict(tensors), file)
            file.flush()
            os.fsync(file.fileno())
        complete.rename(path)


def read(path: Path, device: torch.device) -> dict[str, Any]:
    """The tensors in directory `path`. Only tensors are unpickled, so no code in it can run.

    Raises CheckpointError if there is no such file or it cannot be read.
    """
    file = Path(path) / FILE
    if not file.is_file():
        raise CheckpointError(f"{file} is not there; expected a checkpoint written by PyTorch")
    try:
        state = torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # torch.load raises whatever its zip reader and unpickler raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{file} is unreadable ({reason}); use another checkpoint") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{file} is unreadable (no table of tensors); use another checkpoint")
    return state


def check(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError naming the first missing, extra or misshapen tensor."""
    hint = "it was written by another model, optimiser or precision"
    for name, tensor in expected.items():
        if name not in found:
            raise CheckpointError(f"checkpoint {path} lacks the tensor {name}; {hint}")
        have, want = found[name], tensor
        if have.shape != want.shape or have.dtype != want.dtype:
            raise CheckpointError(
                f"checkpoint {path} has the tensor {name} as {_form(have)}, expected "
                f"{_form(want)}; {hint}"
            )
    for name in found:
        if name not in expected:
            raise CheckpointError(f"checkpoint {path} has an extra tensor {name}; {hint}")


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
