"""What `solve` refuses, each in one sentence, and what it makes of what it takes.

Values that are known are refused with `ValueError`; what only a trace knows ends in `Solution.ok`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jax_node.failures import Cause
from jax_node.integrate import FIXED, Controls

DTYPES = ("float32", "float64")
RESOLVED = 1e-3  # the part of an interval of `ts` that rounding may move


def known(*values: Any) -> bool:
    """Whether no value is known to a trace only."""
    return not any(isinstance(value, jax.core.Tracer) for value in values)


def choice(what: str, name: Any, names: Sequence[str]) -> None:
    """Refuse a name that is not among `names`."""
    if name not in names:
        raise ValueError(f"unknown `{what}` {name!r} in JAX: choose one of {', '.join(names)}")


def shape(name: str, array: Array | np.ndarray, expected: tuple[int, ...]) -> None:
    """Refuse an array that would only fit by being spread."""
    if array.shape != expected:
        raise ValueError(f"`{name}` has shape {list(array.shape)}: give {list(expected)}")


def max_steps(value: Any) -> int:
    """Refuse what is no whole number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"`max_steps` is {value!r}: give a whole number, at least 1")
    return int(value)


def state(y0: PyTree) -> PyTree[Array]:
    """`y0` as arrays of floats; whole numbers and Python's become floats of the default dtype."""

    def leaf(path: tuple, value: Any) -> Array:
        try:
            array = jnp.asarray(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(
                f"{_name('y0', path)} is {type(value).__name__}: the state is made of numbers"
            ) from None
        if jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == bool:
            return array.astype(float)
        if array.dtype not in DTYPES:
            raise ValueError(
                f"{_name('y0', path)} is {array.dtype}, in which no error could be controlled: "
                "give float32 or float64 (complex numbers as their real and imaginary parts)"
            )
        return jax.lax.convert_element_type(array, array.dtype)  # a Python number is not weak here

    if not jax.tree.leaves(y0):
        raise ValueError("`y0` has no numbers in it: give the state at `ts[0]`")
    return jax.tree.map_with_path(leaf, y0)


def argument(leaf: Any) -> Any:
    """Python's floats and numpy's arrays as arrays; whole numbers and functions as they are."""
    return jnp.asarray(leaf) if isinstance(leaf, float | complex | np.ndarray) else leaf


def times(ts: Any) -> Float[Array, " times"]:
    """`ts` as a vector of floats, refused if known not to be strictly monotonic and finite."""
    expected = "give at least two times as one vector of float32 or float64"
    try:
        array = jnp.asarray(ts)
    except (TypeError, ValueError, OverflowError):
        found = getattr(ts, "dtype", type(ts).__name__)
        raise ValueError(f"`ts` is {found}: {expected}") from None
    if jnp.issubdtype(array.dtype, jnp.integer):
        array = array.astype(float)
    if array.dtype not in DTYPES or array.ndim != 1 or len(array) < 2:
        raise ValueError(f"`ts` is {array.dtype} of shape {array.shape}: {expected}")
    if known(array):
        values = np.asarray(array, float)
        if not np.isfinite(values).all():
            raise ValueError(f"`ts` is not finite at index {np.argmin(np.isfinite(values))}")
        gaps = np.diff(values)
        wrong = gaps * np.sign(gaps[0]) <= 0
        if wrong.any() or gaps[0] == 0:
            i = int(np.argmax(wrong)) if wrong.any() else 0
            raise ValueError(
                f"`ts` must be strictly increasing or decreasing, and in {array.dtype} its times "
                f"{i} and {i + 1} are {values[i]:.9g} and {values[i + 1]:.9g}"
                + (": count time from another origin, or use float64" if gaps[i] == 0 else "")
            )
        exact = np.diff(np.asarray(ts, float))
        moved = np.abs(gaps - exact) > RESOLVED * np.abs(exact)
        if moved.any():
            i = int(np.argmax(moved))
            raise ValueError(
                f"`ts` in {array.dtype} has its times {i} and {i + 1} {gaps[i]:.6g} apart, which "
                f"are {exact[i]:.6g} apart: count time from another origin, or use float64"
            )
    return array


def options(
    solver: str,
    *,
    step_size: Any,
    rtol: Any = 1e-3,
    atol: Any = 1e-3,
    dtmax: Any = None,
    jump_ts: Any = None,
) -> None:
    """Refuse options that the solver lacks, misses, or cannot use; JAX is not used."""
    if solver in FIXED:
        if step_size is None:
            raise ValueError(f"{solver} takes fixed steps: give their size as `step_size`")
        for name, value in (("dtmax", dtmax), ("jump_ts", jump_ts)):
            if value is not None:
                raise ValueError(
                    f"{solver} takes fixed steps of `step_size`: leave out `{name}`, or choose an "
                    "adaptive solver"
                )
    elif step_size is not None:
        raise ValueError(f"{solver} chooses its own steps: leave out `step_size`")
    for name, value in (("rtol", rtol), ("atol", atol)):
        _one_number(name, value)
        if known(value) and not (np.isfinite(value) and value >= 0):
            raise ValueError(f"`{name}` is {value}: give a finite number, at least 0")
    if known(rtol, atol) and rtol == 0 and atol == 0:
        raise ValueError("`rtol` and `atol` are both 0, and no step is exact: raise one of them")
    for name, value in (("step_size", step_size), ("dtmax", dtmax)):
        if value is None:
            continue
        _one_number(name, value)
        if known(value) and not (np.isfinite(value) and value > 0):
            raise ValueError(f"`{name}` is {value}: give a finite number above 0")
    if jump_ts is not None and known(*jax.tree.leaves(jump_ts)):
        try:
            finite = np.isfinite(np.asarray(jump_ts, float)).all()
        except (TypeError, ValueError):
            finite = False
        if not finite:
            raise ValueError("`jump_ts` is not finite: give the times at which the field jumps")


def _one_number(name: str, value: Any) -> None:
    number = isinstance(value, int | float | np.number | np.ndarray | jax.Array)
    if not number or np.ndim(value):
        raise ValueError(f"`{name}` is {value!r}: give one number")


def controls(
    dtype: Any, *, rtol: Any, atol: Any, step_size: Any, dtmax: Any, jump_ts: Any
) -> Controls:
    """The numbers that control the steps, in `dtype`; nothing is differentiated by them."""
    jumps = None if jump_ts is None else jnp.ravel(jnp.asarray(jump_ts))
    jumps = None if jumps is None or not jumps.size else jumps
    given = Controls(rtol, atol, step_size, dtmax, jumps, [])
    return jax.lax.stop_gradient(jax.tree.map(lambda value: jnp.asarray(value, dtype), given))


def widest(*trees: PyTree) -> Any:
    """The dtype of most bytes among the leaves."""
    return max((leaf.dtype for leaf in jax.tree.leaves(trees)), key=lambda dtype: dtype.itemsize)


def beside_the_state(dtype: Any, params: PyTree) -> None:
    """Refuse parameters whose gradients cannot be solved for beside a state in `dtype`."""
    if any(map(jnp.iscomplexobj, jax.tree.leaves(params))):
        raise ValueError(
            "`adjoint='adjoint'` solves for gradients beside a real state, and some of `args` is "
            "complex: give its real and imaginary parts, or use `adjoint='direct'`"
        )
    if (wide := widest(jnp.zeros((), dtype), params)) != dtype:
        raise ValueError(
            f"the field closes over {wide} values while `y0`, `ts` and `args` are {dtype}, and "
            "`adjoint='adjoint'` solves for their gradients beside the state: give them in `args`"
        )


def output(y0: PyTree, out: PyTree) -> None:
    """Refuse a field whose value `out` is not shaped as the state."""
    of_state, found = (str(jax.tree.structure(tree)) for tree in (y0, out))
    if of_state != found:
        raise ValueError(
            f"the field returns {found} for a state {of_state}: return dy/dt with the structure of "
            "`y0`"
        )
    for (path, y), dy in zip(jax.tree.leaves_with_path(y0), jax.tree.leaves(out), strict=True):
        if y.shape != dy.shape or jnp.issubdtype(dy.dtype, jnp.complexfloating):
            raise ValueError(
                f"the field returns {dy.dtype}{list(dy.shape)} for {_name('y0', path)}, which is "
                f"{y.dtype}{list(y.shape)}: return dy/dt with the shape of the state"
            )


def found_at_run_time(
    solver: str, ts: Float[Array, " times"], controls: Controls, cause: Array
) -> Array:
    """`cause`, or that of what no trace could refuse.

    Adams methods take fixed steps for equal, and their coefficients grow with the order: rounding
    may move the ends of steps by little.
    """
    gaps = jnp.diff(ts)
    ordered = jnp.all(gaps * jnp.sign(gaps[0]) > 0) & jnp.all(jnp.isfinite(ts))
    usable = (controls.rtol >= 0) & (controls.atol >= 0) & (controls.rtol + controls.atol > 0)
    usable &= jnp.isfinite(controls.rtol + controls.atol)
    spacing = jnp.finfo(ts.dtype).eps * jnp.max(jnp.abs(ts))
    least = 0.5 / RESOLVED if "adams" in solver else 4
    for size, spacings in ((controls.step_size, least), (controls.dtmax, 4)):
        if size is not None:
            usable &= jnp.isfinite(size) & (size > spacings * spacing)
    if controls.jump_ts is not None:
        usable &= jnp.all(jnp.isfinite(controls.jump_ts))
    cause = jnp.where(usable, cause, int(Cause.OPTIONS))
    return jnp.where(ordered, cause, int(Cause.TIMES)).astype(jnp.int32)


def _name(what: str, path: tuple) -> str:
    return f"`{what}{jax.tree_util.keystr(path)}`"
