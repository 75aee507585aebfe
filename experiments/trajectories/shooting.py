"""Series to the arrays that multiple shooting is trained on, and errors of what it predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from experiments.harness.errors import DataError
from experiments.series.series import RESOLVED, Series, interpolated, plain

Predict = Callable[[ndarray, ndarray], ndarray]


@dataclass(frozen=True)
class Shooting:
    """Windows of scaled series.

    Channels have mean 0 and deviation 1 over the training data (of their logarithms, with `log`),
    and time is counted in units in which those channels change by about one.

    Attributes:
        batch: what `dynamics.loss` takes, all of it at every step.
        starts: first guess of the windows' initial states.
        mean, deviation: of the channels; `pace`: scaled time a unit of time.
        log: whether channels are logarithms.
    """

    batch: dict[str, ndarray]
    starts: Float[ndarray, "windows dim"]
    mean: Float[ndarray, " dim"]
    deviation: Float[ndarray, " dim"]
    pace: float
    log: bool

    def scale(self, y: ndarray) -> ndarray:
        """States in the system's units to the model's."""
        return ((np.log(y) if self.log else y) - self.mean) / self.deviation

    def unscale(self, y: ndarray) -> ndarray:
        """The inverse of `scale`."""
        y = y * self.deviation + self.mean
        return np.exp(y) if self.log else y

    def scaled(self, series: Sequence[Series]) -> list[Series]:
        """The series in the model's units."""
        return [Series(s.times * self.pace, self.scale(s.values), s.names) for s in series]

    def predict(self, method: Predict, y0: ndarray, times: ndarray) -> ndarray:
        """Trajectories `[batch, times, dim]` in the system's units from states `[batch, dim]`."""
        return self.unscale(method(self.scale(y0), (times - times[0]) * self.pace))


def check_times(times: Sequence[ndarray], pace: float, precision: str) -> None:
    """Raise `DataError` if rounding moves a time by more than `RESOLVED` of a scaled unit.

    Each of `times` counts from its first.
    """
    for ts in times:
        exact = (ts - ts[0]) * pace
        moved = np.abs(exact.astype(precision) - exact)
        if (moved > RESOLVED).any():
            row = int(np.argmax(moved > RESOLVED))
            raise DataError(
                f"time {plain(ts[row])} is too far from {plain(ts[0])} for {precision}, whose "
                f"times there are {np.spacing(exact[row].astype(precision)) / pace:.2g} apart, "
                f"while the channels change within {1 / pace:.2g}; use --precision float64, or "
                "leave out observations that are very close together or far away."
            )


def telling_times_apart(method: Predict, precision: str) -> Predict:
    """`method` at the times that differ in `precision`, and again where they do not."""

    def predict(y0: ndarray, ts: ndarray) -> ndarray:
        different, index = np.unique(ts.astype(precision), return_inverse=True)
        return method(y0, different)[:, index]

    return predict


def check_log(series: Series) -> None:
    """Raise `DataError` for values that have no logarithm."""
    if (series.values <= 0).any():
        row = int(np.flatnonzero((series.values <= 0).any(1))[0])
        raise DataError(
            f"--log needs values above 0, but not all are at {plain(series.times[row])}."
        )


def prepare(series: Sequence[Series], window: int, *, log: bool) -> Shooting:
    """Scale the series and cut them into windows of `window` intervals.

    The last window of a series is filled up by its last time, where nothing is observed.
    """
    rows = [np.log(s.values) if log else s.values for s in series]
    stacked = np.concatenate(rows)
    mean, deviation = np.nanmean(stacked, axis=0), np.nanstd(stacked, axis=0)
    same = np.nanmax(stacked, axis=0) == np.nanmin(stacked, axis=0)  # the mean may round
    for channel in np.flatnonzero(same | (deviation == 0)):
        raise DataError(f"channel {series[0].names[channel]} never changes; leave it out.")
    gaps = np.concatenate([np.diff(s.times) for s in series])
    filled = (interpolated(s.times, r, s.times) for s, r in zip(series, rows, strict=True))
    steps = np.concatenate([np.diff(states, axis=0) for states in filled])
    # The median resists pairs of noisy observations that are very close in time; a step of zero
    # says nothing about the pace.
    speeds = np.linalg.norm(steps / deviation, axis=1) / gaps
    if not (speeds > 0).any():
        raise DataError("no channel is seen to change; more observations or fewer gaps are needed.")
    pace = float(np.median(speeds[speeds > 0]) / np.sqrt(len(mean)))
    parts: dict[str, list[ndarray]] = {k: [] for k in ("times", "values", "mask", "next", "start")}
    longest = max(len(s.times) for s in series)
    whole: dict[str, list[ndarray]] = {k: [] for k in ("all_times", "all_values", "all_mask")}
    for one, row in zip(series, rows, strict=True):
        times, values = (one.times - one.times[0]) * pace, (row - mean) / deviation
        guess = interpolated(times, values, times)
        # Every observation is in one window's mask only: a window's first is its predecessor's
        # last, but for the first window's.
        cuts = range(0, len(times) - 1, window)
        for cut in cuts:
            piece = slice(cut, cut + window + 1)
            mask = (~np.isnan(values[piece])).astype(float)
            if cut:
                mask[0] = 0
            # From its own start: in float32 the gaps of a long series would be lost in its length.
            parts["times"].append(_pad(times[piece] - times[cut], window + 1, "edge"))
            parts["values"].append(_pad(np.nan_to_num(values[piece]), window + 1, "constant"))
            parts["mask"].append(_pad(mask, window + 1, "constant"))
            index = len(parts["next"])
            parts["next"].append(np.array(index + (cut != cuts[-1])))
            parts["start"].append(guess[cut])
        whole["all_times"].append(_pad(times, longest, "edge"))
        whole["all_values"].append(_pad(guess, longest, "edge"))
        whole["all_mask"].append(_pad((~np.isnan(values)).astype(float), longest, "constant"))
    starts = np.stack(parts.pop("start"))
    batch = {name: np.stack(arrays) for name, arrays in (parts | whole).items()}
    return Shooting(batch, starts, mean, deviation, pace, log)


def errors(problem: Shooting, method: Predict, test: Any) -> float:
    """RMSE over a test's trajectories, in deviations of the training data; NaN if one escapes."""
    with np.errstate(over="ignore", invalid="ignore"):  # an escape is reported, as NaN
        found = problem.predict(method, test.truth[:, 0], test.times)
    late = test.times > test.since if np.isfinite(test.since) else slice(1, None)
    truth = problem.scale(test.truth)[:, late]
    known = ~np.isnan(truth)
    return float(np.sqrt(np.mean((problem.scale(found)[:, late] - truth)[known] ** 2)))


def _pad(array: ndarray, length: int, mode: Any) -> ndarray:
    return np.pad(array, [(0, length - len(array)), *[(0, 0)] * (array.ndim - 1)], mode=mode)
