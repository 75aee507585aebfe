"""Carbon dioxide in the air at Mauna Loa, Hawaii, week by week from 1958 to 2001, with its gaps.

The values, and where they come from, are in mauna_loa.txt.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from experiments.series.series import Series

YEAR = 365.25 / 7  # weeks


def mauna_loa() -> Series:
    """CO2 in ppmv against the year; the weeks without a value are left out."""
    table = Path(__file__).with_suffix(".txt").read_text()
    cells = [c for line in table.splitlines() if not line.startswith("#") for c in line.split()]
    weeks = np.array([k for k, cell in enumerate(cells) if cell != "."])
    values = np.array([300 + int(cells[k]) / 10 for k in weeks])
    start = 1958 + (31 + 28 + 28) / 365
    return Series(start + weeks / YEAR, values[:, None], ("CO2 (ppmv)",))


def harmonics(
    times: Float[ndarray, " times"], values: Float[ndarray, "times channels"], ask: ndarray
) -> Float[ndarray, "asked channels"]:
    """The classical answer: a line and two annual harmonics, by least squares on `values`."""
    angles = lambda t: 2 * np.pi * t[:, None] * np.array([1, 2])
    terms = lambda t: np.column_stack([t**0, t, np.cos(angles(t)), np.sin(angles(t))])
    weights, *_ = np.linalg.lstsq(terms(times), values)
    return terms(ask) @ weights
