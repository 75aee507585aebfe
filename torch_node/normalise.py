"""Normalisation between convolutions: over groups of one image's channels, or over the batch."""

from __future__ import annotations

from torch import nn

GROUPS = {"group": 32, "group1": 1, "group64": 64}
NORMS = (*GROUPS, "batch")


def normalisation(name: str, channels: int) -> nn.GroupNorm | nn.BatchNorm2d:
    """The layer of that name, one of NORMS, with PyTorch's eps 1e-5 and momentum 0.1.

    "group" has 32 groups, "group1" one (which is layer normalisation over space and channels),
    "group64" 64 (for 64 channels instance normalisation), but at most one a channel. "batch"
    normalises by the batch's statistics in train() mode and by their running averages in eval().

    Raises ValueError for an unknown name.
    """
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name not in GROUPS:
        raise ValueError(f"norm {name!r} is unknown; choose one of {', '.join(NORMS)}")
    return nn.GroupNorm(min(GROUPS[name], channels), channels)
