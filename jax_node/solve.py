"""Solve an initial value problem by names: solver, gradient method, tolerances in; NFE out."""

import functools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from jax_node import multistep, validate
from jax_node.adjoint import Backward, Field, nan_unless, solve_by_adjoint
from jax_node.closures import Program, open_field, origin
from jax_node.derivatives import (
    differentiable_integrate,
    keeps_steps,
    solve_by_kept_steps,
    solve_through_loops,
)
from jax_node.failures import Cause
from jax_node.failures import SolveError as SolveError
from jax_node.integrate import ADAPTIVE, FIXED, Loops, Method, Norm, open_norm
from jax_node.integrate import rms as rms
from jax_node.reverse_only import differentiated_once, reverse_only
from jax_node.solution import Solution as Solution

FIXED_STEP = tuple(FIXED)
SOLVERS = (*ADAPTIVE, *FIXED)
ADJOINTS = ("checkpoint", "direct", "adjoint")
GRADIENTS = (*ADJOINTS, "forward")

_NO_FORWARD_MODE = (
    "`adjoint={!r}` is a gradient in reverse mode (jax.grad, jax.vjp, jax.jacrev): for jax.jvp or "
    "jax.jacfwd of a solve use `adjoint='forward'`"
)
_NO_REVERSE_MODE = (
    "`adjoint='forward'` is for forward mode (jax.jvp, jax.jacfwd): for jax.grad, jax.vjp or "
    f"jax.jacrev of a solve use one of {', '.join(ADJOINTS)}"
)
_ONCE = (
    "`adjoint='checkpoint'` is differentiated once: for second derivatives use `adjoint='direct'` "
    "or `adjoint='adjoint'`"
)


def check(solver: str, adjoint: str, step_size: float | Float[Array, ""] | None) -> None:
    """Refuse, in one sentence, names this framework lacks and a missing or idle step size.

    For training: `adjoint` has to be one of `ADJOINTS`.

    Raises:
        ValueError: which names there are, or what is wrong with `step_size`.
    """
    validate.choice("solver", solver, SOLVERS)
    validate.choice("adjoint", adjoint, ADJOINTS)
    validate.options(solver, step_size=step_size)


def splits_batch(solver: str | None, adjoint: str | None) -> bool:
    """Whether devices may solve for parts of a batch each by itself but for the error norm.

    Steps of `adams` have norms inside too, and diffrax's checkpointing cannot be run by device.
    Without an ODE (None) there is nothing in the way.
    """
    return adjoint != "checkpoint" and solver != "adams"


def solve(
    field: Field,
    y0: PyTree,
    ts: ArrayLike | Sequence[ArrayLike],
    args: PyTree = None,
    *,
    solver: str,
    adjoint: str = "checkpoint",
    rtol: ArrayLike = 1e-3,
    atol: ArrayLike = 1e-3,
    step_size: ArrayLike | None = None,
    dtmax: ArrayLike | None = None,
    jump_ts: ArrayLike | Sequence[ArrayLike] | None = None,
    max_steps: int = 4096,
    backward: Backward | None = None,
    norm: Norm | None = None,
) -> Solution:
    """Solve `dy/dt = field(t, y, args)`, `y(ts[0]) = y0`, for the state at every time in `ts`.

    Args:
        field: the vector field. It is asked at no time outside of `ts[0]` to `ts[-1]`, gets the
            time as a scalar and every part of the state in its own dtype, and returns the shape of
            the state.
        y0: initial state, any PyTree of float32 and float64, which is the dtype of `ys` too. Whole
            numbers and Python's become floats of JAX's default dtype.
        ts: observation times, strictly increasing or decreasing, at least two. Times and states
            are computed in the widest dtype of `ts` and `y0`, by `adjoint` of `args` too.
        args: parameters of the field, any PyTree. Floats are differentiated; whole numbers, keys
            and functions are passed on. What the field closes over is differentiated too.
        solver: a name in `SOLVERS`.
        adjoint: a gradient of `GRADIENTS`, see below.
        rtol, atol: tolerances of adaptive solvers. For `implicit_adams` they end the corrector's
            iteration, at most four times a step, and control nothing else.
        step_size: of the solvers in `FIXED_STEP`, from `ts[0]` on; the last step is cut at
            `ts[-1]`, and fixed-step Adams takes it for a whole one: with error of order 2 unless
            the step divides the way (by `adjoint`, every interval of `ts`). States within a step
            are interpolated.
        dtmax: largest step of an adaptive solver: it sees what lasts as long.
        jump_ts: times at which the field jumps: an adaptive step ends before, one begins after.
        max_steps: steps after which the solve is given up, per solve.
        backward: `Backward.zeros()`, whose cotangent is the account of the backward pass: NFE
            (of `checkpoint` and `direct` those recomputed to be differentiated), failed solves, and
            for `adjoint` the `reconstruction`, which says how far to trust the gradient.
        norm: of the state, in which errors are measured; by default its RMS. It is not
            differentiated; where it is below 0, or the same for all states, the solve fails;
            devices that share a batch take the largest of theirs. Backwards `adjoint` takes the
            largest of this norm of the state, of its adjoint, and the RMS of the rest.

    Gradients are with respect to `y0`, `ts` and `args`, and to none of the options:

    - `checkpoint`: reverse mode through the steps by diffrax's recursive checkpointing, which keeps
      about `sqrt(2 max_steps)` states. Once.
    - `direct`: the same gradient, keeping the state at every step (with fixed-step Adams its
      derivative too), room for `max_steps` of them. Again in either mode (with fixed-step Adams
      once by `ts`), at a cost that grows with `max_steps`; for `adams` at such a cost always.
    - `adjoint`: reverse mode by the adjoint equation, keeping only the observed states; again in
      either mode, like `direct`.
    - `forward`: forward mode through the steps, any number of times, but for that.

    At an observation at a jump, the derivative in its time is that of the way to it by `direct` and
    `adjoint`, of the way on from it by the other two.

    The solve is one program, compiled once for a field and shapes; `rtol`, `atol`, `step_size`,
    `dtmax` and `jump_ts` are not compiled in. It may be traced by `jit`, `vmap` and `shard_map`.

    Returns:
        A `Solution`. States that were not reached are NaN, and so is a gradient through them, or by
        an `adjoint` whose backward solve failed. `Solution.check` raises what went wrong.

    Raises:
        ValueError: an unknown name, an option that is missing or idle, a value that is known and
            cannot be right. Values known only to a trace end in `Solution.ok`.
        TypeError: a derivative that `adjoint` does not have.

    Examples:
        A decay, its gradient, and its sensitivity in forward mode:

        >>> import jax, jax.numpy as jnp
        >>> from jax_node.solve import solve
        >>> decay = lambda t, y, rate: -rate * y
        >>> y0, ts = jnp.array([1.0, 2.0]), jnp.array([0.0, 0.5, 1.0])
        >>> def end(rate, adjoint="direct"):
        ...     options = {"solver": "dopri5", "rtol": 1e-6, "atol": 1e-6, "max_steps": 64}
        ...     return solve(decay, y0, ts, rate, adjoint=adjoint, **options).ys[-1, 0]
        >>> print(f"{end(1.0):.4f} {jax.grad(end)(1.0):.4f}")
        0.3679 -0.3679
        >>> print(f"{jax.jacfwd(end)(1.0, 'forward'):.4f}")
        -0.3679

        A pulse, which long steps would miss:

        >>> pulse = lambda t, y, _: jnp.where((t >= 5) & (t < 5.1), 1.0, 0.0)
        >>> solution = solve(pulse, 0.0, [0.0, 10.0], solver="tsit5", jump_ts=[5.0, 5.1])
        >>> print(f"{solution.check().ys[-1]:.3f} in {solution.accepted} steps")
        0.100 in 11 steps

        What cannot be solved says so:

        >>> explosion = lambda t, y, _: y**2
        >>> solve(explosion, 1.0, [0.0, 2.0], solver="dopri5").ok.item()
        False
    """
    validate.choice("solver", solver, SOLVERS)
    validate.choice("adjoint", adjoint, GRADIENTS)
    given: dict[str, Any] = {"rtol": rtol, "atol": atol, "step_size": step_size}
    given |= {"dtmax": dtmax, "jump_ts": jump_ts}
    validate.options(solver, **given)
    max_steps, y0, ts = validate.max_steps(max_steps), validate.state(y0), validate.times(ts)
    args, static = eqx.partition(jax.tree.map(validate.argument, args), eqx.is_array)
    # Backwards the gradients of the parameters are part of the state.
    beside = eqx.filter(args, eqx.is_inexact_array) if adjoint == "adjoint" else None
    dtype = validate.widest(ts, y0, beside)
    program, closed_over, out = open_field(
        lambda t, y, args: field(t, y, eqx.combine(args, static)),
        (origin(field), tuple(jax.tree.leaves(static)), jax.tree.structure(static)),
        jax.ShapeDtypeStruct((), dtype),
        y0,
        args,
    )
    validate.output(y0, out)
    measure, of_norm = open_norm(norm, y0, dtype)
    # What was known before is constant, and what is not a float is not differentiated.
    traced = lambda value: eqx.is_inexact_array(value) and not validate.known(value)
    params, rest = zip(
        eqx.partition(args, eqx.is_inexact_array), eqx.partition(closed_over, traced), strict=True
    )
    if adjoint == "adjoint":
        validate.beside_the_state(dtype, params)
    return _solve(
        program,
        Method(solver, max_steps, measure),
        adjoint,
        y0,
        ts.astype(dtype),
        params,
        (rest, validate.controls(dtype, **given)._replace(norm=of_norm)),
        Backward.zeros() if backward is None else backward,
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2), inline=True)
def _solve(
    program: Program,
    method: Method,
    adjoint: str,
    y0: PyTree,
    ts: Float[Array, " times"],
    params: PyTree,
    given: PyTree,
    backward: Backward,
) -> Solution:
    """`solve`, of a field that takes `(params, given)`, with `given` `(rest, controls)`.

    All is of one dtype inside, the widest; the field gets each state and parameter in its own.
    """
    dtypes = jax.tree.map(lambda leaf: leaf.dtype, (y0, params))
    cast = lambda tree, dtypes: jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), tree, dtypes)
    widened = lambda tree: jax.tree.map(lambda leaf: leaf.astype(ts.dtype), tree)

    def field(t, y, args):
        params, (rest, _) = args
        args, closed_over = eqx.combine(cast(params, dtypes[1]), rest)
        return widened(program(closed_over, t, cast(y, dtypes[0]), args))

    # A gradient is a sum over all evaluations, which a narrow dtype would cut.
    narrow = lambda p: p.dtype.itemsize < ts.dtype.itemsize
    params = jax.tree.map(lambda p: p.astype(ts.dtype) if narrow(p) else p, params)
    y0 = widened(y0)
    if adjoint != "forward":
        once = _ONCE if adjoint == "checkpoint" else None
        y0, ts, params = reverse_only((y0, ts, params), _NO_FORWARD_MODE.format(adjoint), once)
    solver = method.make(given[1])
    if adjoint in ("direct", "forward") and multistep.supports(solver):
        ts = differentiated_once(ts, multistep.TIMES_ONCE.format(method.solver))
    args = params, given
    if adjoint == "forward":
        out = method.integrate(field, y0, ts, args, given[1])
        out = eqxi.nondifferentiable_backward(out, msg=_NO_REVERSE_MODE)
    elif adjoint == "adjoint":
        integrate = differentiable_integrate(method)
        out = solve_by_adjoint(field, integrate, y0, ts, params, given, backward)
    elif adjoint == "direct" and keeps_steps(solver):
        out = solve_by_kept_steps(field, method, y0, ts, params, given, backward)
    else:
        loops: Loops = "checkpointed" if adjoint == "checkpoint" else "bounded"
        out = solve_through_loops(field, method, loops, y0, ts, args, backward)
    stats = out.stats
    cause = jnp.where(method.measures(y0, given[1]), stats["cause"], int(Cause.OPTIONS))
    stats["cause"] = validate.found_at_run_time(method.solver, ts, given[1], cause)
    stats["ok"] = stats["cause"] == Cause.NONE
    reached = (ts - stats["t"]) * jnp.sign(ts[-1] - ts[0]) <= 0
    ys = nan_unless(reached & (stats["cause"] < Cause.TIMES), out.ys, (y0, ts, params))
    return Solution(cast(ys, dtypes[0]), **stats)
