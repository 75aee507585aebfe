"""For your own test suite: one line that fails with tensor, index and both values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from crosscheck.own_field import compare


def assert_same(
    field_jax: Callable[[Any, Any, Any], Any],
    field_torch: Callable[[Any, Any, Any], Any] | nn.Module,
    params: Mapping[str, Any],
    z0: Any,
    ts: Any,
    **options: Any,
) -> None:
    """Raise AssertionError unless `compare` with these arguments finds every bound kept."""
    __tracebackhide__ = True  # pytest then points at the caller's line
    comparison = compare(field_jax, field_torch, params, z0, ts, **options)
    if not comparison.passed:
        raise AssertionError(str(comparison))
