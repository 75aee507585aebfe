"""One solve by diffrax, with true statistics: what the gradient methods are made of."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jax_node import multistep, runge_kutta, sharding
from jax_node.adams import Adams, AdamsController, ExplicitAdams, ImplicitAdams, statistics
from jax_node.adjoint import Augmented, Forward
from jax_node.closures import Program, open_field, origin
from jax_node.failures import Cause
from jax_node.jumps import between_jumps
from jax_node.rk4 import RK4
from jax_node.step_size import AdaptiveStep, FixedStep, Limited, StepState, all_finite, first_step
from jax_node.unchecked import diffeqsolve

ADAPTIVE: dict[str, Callable[..., diffrax.AbstractSolver]] = {
    "dopri5": diffrax.Dopri5,
    "dopri8": diffrax.Dopri8,
    "tsit5": diffrax.Tsit5,
    "bosh3": diffrax.Bosh3,
    "adams": Adams,
}
FIXED: dict[str, Callable[..., diffrax.AbstractSolver]] = {
    "euler": diffrax.Euler,
    "midpoint": diffrax.Midpoint,
    "rk4": RK4,
    # These two as torchdiffeq has them.
    "explicit_adams": functools.partial(ExplicitAdams, max_order=12, assume_equal_steps=True),
    "implicit_adams": functools.partial(ImplicitAdams, max_order=12, assume_equal_steps=True),
}
Norm = Callable[[PyTree], Float[Array, ""]]
# How diffrax loops over steps: `once` can be pushed forwards, `checkpointed` pulled back once,
# `bounded` differentiated in any mode any number of times, at a cost that grows with `max_steps`.
Loops = Literal["once", "checkpointed", "bounded"]
LOOPS: dict[str, Callable[[], diffrax.AbstractAdjoint]] = {
    "once": diffrax.ForwardMode,
    "checkpointed": diffrax.RecursiveCheckpointAdjoint,
    "bounded": diffrax.DirectAdjoint,
}


class Controls(NamedTuple):
    """The numbers that control the steps; nothing is differentiated with respect to them.

    `norm` has the values that the norm of `Method` closes over.
    """

    rtol: Float[Array, ""]
    atol: Float[Array, ""]
    step_size: Float[Array, ""] | None
    dtmax: Float[Array, ""] | None
    jump_ts: Float[Array, " jumps"] | None
    norm: list[Array]


@dataclasses.dataclass(frozen=True)
class Method:
    """What of a solve is compiled in: hashable, so that equal ones compile once."""

    solver: str
    max_steps: int
    norm: Norm | Program  # `rms`, or what was traced

    def make(self, controls: Controls) -> diffrax.AbstractSolver:
        """The diffrax solver."""
        # Only implicit_adams has tolerances of its own: they end its corrector's iteration.
        own = {"rtol": controls.rtol, "atol": controls.atol, "everywhere": sharding.everywhere}
        return (ADAPTIVE | FIXED)[self.solver](**own if self.solver == "implicit_adams" else {})

    def measures(self, y0: PyTree, controls: Controls) -> Array | bool:
        """Whether the norm tells a state from zeros; errors of size 0 would end no step."""
        if not isinstance(self.norm, Program) or self.solver in FIXED:
            return True
        leaves, structure = jax.tree.flatten(jax.tree.map(jnp.zeros_like, y0))
        uneven = [
            (2 + i) * jnp.sqrt(1 + jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape)
            for i, leaf in enumerate(leaves)
        ]
        size = lambda leaves: self.norm(controls.norm, jax.tree.unflatten(structure, leaves))
        return ~(size(uneven) <= size(leaves))

    def integrate(
        self,
        field: Any,
        y0: PyTree,
        ts: Float[Array, " times"],
        args: PyTree,
        controls: Controls,
        loops: Loops = "once",
        keep_steps: bool = False,
    ) -> Any:
        """A `Forward`; with `keep_steps`, also `(times, states)` of the ends of all steps.

        What of `ys` was not reached is infinite, or (the last) the state at the time reached.
        """
        solver = self.make(controls)
        adams = isinstance(solver, Adams | ExplicitAdams | ImplicitAdams)
        t0, t1 = between_jumps(ts[0], ts[-1], controls.jump_ts)
        controller, dt0, solver_state = self._steps(solver, field, y0, t0, t1, args, controls)
        stepper: diffrax.AbstractSolver = solver
        start, term = y0, diffrax.ODETerm(field)
        state = lambda t, y, args: y
        if keep_steps and isinstance(solver, ExplicitAdams | ImplicitAdams):
            stepper, start = multistep.Keeping(solver), multistep.Kept.start(y0)
            state, term = lambda t, y, args: y.y, diffrax.ODETerm(multistep.of_state(field))
        inner = diffrax.SubSaveAt(ts=ts[1:-1], fn=state) if len(ts) > 2 else None
        steps = diffrax.SubSaveAt(steps=True) if keep_steps else None
        solution = diffeqsolve(
            term,
            stepper,
            t0,
            t1,
            dt0,
            start,
            args,
            saveat=diffrax.SaveAt(
                subs=(inner, diffrax.SubSaveAt(t1=True, fn=state), steps),
                solver_state=adams,
                controller_state=True,
            ),
            stepsize_controller=controller,
            solver_state=solver_state,
            adjoint=LOOPS[loops](),
            max_steps=self.max_steps,
            throw=False,
        )
        first = jax.tree.map(lambda leaf: leaf[None], y0)
        parts = [first, *(ys for ys in solution.ys[:2] if ys is not None)]
        ys = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
        told = _told(solution)
        if adams:
            counted = statistics(solution)
        else:
            start, per_step = _evaluations(solver, adaptive=self.solver in ADAPTIVE)
            counted = {"nfe": start + per_step * solution.stats["num_steps"]}
            if _first_same_as_last(solver):
                counted["nfe"] += told.restarts.astype(counted["nfe"].dtype)
        cause = self._cause(solution, told, ys)
        reached = solution.ts[1][0]
        stats = {
            "nfe": counted["nfe"],
            "nonconverged": counted.get("non_converged", jnp.zeros((), jnp.int32)),
            "accepted": solution.stats["num_accepted_steps"],
            "rejected": solution.stats["num_rejected_steps"],
            "t": jnp.where(reached == t1, ts[-1], reached),
            "ok": cause == Cause.NONE,
            "cause": cause,
            "step": jnp.abs(told.step),
        }
        out = Forward(ys, jax.lax.stop_gradient(stats))
        return (out, (solution.ts[2], solution.ys[2])) if keep_steps else out

    def _steps(self, solver, field, y0, t0, t1, args, controls) -> tuple:
        """The step size controller, the first step (None: Adams's own), the state to start with."""
        norm = _Largest(self.norm, controls.norm)
        controller: Any
        dt0 = state = None
        if self.solver in FIXED:
            return FixedStep(), jnp.copysign(controls.step_size, t1 - t0), None
        options = {"rtol": controls.rtol, "atol": controls.atol, "norm": norm}
        if isinstance(solver, Adams):
            tiny = jnp.finfo(controls.atol.dtype).tiny  # what is 0 is 0 in units of 0 too
            options["atol"] = jnp.maximum(controls.atol, tiny)
            controller = AdamsController(**options)
        else:
            order = solver.order(diffrax.ODETerm(field))
            dt0, f0 = first_step(field, t0, t1, y0, args, order=order, **options)
            if _first_same_as_last(solver):
                state = jnp.array(False), f0  # False: there is an f(t0, y0) already
            controller = AdaptiveStep(**options)
        if isinstance(solver, Adams) or controls.dtmax is not None:
            controller = Limited(**options, controller=controller, dtmax=controls.dtmax)
        if controls.jump_ts is not None:
            controller = diffrax.ClipStepSizeController(controller, jump_ts=controls.jump_ts)
        return controller, dt0, state

    def _cause(self, solution: diffrax.Solution, told: StepState, ys: PyTree) -> Array:
        """Why the solve ended, as a number of `Cause`."""
        results = diffrax.RESULTS
        limit = Cause.FIXED_STEPS if self.solver in FIXED else Cause.STEPS
        stopped = jnp.where(told.finite, int(Cause.RESOLUTION), int(Cause.NOT_FINITE))
        ended = jnp.where(all_finite(ys), int(Cause.NONE), int(Cause.NOT_FINITE))
        return jnp.where(
            solution.result == results.successful,
            ended,
            jnp.where(solution.result == results.max_steps_reached, int(limit), stopped),
        ).astype(jnp.int32)


def rms(tree: PyTree) -> Float[Array, ""]:
    """Root mean square over all leaves, on all devices that share the batch."""
    squares = sharding.total(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))
    size = sharding.count() * sum(leaf.size for leaf in jax.tree.leaves(tree))
    return jnp.sqrt(squares / max(1, size))


def open_norm(norm: Norm | None, y0: PyTree, dtype: Any) -> tuple[Norm | Program, list[Array]]:
    """The norm of a state in `dtype` as a program, as a field is, and what it closes over.

    ValueError if it returns no size.
    """
    if norm is None:
        return rms, []
    of = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), y0)
    # JAX keeps what it has traced of a function, and with it what that closed over.
    program, values, out = open_field(lambda y: norm(y), origin(norm), of)
    array = isinstance(out, jax.ShapeDtypeStruct)
    if not array or out.shape or not jnp.issubdtype(out.dtype, jnp.floating):
        found = f"{out.dtype}{list(out.shape)}" if array else type(out).__name__
        raise ValueError(f"`norm` returns {found}: return one real number, at least 0")
    return program, jax.lax.stop_gradient(values)


class _Largest(eqx.Module):
    """The norm of a state; of the augmented state of the adjoint, the largest of its three parts.

    One norm over all three would let the many components of the state hide the parameters.
    torchdiffeq takes the same norm.
    """

    of: Norm | Program = eqx.field(static=True)
    values: list[Array]

    def __call__(self, state: PyTree) -> Float[Array, ""]:
        if isinstance(state, Augmented):
            return jnp.max(jnp.stack([self._size(state.y), self._size(state.a), rms(state.p)]))
        return self._size(state)

    def _size(self, part: PyTree) -> Float[Array, ""]:
        if not isinstance(self.of, Program):
            return self.of(part)
        found = self.of(self.values, part).astype(jax.tree.leaves(part)[0].dtype)
        found = sharding.largest(found)  # or devices would take steps of their own
        return jnp.where(found >= 0, found, jnp.nan)  # below 0 all steps would do


def _told(solution: diffrax.Solution) -> StepState:
    """What the controller tells of its steps, wherever in its state."""
    is_ours = lambda leaf: isinstance(leaf, StepState)
    leaves = jax.tree.leaves(solution.controller_state, is_leaf=is_ours)
    return next(leaf for leaf in leaves if is_ours(leaf))


def _first_same_as_last(solver: diffrax.AbstractSolver) -> bool:
    """Whether the last evaluation of a step is the first of the next."""
    return isinstance(solver, diffrax.AbstractERK) and solver.tableau.fsal  # type: ignore


def _evaluations(solver: diffrax.AbstractSolver, *, adaptive: bool) -> tuple[int, int]:
    """Evaluations at the start (two choose the first step size) and per attempted step."""
    reused = _first_same_as_last(solver)
    return 2 * adaptive, runge_kutta.stages(solver) - reused
