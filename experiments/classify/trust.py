"""When the adjoint's gradient is not to be trusted, by what the adjoint says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Of an epoch's median `reconstruction`. How it was chosen: docs/implicit_adams.md.
LIMIT = 0.5


def warning(rows: Sequence[dict[str, Any]]) -> str | None:
    """A sentence if the last of the epochs in `rows` is the first to pass `LIMIT`."""
    over = [row.get("reconstruction") is not None and row["reconstruction"] > LIMIT for row in rows]
    if not over or not over[-1] or any(over[:-1]):
        return None
    return (
        f"the adjoint's solve backwards ends {rows[-1]['reconstruction']:.2g} times the size of "
        "y(0) away from y(0): its gradient is not that of this loss; take smaller steps, smaller "
        "rtol and atol, or --adjoint direct"
    )
