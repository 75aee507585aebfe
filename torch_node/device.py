"""A device by name."""

from __future__ import annotations

import torch


def available() -> tuple[str, ...]:
    """The names that `choose` accepts on this machine."""
    return ("auto", "cpu", "gpu") if torch.cuda.is_available() else ("auto", "cpu")


def choose(name: str) -> torch.device:
    """The device of a kind: "auto" (a GPU if there is one), "cpu" or "gpu".

    Raises ValueError: there is no such device here; the message names those there are.
    """
    if name not in available():
        raise ValueError(
            f"device {name!r} is not available to PyTorch here; choose one of "
            f"{', '.join(available())}"
        )
    if name == "auto":
        name = available()[-1]
    return torch.device("cuda" if name == "gpu" else "cpu")


def describe(device: torch.device) -> str:
    """A device in words: "cpu (2 threads)" or the GPU's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({torch.get_num_threads()} threads)"
