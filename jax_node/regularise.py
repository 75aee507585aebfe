"""Penalties on the dynamics, integrated beside the state; torch_node/regularise.py is the twin.

For each example, with `n` numbers in its state (RNODE, Finlay et al. 2020, arXiv:2002.02798):

    kinetic'  = |f(t, y)|^2 / n          small if the state is moved little, at an even speed
    jacobian' = |eps^T df/dy|^2 / n      with random eps of +-1, |df/dy|_F^2 / n on average

The same solver takes the same steps for them as for `y`: the norm of the step size control is that
of `y` alone, forwards and (adjoint) backwards. So weights of zero and above zero take the same
steps at the same parameters, and the integrals are as exact as the steps for `y` make them; their
own error is not controlled.

The field of the MNIST models ends in a normalisation, whatever `y` is: its `|f|^2 / n` is about the
mean of that layer's scale^2 + bias^2, and that is all that the kinetic penalty acts upon there.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jax_node.adjoint import Backward, Field
from jax_node.solve import Solution, rms

Image = Float[Array, "height width batch channels"]


class Penalised(NamedTuple):
    """The state, and the integrals so far; no `jacobian` without a probe."""

    y: Image
    kinetic: Float[Array, " batch"]
    jacobian: Float[Array, " batch"] | None


class Regulariser(NamedTuple):
    """Weights of the penalties in the loss, and the seed of the probes."""

    kinetic: float
    jacobian: float
    seed: int

    def options(self, steps: Int[Array, ""]) -> dict[str, Any]:
        """Keyword arguments of `models.ODENet` in the training step after `steps` others."""
        key = jax.random.fold_in(jax.random.key(self.seed), steps)
        draw = lambda y: jax.random.rademacher(key, y.shape, y.dtype)
        return {"penalise": True, "draw_probe": draw if self.jacobian else None}

    def cost(self, penalties: dict[str, Float[Array, ""]]) -> Float[Array, ""] | float:
        """Weighted sum of the penalties."""
        return sum(getattr(self, name) * value for name, value in penalties.items())


def regulariser(kinetic: float, jacobian: float, seed: int) -> Regulariser | None:
    """None if both weights are 0: the training step is then the one without penalties."""
    return Regulariser(kinetic, jacobian, seed) if kinetic or jacobian else None


def solve_penalised(
    solver: Callable[..., Solution],
    field: Field,
    y0: Image,
    ts: Float[Array, " times"],
    args: PyTree,
    *,
    probe: Image | None = None,
    backward: Backward | None = None,
) -> tuple[Solution, dict[str, Float[Array, ""]]]:
    """The solution that `solver` (see `solve.solve`) finds, and the batch means of the penalties.

    `kinetic` always, `jacobian` with a `probe`, which is not differentiated. An evaluation of the
    field then costs a vector-Jacobian product too, and still counts as one.
    """

    def penalised(t, state, args):
        f = lambda y: field(t, y, args)
        if probe is None:
            dy, jacobian = f(state.y), None
        else:
            dy, pull = jax.vjp(f, state.y)
            jacobian = _mean_square(*pull(probe))
        return Penalised(dy, _mean_square(dy), jacobian)

    zero = jnp.zeros(y0.shape[2], y0.dtype)
    start = Penalised(y0, zero, None if probe is None else zero)
    solution = solver(
        penalised, start, ts, args, backward=backward, norm=lambda state: rms(state.y)
    )
    found = {"kinetic": solution.ys.kinetic, "jacobian": solution.ys.jacobian}
    # Along the way, whichever direction it has: a loss must not be paid for moving.
    way = jnp.sign(jnp.asarray(ts)[-1] - jnp.asarray(ts)[0]).astype(y0.dtype)
    means = {name: way * values[-1].mean() for name, values in found.items() if values is not None}
    return solution._replace(ys=solution.ys.y), means


def _mean_square(x: Image) -> Float[Array, " batch"]:
    return jnp.mean(x**2, (0, 1, 3))
