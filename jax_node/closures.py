"""A field as a program: what it closes over becomes an argument, what it does can be compared.

A gradient by a rule of our own can see arguments only, and a compiled solve must not remember what
a field once closed over. So the field is traced at every call, to a program with the values that it
closes over as arguments; equal programs from one place compile once.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jaxtyping import Array, PyTree


class Program:
    """A field as it was traced, called as `program(values, t, y, args)`.

    It equals another with the same `key` (see `origin`) that does the same.
    """

    def __init__(self, key: Any, closed: ClosedJaxpr, structure: PyTree):
        self._jaxpr = closed.jaxpr
        self._structure = structure
        text = re.sub(r" at 0x[0-9a-f]+", "", str(closed.jaxpr))  # of functions with own rules
        try:
            hash(key)
        except TypeError:  # such as a module with arrays in it
            key = object()
        self._key = key, structure, text

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
