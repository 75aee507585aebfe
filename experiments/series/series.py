"""A multivariate time series, checked where it enters, and one that is real.

NaN is a value that was not observed: it is left out of the loss, never filled in as data.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from experiments.harness.errors import DataError

# What float() takes besides, `1_0` and digits of other scripts, is more likely a mistake.
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|[+-]?inf(inity)?", re.A | re.I)
TIMES = ("time", "times", "timestamp", "date", "datetime")
LARGEST = 1e150  # of a value: deviations square it
# Of an interval between times, the part that rounding them may move, as in `solve`.
RESOLVED = 1e-3
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars", " ": "spaces"}


def plain(number: float) -> str:
    """All digits of a number and no more: unix times that differ look different."""
    return repr(float(number)).removesuffix(".0")


@dataclass(frozen=True)
class Series:
    """Times in increasing order and the values observed then; NaN where one was not.

    Both become float64. Raises `DataError` for what is no row of times with a row of values for
    each and a name for each channel, for times that are not finite, not increasing, repeated or
    nearer than float64 resolves, for fewer than two of them, for values whose squares are infinite,
    and for a channel that was never observed, or has no name or that of another.
    """

    times: Float[ndarray, " times"]
    values: Float[ndarray, "times channels"]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        given = _numbers("times", self.times, "[times]")
        times, values = given.astype(float), _numbers("values", self.values, "[times, channels]")
        names = () if isinstance(self.names, str) else tuple(self.names)
        if not all(isinstance(name, str) for name in names):
            raise DataError(f"the names of the channels are {self.names!r}; text expected.")
        if values.shape != (len(times), len(names)) or not names:
            raise DataError(
                f"there are {len(times)} times, values of shape {list(values.shape)} and the names "
                f"{self.names!r}; a row of values for each time and a name for each column are "
                "expected."
            )
        values = values.astype(float)
        for name, value in (("times", times), ("values", values), ("names", names)):
            object.__setattr__(self, name, value)
        if len(times) < 2:
            raise DataError(
                f"the series has {len(times)} observation(s); at least 2 are needed to learn how "
                "it changes."
            )
        if not np.isfinite(times).all():
            row = int(np.flatnonzero(~np.isfinite(times))[0])
            raise DataError(
                f"the time of observation {row + 1} is {times[row]}; a number expected."
            )
        steps = np.diff(times)
        if (steps <= 0).any():
            row = int(np.flatnonzero(steps <= 0)[0])
            fault, cure = (
                ("is there twice", "average or drop the duplicates")
                if steps[row] == 0
                else (f"is followed by {plain(times[row + 1])}", "sort the observations by time")
            )
            raise DataError(f"time {plain(times[row])} {fault}, but times must increase; {cure}.")
        # Of whole numbers that float64 cuts; differences of unsigned ones would wrap.
        exact = np.diff(given.astype(object) if given.dtype.kind in "iu" else given)
        if moved := np.flatnonzero(np.abs(steps - exact) > RESOLVED * np.abs(exact)).tolist():
            raise DataError(
                f"times {given[moved[0]]} and {given[moved[0] + 1]} are apart by less than float64 "
                "resolves there; count time from another origin."
            )
        if len(large := np.argwhere(np.abs(values) > LARGEST)):
            row, channel = large[0].tolist()
            value = values[row, channel]
            raise DataError(
                f"{self.names[channel]} is {'infinite' if np.isinf(value) else plain(value)} at "
                f"time {plain(times[row])}; a number whose square is finite, or NaN for a missing "
                "value, expected."
            )
        for column, name in enumerate(self.names):
            if not name or name in self.names[:column]:
                fault = f"is named {name}, as another is" if name else "has no name"
                raise DataError(f"column {column + 2} {fault}; name it, or leave it out.")
        for name in np.array(self.names)[np.isnan(values).all(0)]:
            raise DataError(
                f"channel {name} was never observed (all values are missing); leave it out."
            )

    def filled(self) -> Float[ndarray, "times channels"]:
        """Values with missing ones interpolated linearly in time: a guess to start from."""
        return interpolated(self.times, self.values, self.times)

    def split(self, fraction: float) -> tuple[Series, Series]:
        """The first `fraction` of the observations, and the rest, each checked to be a series."""
        cut, count = round(fraction * len(self.times)), len(self.times)
        if min(cut, count - cut) < 2:
            raise DataError(
                f"of {count} observations a fraction of {fraction:g} leaves {cut} to learn from "
                f"and {count - cut} to forecast; at least 2 of each are needed."
            )
        parts = (slice(None, cut), slice(cut, None))
        for part, use in zip(parts, ("learn from", "forecast"), strict=True):
            for name in np.array(self.names)[np.isnan(self.values[part]).all(0)]:
                raise DataError(f"channel {name} is not observed in the part to {use}.")
        first, rest = (Series(self.times[p], self.values[p], self.names) for p in parts)
        return first, rest


def interpolated(
    times: Float[ndarray, " times"],
    values: Float[ndarray, "times channels"],
    ask: Float[ndarray, " asked"],
) -> Float[ndarray, "asked channels"]:
    """Each channel linear between what was observed of it, constant outside."""
    columns = zip(values.T, ~np.isnan(values).T, strict=True)
    return np.stack([np.interp(ask, times[k], column[k]) for column, k in columns], axis=1)


def _numbers(what: str, given: Any, shape: str) -> ndarray:
    """Real numbers as an array, masked ones as NaN. Raises `DataError`."""
    if isinstance(given, np.ma.MaskedArray):
        given = np.ma.filled(given.astype(float), np.nan)
    try:
        array = np.asarray(given)
    except ValueError:  # rows of unequal length
        array = np.array(None)
    if array.dtype.kind not in "iuf" or array.ndim != 1 + shape.count(","):
        raise DataError(
            f"the {what} are {array.dtype} of shape {list(array.shape)}; numbers {shape} expected "
            "(times counted from any origin)."
        )
    return array


def read_csv(path: Path) -> Series:
    """Read a series: a header, the time in the first column, empty or `nan` where unobserved.

    Columns are separated by commas, numbers have decimal points. Raises `DataError` naming the line
    that cannot be read, and whatever `Series` refuses.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets begin with a mark
            lines = list(_lines(csv.reader(file, strict=True)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}).") from None
    if not lines:
        raise DataError(f"{path} is empty; a header and lines of numbers expected.")
    (first, header), *lines = lines
    _check_header(path, first, header)
    rows, times = [], []
    for number, line in lines:
        cells = [cell.strip() for cell in line]
        readable = all(NUMBER.fullmatch(cell) or not cell for cell in cells)
        if len(cells) != len(header) or not readable or not np.isfinite(float(cells[0] or "nan")):
            raise DataError(
                f"line {number} of {path} is {','.join(line)!r}; {len(header)} numbers expected, "
                "the first of them the time (others may be empty, or nan, if not observed)."
            )
        rows.append([float(cell or "nan") for cell in cells])
        times.append(Decimal(cells[0]))
    for a, b in zip(times[:-1], times[1:], strict=True):
        if abs(float(b) - float(a) - float(b - a)) > RESOLVED * abs(float(b - a)):
            raise DataError(
                f"times {a} and {b} of {path} are apart by less than float64 resolves there; count "
                "time from another origin."
            )
    table = np.array(rows, float).reshape(len(rows), len(header))
    return Series(table[:, 0], table[:, 1:], tuple(name.strip() for name in header[1:]))


def _lines(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, each with the number of its first line in the file."""
    end = 0
    for row in reader:
        start, end = end + 1, reader.line_num  # type: ignore[attr-defined]
        if any(cell.strip() for cell in row):
            yield start, row


def _check_header(path: Path, number: int, header: list[str]) -> None:
    """Refuse a file whose first row is data, or is not cut into columns by commas."""
    shown = f"line {number} of {path}, {','.join(header)!r},"
    names = [name.strip() for name in header]
    elsewhere = any(name.lower() in TIMES for name in names[1:])
    unnamed = not names[0] and not NUMBER.fullmatch(names[1])
    if unnamed or (elsewhere and names[0].lower() not in TIMES):
        raise DataError(
            f"{shown} does not begin with the time; put it first, named, and leave out a column "
            "that numbers the rows."
        )
    if NUMBER.fullmatch(names[0]) or not any(character.isalpha() for character in names[0]):
        raise DataError(f"{shown} is of numbers; add a header before it, such as time,x,y.")
    if len(header) < 2:
        for separator, name in SEPARATORS.items():
            if separator in header[0].strip():
                raise DataError(
                    f"{shown} is separated by {name}; separate columns by commas and write decimal "
                    "points."
                )
        raise DataError(f"{shown} names one column; the time and one more at least expected.")


# Pelts traded by the Hudson's Bay Company, in thousands: Elton and Nicholson 1942, Journal of
# Animal Ecology 11, as tabulated by P. Howard (Modeling basics, Texas A&M, 2009) and used in
# B. Carpenter's Stan case study "Predator-prey population dynamics" (2018).
_HARE = (
    "30 47.2 70.2 77.4 36.3 20.6 18.1 21.4 22 25.4 27.1 40.3 57 76.6 52.3 19.5 11.2 7.6 14.6 16.2 "
    "24.7"
)
_LYNX = "4 6.1 9.8 35.2 59.4 41.7 19 13 8.3 9.1 7.4 8 12.3 19.5 45.7 51.1 29.7 15.8 9.7 10.1 8.6"


def lynx_hare() -> Series:
    """Snowshoe hares and Canadian lynxes, 1900 to 1920: thousands of pelts a year."""
    values = np.array([[float(n) for n in column.split()] for column in (_HARE, _LYNX)]).T
    return Series(np.arange(1900.0, 1921.0), values, ("hare", "lynx"))
