"""JAX against PyTorch: do the two compute the same thing, how close, and if not, where they part.

`python -m crosscheck` compares this repository's two implementations; `compare` compares a vector
field of your own, and `testing.assert_same` does so inside pytest.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crosscheck.own_field import Comparison, compare

__all__ = ["Comparison", "compare"]


def __getattr__(name: str) -> Any:
    # Both frameworks take seconds to import: `--help` shall not wait for them.
    if name not in __all__:
        raise AttributeError(f"module 'crosscheck' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("crosscheck.own_field"), name)
