"""One comparison: two sides, the worst place, both values there, a bound and its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Tensors = Mapping[str, np.ndarray]

# A tensor smaller than this times the largest one is measured against the latter: what is zero but
# for rounding has no relative error.
FLOOR = 1e-6


@dataclass(frozen=True)
class Difference:
    """Where two sets of tensors differ most: relative error, tensor, index, both values."""

    error: float
    tensor: str
    index: tuple[int, ...]
    left: float
    right: float

    @property
    def place(self) -> str:
        """`conv1.weight[3, 0, 1, 1]`."""
        return f"{self.tensor}[{', '.join(map(str, self.index))}]" if self.index else self.tensor


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        group: section of the report, e.g. `gradients`.
        case: what was computed, e.g. `mlp, rk4 step 0.0625, float64`.
        left: one side, e.g. `jax direct`.
        right: the other.
        value: what was measured; a relative error, unless `quantity` names something else.
        bound: what it may be at most (at least, if `at_least`); None is reported, never failed.
        reason: why that bound, in one line.
        worst: the place where the sides differ most, for a comparison of tensors.
        at_least: turns the bound around.
        quantity: what `value` is.
    """

    group: str
    case: str
    left: str
    right: str
    value: float
    bound: float | None
    reason: str
    worst: Difference | None = None
    at_least: bool = False
    quantity: str = "relative error"

    @property
    def passed(self) -> bool:
        """Whether the value keeps the bound; one that is not finite keeps none, be it infinite."""
        if self.bound is None:
            return True
        return math.isfinite(self.value) and bool(
            self.value >= self.bound if self.at_least else self.value <= self.bound
        )

    def describe(self) -> str:
        """One sentence, with the place and both values."""
        sign = ("<" if self.at_least else ">") if not self.passed else "within"
        limit = "" if self.bound is None else f" {sign} {self.bound:.2g}"
        text = f"{self.group}: {self.case}: {self.left} against {self.right}: "
        text += f"{self.quantity} {self.value:.3g}{limit}"
        if self.worst is not None:
            worst = self.worst
            text += (
                f" at {worst.place}: {self.left} has {worst.left:.17g}, "
                f"{self.right} has {worst.right:.17g}"
            )
        return text

    def to_json(self) -> dict[str, Any]:
        """A row of report.json."""
        row: dict[str, Any] = {
            "group": self.group,
            "case": self.case,
            "left": self.left,
            "right": self.right,
            "quantity": self.quantity,
            "value": self.value if math.isfinite(self.value) else str(self.value),
            "bound": self.bound,
            "at_least": self.at_least,
            "passed": self.passed,
            "reason": self.reason,
        }
        if self.worst is not None:
            row["worst"] = {
                "tensor": self.worst.tensor,
                "index": list(self.worst.index),
                "left": _finite(self.worst.left),
                "right": _finite(self.worst.right),
            }
        return row


def difference(left: Tensors, right: Tensors) -> Difference:
    """The worst relative error over all tensors of two sides.

    An entry's error is relative to the largest entry of its tensor on either side (see `FLOOR`).
    Tensors that only one side has, shapes and dtypes that differ (but for widths of whole numbers),
    entries that are no real numbers, and nothing to compare are infinitely wrong.
    """
    for name in [*left, *right]:
        if name not in left or name not in right:
            return Difference(math.inf, name, (), *(_size(side, name) for side in (left, right)))
        kinds = {side[name].dtype.kind for side in (left, right)}
        like = kinds <= {"i", "u"} or (kinds == {"f"} and left[name].dtype == right[name].dtype)
        if left[name].shape != right[name].shape or not like:
            return Difference(math.inf, name, left[name].shape, math.nan, math.nan)
    largest = max((_largest(side[name]) for side in (left, right) for name in side), default=0.0)
    worst = Difference(-1.0, "", (), math.nan, math.nan)
    if not any(array.size for array in left.values()):
        return Difference(math.inf, "nothing", (), 0.0, 0.0)
    for name in left:
        a, b = (np.asarray(side[name], np.float64) for side in (left, right))
        if not a.size:
            continue
        scale = max(_largest(a), _largest(b), FLOOR * largest)
        error = np.asarray(np.abs(a - b))
        error[~np.isfinite(error)] = math.inf
        index = tuple(int(i) for i in np.unravel_index(np.argmax(error), error.shape))
        value = float(error[index] / scale) if error[index] else 0.0
        if value > worst.error:
            worst = Difference(value, name, index, float(a[index]), float(b[index]))
    return worst


def compare_tensors(
    group: str, case: str, sides: Mapping[str, Tensors], bound: float | None, reason: str
) -> Check:
    """The check that the two sides, by name, agree within `bound`."""
    (left, ours), (right, theirs) = sides.items()
    worst = difference(ours, theirs)
    return Check(group, case, left, right, worst.error, bound, reason, worst)


def verdict(checks: Sequence[Check]) -> str:
    """How many checks keep their bounds, in words."""
    failed = sum(not check.passed for check in checks)
    if failed:
        return f"{failed} of {len(checks)} checks exceed their bounds"
    return f"all {len(checks)} checks are within their bounds"


def margin(check: Check) -> float:
    """How near a check is to its bound, above 1 beyond it."""
    if check.bound is None:
        return 0.0
    if check.at_least:
        return check.bound / max(check.value, 1e-300)
    return check.value / check.bound if check.bound else float(check.value > 0) * 1e300


def _largest(a: np.ndarray) -> float:
    finite = np.abs(np.asarray(a, np.float64))
    return float(np.max(finite[np.isfinite(finite)], initial=0.0))


def _size(side: Tensors, name: str) -> float:
    return float(side[name].size) if name in side else math.nan


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
