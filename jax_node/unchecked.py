"""`diffrax.diffeqsolve` without its checks at run time.

diffrax checks the sign of the first step and the order of the times by host callbacks, and JAX
keeps no program with a callback in its persistent cache. `solve.py` has made sure of both, or folds
them into `Solution.ok`. Equinox can be told so by an environment variable only, which would be for
all of a user's program: so here is the same function, looking up the checks elsewhere. Nor is it
compiled by itself: `solve.py` compiles the whole.
"""

import inspect
import types

import diffrax
import equinox.internal

_original = inspect.unwrap(diffrax.diffeqsolve)
_internal = types.SimpleNamespace(**vars(equinox.internal))
_internal.error_if = lambda value, *_, **__: value

diffeqsolve = types.FunctionType(
    _original.__code__,
    {**_original.__globals__, "eqxi": _internal},
    _original.__name__,
    _original.__defaults__,
    _original.__closure__,
)
diffeqsolve.__kwdefaults__ = _original.__kwdefaults__
