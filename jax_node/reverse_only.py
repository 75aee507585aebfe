"""An identity that says in one sentence that what follows has no forward mode.

JAX's own error is about `custom_vjp`, of which a user of `solve` knows nothing. This one comes at
the same moment, when a tangent is about to be computed; a tangent that is transposed, to become a
gradient, passes. (A primitive and not `jax.custom_jvp`, whose rule would be run under `vmap` too.)
"""

from jax import tree
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, PyTree

_value, _tangent = Primitive("reverse_only"), Primitive("reverse_only_tangent")
_constant = Primitive("differentiated_once")


def reverse_only(values: PyTree[Array], message: str, once: str | None = None) -> PyTree[Array]:
    """`values`; `TypeError(message)` if tangents are pushed forwards through them.

    With `once`, `TypeError(once)` if a gradient by them is differentiated again.
    """
    return tree.map(lambda value: _value.bind(value, message=message, once=once), values)


def differentiated_once(values: PyTree[Array], message: str) -> PyTree[Array]:
    """`values`; `TypeError(message)` if a derivative by them is differentiated by them again."""
    return tree.map(lambda value: _value.bind(value, message=None, once=message), values)


def _refuse(*_, message):
    raise TypeError(message)


def _jvp(primals, tangents, *, message, once):
    (primal,), (tangent,) = primals, tangents
    if message is not None and not isinstance(tangent, ad.Zero):
        tangent = _tangent.bind(tangent, message=message)
    # An outer differentiation finds what is left here.
    return primal if once is None else _constant.bind(primal, message=once), tangent


def _identity(primitive):
    identity = lambda value, **_: value
    primitive.def_impl(identity)
    primitive.def_abstract_eval(identity)
    mlir.register_lowering(primitive, lambda _, value, **__: [value])
    batching.primitive_batchers[primitive] = lambda values, axes, **params: (
        primitive.bind(*values, **params),
        axes[0],
    )


_identity(_value)
ad.primitive_jvps[_value] = _jvp
_identity(_constant)
ad.primitive_jvps[_constant] = lambda _, __, *, message: _refuse(message=message)
_tangent.def_impl(_refuse)
_tangent.def_abstract_eval(lambda tangent, *, message: tangent)
mlir.register_lowering(_tangent, _refuse)
ad.deflinear2(_tangent, lambda cotangent, _, *, message: [cotangent])
batching.primitive_batchers[_tangent] = _refuse
