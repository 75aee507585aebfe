"""Neural ODE models in Flax, solved with diffrax."""

import os

# diffrax checks two of its arguments by host callbacks, and JAX keeps no program with callbacks in
# its persistent cache. As NaN, what those checks find ends in `Solution.ok` instead.
os.environ.setdefault("EQX_ON_ERROR", "nan")
