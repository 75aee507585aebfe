"""Discretise-then-optimise through the accepted steps of an explicit Runge-Kutta solve.

Each step is computed again with its stages, differentiated, and its stages forgotten (see
`kept_steps.py`). That is one evaluation of the vector field and one vector-Jacobian product per
stage, the least that is possible without keeping the inside of the vector field. (diffrax's own
checkpointing evaluates every stage twice: once for its loop over steps, once for its loop over
stages.)
"""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from jax_node.adjoint import Field
from jax_node.kept_steps import Scalar, add, before, go_back


def supports(solver: diffrax.AbstractSolver) -> bool:
    """Whether `solver` is an explicit Runge-Kutta method."""
    return isinstance(solver, diffrax.AbstractERK | diffrax.Euler)


def pull_back(
    field: Field,
    solver: diffrax.AbstractSolver,
    steps: tuple[Float[Array, " steps"], PyTree],
    n_steps: Int[Array, ""],
    y0: PyTree,
    ts: Float[Array, " times"],
    args: tuple[PyTree, PyTree],
    jump_ts: Float[Array, " jumps"] | None,
    observed: PyTree,
) -> tuple[tuple[PyTree, Float[Array, " times"], PyTree], Int[Array, ""]]:
    """The gradients with respect to `y0`, `ts` and the parameters, and the NFE they took.

    `steps` are the times and states that `Method.integrate` kept, of which `n_steps` were made;
    `args` the parameters and what else the field takes; `observed` the cotangents of the states at
    `ts`. Memory is one state per step, for `max_steps` steps.
    """
    step_ts, step_ys = steps
    params, given = args
    dense = len(ts) > 2  # are there observations inside steps?

    def pull_step(n, start, end, a, memory, observe):
        del a  # `observe` has it
        (y1, ks), pull = jax.vjp(
            lambda t0, t1, y0, p: step(field, solver, t0, t1, y0, (p, given), last_stage=dense),
            start,
            end,
            before(n, y0, step_ys),
            params,
        )
        (*inside, a, dks), seen = observe(before(n, y0, step_ys), y1, ks)
        *through, dp = pull((a, dks))
        return (*add(inside, through), dp), seen, memory

    gradient = go_back(
        pull_step,
        functools.partial(interpolate, solver),
        step_ts,
        n_steps,
        ts,
        params,
        jump_ts,
        observed,
    )
    return gradient, n_steps * stages(solver, last_stage=dense)


def _tableau(solver: diffrax.AbstractSolver) -> tuple[np.ndarray, tuple, np.ndarray, bool]:
    """Nodes and rows of the stages after the first, weights, and first-same-as-last."""
    if isinstance(solver, diffrax.Euler):
        return np.zeros(0), (), np.ones(1), False
    assert isinstance(solver, diffrax.AbstractERK)
    tableau = solver.tableau
    assert isinstance(tableau, diffrax.ButcherTableau)
    return tableau.c, tableau.a_lower, tableau.b_sol, tableau.fsal


def stages(solver: diffrax.AbstractSolver, *, last_stage: bool = True) -> int:
    """Evaluations of the vector field in one step of `step`."""
    nodes, _, _, fsal = _tableau(solver)
    return len(nodes) + 1 - (fsal and not last_stage)


def step(
    field: Field,
    solver: diffrax.AbstractSolver,
    t0: Scalar,
    t1: Scalar,
    y0: PyTree,
    args: PyTree,
    *,
    last_stage: bool,
) -> tuple[PyTree, PyTree]:
    """One step: `k_i = h f(t0 + c_i h, y0 + sum_j a_ij k_j)`, `y1 = y0 + sum_i b_i k_i`.

    Hairer, Norsett and Wanner, *Solving ODEs I*, equation II.1.8. Without `last_stage` the last
    stage of a first-same-as-last method is left out: it enters interpolation only.

    Returns:
        `y1`, and the `k_i` stacked along a new leading axis.
    """
    nodes, rows, weights, _ = _tableau(solver)
    h = t1 - t0
    scaled = lambda t, y: jax.tree.map(lambda f: h * f, field(t, y, args))
    ks = [scaled(t0, y0)]
    for node, row in list(zip(nodes, rows, strict=True))[
        : stages(solver, last_stage=last_stage) - 1
    ]:
        # t0 + h may be a rounding beyond t1, where the field need not be defined.
        t = t1 if node == 1 else t0 + float(node) * h
        ks.append(scaled(t, _combine(y0, row, ks)))
    return _combine(y0, weights, ks), jax.tree.map(lambda *leaves: jnp.stack(leaves), *ks)


def _combine(y0: PyTree, coefficients: np.ndarray, ks: list[PyTree]) -> PyTree:
    terms = [(float(c), k) for c, k in zip(coefficients, ks, strict=False) if c != 0]
    return jax.tree.map(
        lambda y, *k: y + sum(c * leaf for (c, _), leaf in zip(terms, k, strict=True)),
        y0,
        *(k for _, k in terms),
    )


def interpolate(
    solver: diffrax.AbstractSolver, t0: Scalar, t1: Scalar, y0: PyTree, y1: PyTree, ks: PyTree
) -> diffrax.AbstractLocalInterpolation:
    """The solver's own polynomial through one step."""
    stages = {} if isinstance(solver, diffrax.Euler) else {"k": ks}
    return solver.interpolation_cls(t0=t0, t1=t1, y0=y0, y1=y1, **stages)
