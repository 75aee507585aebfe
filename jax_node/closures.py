"""A field as a program: what it closes over becomes an argument, what it does can be compared.

A gradient by a rule of our own can see arguments only, and a compiled solve must not remember what
a field once closed over. So the field is traced at every call, to a program with the values that it
closes over as arguments; equal programs from one place compile once. What a program does is its
text, and what the text does not show: values inside of an inner `jax.jit`, and the functions of
callbacks and of derivatives by own rules.
"""

import dataclasses
import functools
import re
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun
from jax.extend.linear_util import WrappedFun
from jaxtyping import Array, PyTree


class Program:
    """A field as it was traced, called as `program(values, t, y, args)`.

    It equals another with the same `key` (see `origin`) that does the same.
    """

    def __init__(self, key: Any, closed: ClosedJaxpr, structure: PyTree):
        self._jaxpr = closed.jaxpr
        self._structure = structure
        text = re.sub(r" at 0x[0-9a-f]+", "", str(closed.jaxpr))
        hidden = tuple(_print(value) for value in _not_in_text(closed.jaxpr))
        try:
            hash(key)
        except TypeError:  # such as a module with arrays in it
            key = object()
        self._key = key, structure, text, hidden

    def __call__(self, values: list[Array], *arguments: PyTree) -> PyTree:
        """What the field returns, if these are the values that it closes over."""
        run = jaxpr_as_fun(ClosedJaxpr(self._jaxpr, values))
        out = map(jnp.asarray, run(*jax.tree.leaves(arguments)))  # what is known may be no array
        return jax.tree.unflatten(self._structure, out)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def origin(function: Callable) -> Any:
    """What a function shares with one written at the same place, around the same functions.

    A lambda in a loop is a new function each time, and compiles once if it does the same.
    """
    code = getattr(function, "__code__", None)
    cells = getattr(function, "__closure__", None) or ()
    try:
        inside = [cell.cell_contents for cell in cells]
    except ValueError:  # of a name that is not bound yet
        return function
    return function if code is None else (code, *(value for value in inside if callable(value)))


def open_field(
    field: Callable[..., PyTree], key: Any, *arguments: PyTree
) -> tuple[Program, list[Array], PyTree]:
    """The program of `field`, the values it closes over, and what it returns, as shapes."""
    closed, out = jax.make_jaxpr(field, return_shape=True)(*arguments)
    return Program(key, closed, jax.tree.structure(out)), list(map(jnp.asarray, closed.consts)), out


def _not_in_text(value: Any) -> Iterator[Any]:
    """What the text of a program leaves out, in its order."""
    if isinstance(value, ClosedJaxpr):
        yield from value.consts
        value = value.jaxpr
    if isinstance(value, Jaxpr):
        for equation in value.eqns:
            for part in equation.params.values():
                yield from _not_in_text(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _not_in_text(part)
    elif callable(value) or isinstance(value, WrappedFun):
        yield value


class _Same:
    """Equal to itself only, and kept, so that nothing else gets its place in memory."""

    def __init__(self, value: Any):
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._value is other._value

    def __hash__(self) -> int:
        return id(self._value)


def _print(value: Any, above: tuple[int, ...] = (), own: bool = False) -> Any:
    """What tells values apart: of functions their code and what they close over, of arrays that may
    change their numbers, of other objects which one it is; `own` inside of JAX's own functions,
    whose memory says nothing.
    """
    if id(value) in above:  # a function that closes over itself
        return above.index(id(value))
    inside = functools.partial(_print, above=(*above, id(value)), own=own)
    if isinstance(value, str | bytes | int | float | complex | np.generic | None):
        return type(value), repr(value)
    if isinstance(value, tuple):
        return tuple(map(inside, value))
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, types.FunctionType):
        inside = functools.partial(inside, own=_of_jax(value))
        defaults = value.__defaults__, *(value.__kwdefaults__ or {}).items()
        cells = tuple(map(_content, value.__closure__ or ()))
        return value.__code__, inside(defaults), inside(cells)
    if isinstance(value, types.MethodType):
        return inside((value.__func__, value.__self__))
    if isinstance(value, functools.partial):
        return inside((value.func, value.args, tuple(value.keywords.items())))
    if isinstance(value, WrappedFun):
        return inside((value.f, value.transforms, value.params))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value), *(inside(getattr(value, f.name)) for f in dataclasses.fields(value))
    if isinstance(value, jax.tree_util.PyTreeDef):
        return value
    if _of_jax(type(value)) and "val" in getattr(type(value), "__slots__", ()):
        return inside(value.val)  # an argument of `nondiff_argnums`
    told_by_text = _of_jax(type(value)) or (own and type(value) in (list, dict, object))
    if told_by_text and not callable(value) and not isinstance(value, jax.Array):
        return None
    return _Same(value)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # of a name that is not bound yet
        return None


def _of_jax(value: Any) -> bool:
    return str(value.__module__).partition(".")[0] in ("jax", "jaxlib")
