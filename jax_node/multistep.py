"""Discretise-then-optimise through the steps of a fixed-step Adams solve.

A step takes from the derivatives before f_n, its own first one, nothing but weighted sums

    P = sum_{j >= 1} w_j f_{n-j}

(of the predictor, of the corrector, of the dense output; see `adams/fixed.py`). The solve keeps the
state and the derivative at the start of every step, and how the step was made: how many derivatives
it knew and how often it evaluated. On the way back (`kept_steps.py`) the sums are read off the kept
derivatives, and a step is differentiated with respect to its state and its sums. What f_n owes to
later steps is once more a weighted sum, of the cotangents of their P:

    sum_{j >= 1} w_j(n + j) Pbar(n + j),

whose last `max_order` - 2 are remembered. So every evaluation is made once more and pulled back
once: with the explicit method that is one a step.
"""

from collections.abc import Callable
from typing import ClassVar, NamedTuple, TypeGuard

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from jax_node import runge_kutta
from jax_node.adams import ExplicitAdams, ImplicitAdams
from jax_node.adams.coefficients import fixed_step_tables
from jax_node.adams.fixed import STARTING_HISTORY
from jax_node.adjoint import Field
from jax_node.kept_steps import Scalar, add, before, go_back
from jax_node.rk4 import RK4

FixedAdams = ExplicitAdams | ImplicitAdams
TIMES_ONCE = (
    "the derivative by `ts` through the steps of {} is not differentiated by `ts` again: where an "
    "end moves, the state does by its slope, which bends no more; use `adjoint='adjoint'`, or a "
    "Runge-Kutta method"
)


class Kept(eqx.Module):
    """The state at the end of a step, and of the step itself what its derivative needs.

    `origin` is the derivative at its start, in the solver's direction of time; `count` how many it
    knew, with that one, and `nfe` the evaluations up to its end (floats, as diffrax has states).
    """

    y: PyTree
    origin: PyTree
    count: Scalar
    nfe: Scalar

    @classmethod
    def start(cls, y0: PyTree) -> "Kept":
        """At the start of a solve."""
        return cls(y0, jax.tree.map(jnp.zeros_like, y0), jnp.zeros(()), jnp.zeros(()))


def of_state(field: Field) -> Callable[..., PyTree]:
    """`field`, to which the solver gives a state; and diffrax a `Kept`, to see whether it fits."""

    def either(t, y, args):
        if isinstance(y, Kept):
            return Kept(field(t, y.y, args), y.origin, y.count, y.nfe)
        return field(t, y, args)

    return either


class Keeping(diffrax.AbstractSolver):
    """A fixed-step Adams method whose state is a `Kept`, so that saved steps have all of it."""

    solver: FixedAdams
    term_structure: ClassVar = diffrax.AbstractTerm

    @property
    def interpolation_cls(self):  # type: ignore[override]
        """The method's own, of the state only."""
        return lambda **info: _Interpolation(self.solver.interpolation_cls(**info))

    def order(self, terms):
        """The method's."""
        return self.solver.order(terms)

    def func(self, terms, t0, y0, args):
        """The vector field."""
        return self.solver.func(terms, t0, y0.y, args)

    def init(self, terms, t0, t1, y0, args):
        """An empty history."""
        return self.solver.init(terms, t0, t1, y0.y, args)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """The method's step."""
        y1, error, dense_info, after, result = self.solver.step(
            terms, t0, t1, y0.y, args, solver_state, made_jump
        )
        failed = after.non_converged - solver_state.non_converged
        kept = Kept(
            y=y1,
            origin=jax.tree.map(lambda leaf: leaf[after.slot], after.derivatives),
            count=(after.count + failed).astype(y0.count.dtype),
            nfe=after.nfe.astype(y0.nfe.dtype),
        )
        return kept, error, dense_info, after, result


class _State(NamedTuple):
    y: PyTree


class _Interpolation(NamedTuple):
    """A polynomial through a step of which a `Kept` is saved."""

    of_state: diffrax.AbstractLocalInterpolation

    def evaluate(self, t: Scalar) -> _State:
        return _State(self.of_state.evaluate(t))


def supports(solver: diffrax.AbstractSolver) -> TypeGuard[FixedAdams]:
    """Whether `solver` is an Adams method of fixed steps."""
    return isinstance(solver, FixedAdams)


def pull_back(
    field: Field,
    solver: FixedAdams,
    steps: tuple[Float[Array, " steps"], Kept],
    n_steps: Int[Array, ""],
    y0: PyTree,
    ts: Float[Array, " times"],
    args: tuple[PyTree, PyTree],
    jump_ts: None,
    observed: PyTree,
) -> tuple[tuple[PyTree, Float[Array, " times"], PyTree], Float[Array, ""]]:
    """The gradients with respect to `y0`, `ts` and the parameters, and the NFE they took.

    As `runge_kutta.pull_back`, but that `steps` has a `Kept` for each. Memory is two states per
    step, for `max_steps` steps.
    """
    step_ts, kept = steps
    params, given = args
    slots = solver.max_order - 1
    ages = jnp.arange(1, slots)
    dense = len(ts) > 2  # are there observations inside steps?
    needed = bool(solver.iterations) or dense
    tables = jnp.asarray(_tables(solver), ts.dtype)
    owing = len(tables) if needed else 1  # nothing is owed to a slope that only the end moves by
    nothing = jax.tree.map(jnp.zeros_like, y0)
    direction = jnp.sign(ts[-1] - ts[0])  # of the solver's time, in which derivatives are kept

    def pull_step(n, start, end, a, memory, observe):
        del a  # `observe` has it
        owed, latest = memory
        # Written before it is read, so that XLA does it in place.
        owed = jax.tree.map(lambda ring, new: ring.at[(n + 1) % (slots - 1)].set(new), owed, latest)
        later = n + ages
        made = later < n_steps
        count = jnp.where(made, kept.count[jnp.where(made, later, 0)], 0).astype(int)
        of_origin = [
            _weigh(weights[count, ages], ring, later % (slots - 1))
            for weights, ring in zip(tables[:owing], owed, strict=True)
        ]
        count, earlier = kept.count[n].astype(int), jnp.maximum(n - ages, 0)
        # An explicit step is linear in its sums: their values make only the derivative by its size,
        # and the ends of all but the last step move together.
        past = jax.lax.cond(
            needed | (n == n_steps - 1),
            lambda: [_weigh(direction * of[count, 1:], kept.origin, earlier) for of in tables],
            lambda: [nothing] * len(tables),
        )
        start_y = before(n, y0, kept.y)

        def pull(step):
            (y1, f0, ks), back = jax.vjp(step, start, end, start_y, past, params)
            (*inside, a, dks), seen = observe(start_y, y1, ks)
            *through, dpast, dp = back((a, _sum(of_origin), dks))
            return (*add(inside, through), dp), seen, dpast[:owing]

        own = [of[count, 0] for of in tables]
        new = jnp.asarray(fixed_step_tables(slots)[-1], ts.dtype)[count]
        made_before = jnp.where(n == 0, 0, kept.nfe[n - 1])
        iterations = (kept.nfe[n] - made_before).astype(int) - 1
        gradient, seen, latest = jax.lax.cond(
            count < STARTING_HISTORY,
            lambda: pull(lambda t0, t1, y0, _, p: _start(field, t0, t1, y0, (p, given))),
            lambda: pull(
                lambda t0, t1, y0, past, p: _adams(
                    field, solver, own, new, iterations, t0, t1, y0, past, (p, given)
                )
            ),
        )
        return gradient, seen, (owed, latest)

    rings = jax.tree.map(lambda leaf: jnp.zeros((slots - 1, *leaf.shape), leaf.dtype), nothing)
    memory = [rings] * owing, [nothing] * owing
    gradient = go_back(
        pull_step, _interpolate(solver), step_ts, n_steps, ts, params, jump_ts, observed, memory
    )
    return gradient, jnp.where(n_steps == 0, 0, kept.nfe[n_steps - 1])


def _tables(solver: FixedAdams) -> Float[np.ndarray, "sums rows slots"]:
    """Weights of the sums, by how many derivatives are known and by age.

    Those of the predictor; of the corrector, or of the derivative at the end of an explicit step.
    A step of the start-up takes nothing from the past.
    """
    explicit, implicit, ahead, _ = fixed_step_tables(solver.max_order - 1)
    tables = np.stack([explicit, implicit if solver.iterations else ahead])
    tables[:, :STARTING_HISTORY] = 0
    return tables


def _weigh(weights: Float[Array, " n"], leaves: PyTree, rows: Int[Array, " n"]) -> PyTree:
    """The sum of `weights` times `rows`: one pass over memory, as a product with rows is not."""
    return jax.tree.map(
        lambda leaf: sum(
            w * jax.lax.dynamic_index_in_dim(leaf, row, keepdims=False)
            for w, row in zip(weights, rows, strict=True)
        ),
        leaves,
    )


def _sum(trees: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: sum(leaves), *trees)


def _start(field, t0, t1, y0, args):
    """A step of the start-up: the state at its end, f_0, and what its interpolation needs."""
    y1, ks = runge_kutta.step(field, RK4(), t0, t1, y0, args, last_stage=True)
    k0, k1 = (jax.tree.map(lambda k, i=i: k[i], ks) for i in (0, -1))
    return y1, jax.tree.map(lambda k: k / (t1 - t0), k0), (k0, k1)


def _adams(field, solver, own, new, iterations, t0, t1, y0, past, args):
    """The same of an Adams step, in which the corrector was iterated so often.

    `own` are the weights of f_0 in the sums, whose rest is `past`; `new` that of the corrector's f.
    """
    moved = t1 - t0
    h = jax.lax.stop_gradient(moved)  # as in `adams/fixed.py`: where the end moves, y1 does by f1
    end = t0 + h
    end += jax.lax.stop_gradient(t1 - end)
    f0 = field(t0, y0, args)
    with_f0 = [
        jax.tree.map(lambda f, sum_, w=w: w * f + sum_, f0, sums)
        for w, sums in zip(own, past, strict=True)
    ]
    d = jax.tree.map(lambda predictor: h * predictor, with_f0[0])
    f1 = with_f0[-1]
    # Not a loop, whose derivative would copy what every evaluation leaves for it.
    for i in range(solver.iterations):

        def correct(d=d):
            f = field(end, jax.tree.map(jnp.add, y0, d), args)
            return jax.tree.map(lambda f, rest: h * (new * f + rest), f, with_f0[1]), f

        d, f1 = jax.lax.cond(i < iterations, correct, lambda d=d, f1=f1: (d, f1))
    y1 = jax.tree.map(lambda y, d, f: y + d + (moved - h) * f, y0, d, f1)
    scaled = lambda f: jax.tree.map(lambda leaf: moved * leaf, f)
    return y1, f0, (scaled(f0), scaled(f1))


def _interpolate(solver: FixedAdams):
    """The solver's own polynomial through one step, as a function."""
    return lambda t0, t1, y0, y1, ks: solver.interpolation_cls(
        t0=t0, t1=t1, y0=y0, y1=y1, k0=ks[0], k1=ks[1]
    )
