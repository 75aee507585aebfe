"""What a vector field is like along a trajectory: how steep it is, and how wrong a gradient."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree


def lipschitz(
    f: Callable[[PyTree], PyTree], y: PyTree, key: PRNGKeyArray, *, iterations: int = 15
) -> Float[Array, ""]:
    """The largest singular value of `df/dy` at `y`, the field's local Lipschitz constant.

    Power iteration on `J^T J`, one jvp and one vjp an iteration (Golub and Van Loan, *Matrix
    Computations*, 7.3.1); the estimate is a lower bound that grows with the iterations.
    """
    leaves, structure = jax.tree.flatten(y)
    keys = jax.random.split(key, len(leaves))
    start = jax.tree.unflatten(
        structure,
        [jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)],
    )
    norm = lambda tree: jnp.sqrt(sum(jnp.sum(a**2) for a in jax.tree.leaves(tree)))

    def body(_, carry):
        v, _ = carry
        v = jax.tree.map(lambda a: a / norm(v), v)
        _, jv = jax.jvp(f, (y,), (v,))
        _, pull = jax.vjp(f, y)
        return pull(jv)[0], norm(jv)

    _, sigma = jax.lax.fori_loop(0, iterations, body, (start, jnp.zeros((), leaves[0].dtype)))
    return sigma


def gradient_error(
    gradient: PyTree, reference: PyTree
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Relative 2-norm of the error over all parameters, and the cosine of the angle between."""
    dot = lambda a, b: sum(
        jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
    difference = jax.tree.map(jnp.subtract, gradient, reference)
    size = jnp.sqrt(dot(reference, reference))
    error = jnp.sqrt(dot(difference, difference)) / size
    return error, dot(gradient, reference) / (size * jnp.sqrt(dot(gradient, gradient)))
