"""Long rows of numbers as short text, for records that are kept in the repository."""

from __future__ import annotations

import base64
import zlib

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

LOSS_UNIT = 1e-4


def pack(numbers: Int[ndarray, " n"]) -> str:
    """Whole numbers from 0 to 2**32 - 1 as compressed bytes in base64; `unpack` is the inverse."""
    return base64.b64encode(zlib.compress(numbers.astype("<u4").tobytes(), 9)).decode()


def unpack(text: str) -> Int[ndarray, " n"]:
    """Inverse of `pack`; ValueError if the text is damaged."""
    try:
        return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u4").astype(np.int64)
    except zlib.error as error:
        raise ValueError(f"not a row of packed numbers: {error}") from None


def pack_losses(losses: Float[ndarray, " n"]) -> str:
    """Losses to `LOSS_UNIT`; `unpack_losses` is the inverse."""
    return pack(np.rint(np.asarray(losses) / LOSS_UNIT).astype(np.int64))


def unpack_losses(text: str) -> Float[ndarray, " n"]:
    """Inverse of `pack_losses`."""
    return unpack(text) * LOSS_UNIT


def mistakes(predicted: str, true: str) -> str:
    """Where two rows of digits differ and what the first has there: `17:3 240:9`."""
    pairs = enumerate(zip(predicted, true, strict=True))
    return " ".join(f"{place}:{p}" for place, (p, t) in pairs if p != t)


def corrected(wrong: str, true: str) -> Int[ndarray, " n"]:
    """Inverse of `mistakes`: the predicted digits."""
    digits = np.array([int(digit) for digit in true])
    for mistake in wrong.split():
        place, digit = mistake.split(":")
        digits[int(place)] = int(digit)
    return digits
