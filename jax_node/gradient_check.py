"""How far the gradient that training follows is from the ones it might follow.

There are two: that of the loss which was computed (by the solver's steps, whatever their error),
and that of the loss of the ODE itself. A gradient through the steps is the first. The adjoint
solves another ODE backwards, and is near both only where the steps are fine.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Integer, PRNGKeyArray, PyTree

from jax_node.adjoint import Backward
from jax_node.solve import solve

TIGHT = 1e-5  # rtol = atol of the solve that stands for the ODE itself


def gradient_check(
    graph: nnx.GraphDef,
    options: dict[str, Any],
    weights: nnx.State,
    running: nnx.State,
    images: Float[Array, "batch height width channels"],
    labels: Integer[Array, " batch"],
) -> dict[str, Float[Array, ""]]:
    """Compare the gradient of an ODE-Net by `solve`'s `options` with the two others, on one batch.

    Returns:
        `loss` and `gradient_norm` of the method; `cosine` and `size` (a quotient of norms) of its
        gradient against that of the computed loss, `cosine_ode` and `size_ode` against that of the
        ODE; `reconstruction` (see `adjoint.Backward`); `state_error` of y(t1), relative to the way
        from y(t0); `lipschitz`, the larger of the field's local Lipschitz constants at both ends of
        the trajectory. What a failed solve decides is NaN.
    """
    by_steps = "checkpoint" if "adams" in options["solver"] else "direct"
    tight = {"solver": "dopri5", "rtol": TIGHT, "atol": TIGHT, "max_steps": 256}

    def gradient(**options: Any) -> tuple[Any, PyTree, Backward]:
        def loss_of(weights, backward):
            network = nnx.merge(graph, weights, running, copy=True)
            network.solver = functools.partial(solve, **options)
            output = network(images, backward)
            losses = optax.softmax_cross_entropy_with_integer_labels(output.logits, labels)
            return losses.mean(), output.solution

        found, (slope, backward) = jax.value_and_grad(loss_of, (0, 1), has_aux=True)(
            weights, Backward.zeros()
        )
        return found, slope, backward

    (loss, solution), own, backward = gradient(**options)
    _, computed, _ = gradient(**options | {"adjoint": by_steps})
    (_, exact), ode, _ = gradient(**tight, adjoint="direct")
    network = nnx.merge(graph, weights, running)
    steepness: Callable = lambda t, y: lipschitz_constant(
        functools.partial(network.field, t), y, jax.random.key(0)
    )
    ends = jnp.array([0, network.t1], loss.dtype)
    lipschitz = jax.lax.map(lambda at: steepness(*at), (ends, exact.ys))
    norm = optax.tree.norm
    way = jnp.linalg.norm(exact.ys[-1] - exact.ys[0])
    return {
        "loss": loss,
        "gradient_norm": norm(own),
        "cosine": gradient_error(own, computed)[1],
        "size": norm(own) / norm(computed),
        "cosine_ode": gradient_error(own, ode)[1],
        "size_ode": norm(own) / norm(ode),
        "reconstruction": backward.reconstruction,
        "state_error": jnp.linalg.norm(solution.ys[-1] - exact.ys[-1]) / way,
        "lipschitz": jnp.max(lipschitz),
    }


def lipschitz_constant(
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
        size = norm(v)  # 0 where the Jacobian is
        v = jax.tree.map(lambda a: a / jnp.where(size == 0, 1, size), v)
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
