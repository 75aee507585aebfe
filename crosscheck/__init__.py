"""JAX against PyTorch: do the two compute the same thing, how close, and if not, where they part.

`python -m crosscheck` compares this repository's two implementations; `compare` compares a vector
field of your own, and `testing.assert_same` does so inside pytest.
"""

from crosscheck.compare import Comparison, compare

__all__ = ["Comparison", "compare"]
