"""Solve an initial value problem by names: solver, gradient method, tolerances in; NFE out."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jax_node import runge_kutta, sharding
from jax_node.adams import Adams, AdamsController, ExplicitAdams, ImplicitAdams, statistics
from jax_node.adjoint import Augmented, Backward, Field, Forward, solve_by_adjoint
from jax_node.rk4 import RK4
from jax_node.step_size import FixedStep, first_step

_ADAPTIVE: dict[str, Callable[..., diffrax.AbstractSolver]] = {
    "dopri5": diffrax.Dopri5,
    "dopri8": diffrax.Dopri8,
    "tsit5": diffrax.Tsit5,
    "bosh3": diffrax.Bosh3,
    "adams": Adams,
}
_FIXED: dict[str, Callable[..., diffrax.AbstractSolver]] = {
    "euler": diffrax.Euler,
    "midpoint": diffrax.Midpoint,
    "rk4": RK4,
    # These two as torchdiffeq has them.
    "explicit_adams": functools.partial(ExplicitAdams, max_order=12, assume_equal_steps=True),
    "implicit_adams": functools.partial(ImplicitAdams, max_order=12, assume_equal_steps=True),
}
FIXED_STEP = tuple(_FIXED)
SOLVERS = (*_ADAPTIVE, *_FIXED)
ADJOINTS = ("checkpoint", "direct", "adjoint")
Norm = Callable[[PyTree], Float[Array, ""]]


class SolveError(RuntimeError):
    """A solve that did not reach its last time; the message says where and what to try."""


class Solution(NamedTuple):
    """A trajectory and what it cost.

    `ys` has the state at every observation time as its leading axis; `nfe` counts evaluations of
    the vector field, `accepted` and `rejected` steps, `nonconverged` steps of `implicit_adams`
    whose corrector did not converge; `t` is the time reached, `ok` whether that is the last time,
    with a finite state.
    """

    ys: PyTree
    nfe: Int[Array, ""]
    accepted: Int[Array, ""]
    rejected: Int[Array, ""]
    nonconverged: Int[Array, ""]
    t: Float[Array, ""]
    ok: Bool[Array, ""]

    def check(self) -> "Solution":
        """Return the solution, or raise `SolveError` if it failed (outside `jit` only)."""
        if not self.ok:
            steps = int(self.accepted) + int(self.rejected)
            raise SolveError(failure(float(self.t), int(self.nfe), steps, int(self.rejected)))
        return self


def failure(t: float, nfe: int, steps: int, rejected: int) -> str:
    """One sentence about a failed solve."""
    return (
        f"the solve stopped at t = {t:.4g} after {steps} steps ({rejected} rejected, mean step "
        f"size {t / max(1, steps - rejected):.2g}, NFE {nfe}): the vector field is too stiff, not "
        "finite, or the tolerance too tight; raise --max-steps, rtol and atol, or lower the "
        "learning rate"
    )


def check(solver: str, adjoint: str, step_size: float | Float[Array, ""] | None) -> None:
    """Refuse, in one sentence, names this framework lacks and a missing or idle step size.

    Raises:
        ValueError: which names there are, or that the solver needs (or ignores) `--step-size`.
    """
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r} in JAX: choose one of {', '.join(SOLVERS)}")
    if adjoint not in ADJOINTS:
        raise ValueError(f"unknown adjoint {adjoint!r} in JAX: choose one of {', '.join(ADJOINTS)}")
    if solver in FIXED_STEP and step_size is None:
        raise ValueError(f"{solver} takes fixed steps: give their size with --step-size")
    if solver not in FIXED_STEP and step_size is not None:
        raise ValueError(f"{solver} chooses its own steps: leave out --step-size")


def splits_batch(solver: str | None, adjoint: str | None) -> bool:
    """Whether devices may solve for parts of a batch each by itself but for the error norm.

    Adams steps have norms inside too, and diffrax's checkpointing cannot be run by device. Without
    an ODE (None) there is nothing in the way.
    """
    return adjoint != "checkpoint" and "adams" not in (solver or "")


def solve(
    field: Field,
    y0: PyTree,
    ts: Float[Array, " times"],
    args: PyTree = None,
    *,
    solver: str,
    adjoint: str = "checkpoint",
    rtol: float | Float[Array, ""] = 1e-3,
    atol: float | Float[Array, ""] = 1e-3,
    step_size: float | Float[Array, ""] | None = None,
    max_steps: int = 4096,
    backward: Backward | None = None,
    norm: Norm | None = None,
) -> Solution:
    """Solve `dy/dt = field(t, y, args)` from `y(ts[0]) = y0`, with the state at every time in `ts`.

    Args:
        field: the vector field; whatever is differentiated besides `y0` and `ts` is in `args`.
        y0: initial state, any PyTree of arrays of one dtype, in which the solve is done.
        ts: observation times, strictly increasing or decreasing, at least two.
        args: parameters of the field.
        solver: a name in `SOLVERS`.
        adjoint: `direct` (discretise-then-optimise, keeping the state at every step, room for
            `max_steps` of them), `checkpoint` (the same by diffrax's recursive checkpointing,
            which keeps about `sqrt(2 max_steps)` states), or `adjoint` (optimise-then-discretise,
            keeping only the observed states).
        rtol: relative tolerance of an adaptive step.
        atol: absolute tolerance.
        step_size: step size of the solvers in `FIXED_STEP`.
        max_steps: steps after which the solve is given up, per solve.
        backward: `Backward.zeros()`, whose cotangent is the account of the backward pass: NFE
            (of `checkpoint` and `direct` those recomputed to be differentiated), failed solves, and
            for `adjoint` the `reconstruction`, which says how far to trust the gradient.
        norm: of the state, in which errors are measured; by default its RMS. Backwards `adjoint`
            takes the largest of this norm of the state, of its adjoint, and the RMS of the rest.

    Returns:
        A `Solution`; a failed solve is marked in it and raised by `Solution.check`.

    Raises:
        ValueError: unknown name, or a step size missing or idle.
    """
    check(solver, adjoint, step_size)
    if backward is None:
        backward = Backward.zeros()
    ts = jnp.asarray(ts, jnp.result_type(*jax.tree.leaves(y0)))
    # Only implicit_adams has tolerances of its own: they end its corrector's iteration.
    own = {"rtol": rtol, "atol": atol} if solver == "implicit_adams" else {}
    method = (_ADAPTIVE | _FIXED)[solver](**own)
    by_steps = adjoint == "direct" and runge_kutta.supports(method)
    integrate = functools.partial(
        _integrate,
        solver=method,
        rtol=rtol,
        atol=atol,
        step_size=step_size,
        max_steps=max_steps,
        norm=functools.partial(_norm, of=norm or rms),
        diffrax_adjoint=(
            diffrax.DirectAdjoint()
            if adjoint == "direct" and not by_steps
            else diffrax.RecursiveCheckpointAdjoint()
        ),
    )
    if adjoint == "adjoint":
        out = solve_by_adjoint(field, integrate, y0, ts, args, backward)
    elif by_steps:
        out = runge_kutta.solve_by_steps(field, method, integrate, y0, ts, args, backward)
    else:
        counted = lambda t, y, args: field(t, _count_backward(y, args[1]), args[0])
        out = integrate(counted, y0, ts, (args, backward))
    return Solution(out.ys, **out.stats)


@jax.custom_vjp
def _count_backward(y: PyTree, backward: Backward) -> PyTree:
    """The identity; every time it is differentiated, `backward.nfe`'s cotangent grows by one."""
    del backward
    return y


_count_backward.defvjp(
    lambda y, _: (y, None), lambda _, g: (g, Backward.zeros()._replace(nfe=jnp.ones(())))
)


def _integrate(
    field,
    y0,
    ts,
    args,
    *,
    solver,
    rtol,
    atol,
    step_size,
    max_steps,
    norm,
    diffrax_adjoint,
    keep_steps=False,
):
    """Solve with diffrax: a `Forward`; with `keep_steps`, also `(times, states)` of all steps."""
    controller: diffrax.AbstractStepSizeController
    adams = isinstance(solver, Adams | ExplicitAdams | ImplicitAdams)
    solver_state = None
    if isinstance(solver, Adams):
        dt0 = None
        controller = AdamsController(rtol, atol, norm)
    elif step_size is None:
        order = solver.order(diffrax.ODETerm(field))
        dt0, f0 = first_step(
            field, ts[0], ts[-1], y0, args, order=order, rtol=rtol, atol=atol, norm=norm
        )
        if _first_same_as_last(solver):
            solver_state = jnp.array(False), f0  # False: there is an f(t0, y0) already
        smallest = 4 * jnp.finfo(ts.dtype).eps * jnp.max(jnp.abs(ts))
        controller = diffrax.PIDController(rtol, atol, norm=norm, dtmin=smallest, force_dtmin=False)
    else:
        dt0 = jnp.copysign(jnp.asarray(step_size, ts.dtype), ts[-1] - ts[0])
        controller = FixedStep()
    between = diffrax.SubSaveAt(ts=ts[1:-1]) if len(ts) > 2 else None
    steps = diffrax.SubSaveAt(t0=True, steps=True) if keep_steps else None
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        solver,
        ts[0],
        ts[-1],
        dt0,
        y0,
        args,
        saveat=diffrax.SaveAt(
            subs=(between, diffrax.SubSaveAt(t1=True), steps),
            solver_state=adams,
            controller_state=adams,
        ),
        stepsize_controller=controller,
        solver_state=solver_state,
        adjoint=diffrax_adjoint,
        max_steps=max_steps,
        throw=False,
    )
    first = jax.tree.map(lambda leaf: leaf[None], y0)
    parts = [first, *(ys for ys in solution.ys[:2] if ys is not None)]
    ys = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    not_finite = sum(jnp.sum(~jnp.isfinite(leaf[-1])) for leaf in jax.tree.leaves(ys))
    if adams:
        counted = statistics(solution)
    else:
        start, per_step = _evaluations(solver, adaptive=step_size is None)
        counted = {"nfe": start + per_step * solution.stats["num_steps"]}
    stats = {
        "nfe": counted["nfe"],
        "nonconverged": counted.get("non_converged", jnp.zeros((), jnp.int32)),
        "accepted": solution.stats["num_accepted_steps"],
        "rejected": solution.stats["num_rejected_steps"],
        "t": solution.ts[1][0],
        "ok": (sharding.total(not_finite) == 0) & (solution.result == diffrax.RESULTS.successful),
    }
    out = Forward(ys, jax.lax.stop_gradient(stats))
    return (out, (solution.ts[2], solution.ys[2])) if keep_steps else out


def rms(tree: PyTree) -> Float[Array, ""]:
    """Root mean square over all leaves, on all devices that share the batch."""
    squares = sharding.total(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))
    size = sharding.count() * sum(leaf.size for leaf in jax.tree.leaves(tree))
    return jnp.sqrt(squares / max(1, size))


def _norm(state: PyTree, of: Norm) -> Float[Array, ""]:
    """The norm of a state; of the augmented state of the adjoint, the largest of its three parts.

    One norm over all three would let the many components of the state hide the parameters.
    torchdiffeq takes the same norm.
    """
    if isinstance(state, Augmented):
        return jnp.max(jnp.stack([of(state.y), of(state.a), rms(state.p)]))
    return of(state)


def _first_same_as_last(solver: diffrax.AbstractSolver) -> bool:
    """Whether the last evaluation of a step is the first of the next."""
    return isinstance(solver, diffrax.AbstractERK) and solver.tableau.fsal  # type: ignore


def _evaluations(solver: diffrax.AbstractSolver, *, adaptive: bool) -> tuple[int, int]:
    """Evaluations at the start (two choose the first step size) and per attempted step."""
    reused = _first_same_as_last(solver)
    return 2 * adaptive, runge_kutta.stages(solver) - reused
