"""Every part of diffrax that a solver must fit, over all of ours, as diffrax runs its own tests.

Under strict promotion of dtypes and ranks. The tolerances: 1e-8 of the adaptive methods grows to a
few tolerances over these intervals; the fixed ones err by C h^4 at h = 1/64, 6e-8 times constants
below ten.
"""

import itertools
import pathlib
import warnings
from dataclasses import dataclass

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

import jax_node.adams
from jax_node.adams import Adams, AdamsController, ExplicitAdams, ImplicitAdams, statistics
from jax_node.rk4 import RK4

slow = pytest.mark.slow
TOL, ERROR = 1e-8, 1e-6
STEP = 1 / 64


@dataclass(frozen=True)
class Case:
    solver: diffrax.AbstractSolver
    controller: diffrax.AbstractStepSizeController
    dt0: float | None

    def __call__(self, field, t0, t1, y0, args=None, *, jumps=None, dt0=None, **options):
        """Solve; `field` may be a term."""
        term = field if isinstance(field, diffrax.AbstractTerm) else diffrax.ODETerm(field)
        controller = options.pop("controller", self.controller)
        if jumps is not None:
            controller = diffrax.ClipStepSizeController(controller, jump_ts=jumps)
        step = self.dt0 if dt0 is None else dt0
        step = None if step is None else jnp.where(jnp.asarray(t0 < t1), step, -step)
        options.setdefault("max_steps", 256)
        return diffrax.diffeqsolve(
            term, self.solver, t0, t1, step, y0, args, stepsize_controller=controller, **options
        )


ADAMS = Case(Adams(), AdamsController(TOL, TOL), None)
PID = Case(Adams(), diffrax.PIDController(TOL, TOL, pcoeff=0.3, icoeff=0.4), 1e-3)
ADAPTIVE = {"adams": ADAMS, "adams-pid": PID}
FIXED = {
    name: Case(solver, diffrax.ConstantStepSize(), STEP)
    for name, solver in (
        ("explicit", ExplicitAdams()),
        ("implicit", ImplicitAdams()),
        ("rk4", RK4()),
    )
}
CASES = ADAPTIVE | FIXED
every = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
# Where the controller has no part in it, one of the two adaptive cases is enough to be fast.
most = pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=slow if case is PID else ()) for case in CASES.values()],
    ids=CASES,
)
adaptive = pytest.mark.parametrize("case", ADAPTIVE.values(), ids=ADAPTIVE)


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def decay(t, y, args):
    """y' = -y cos t, y = y0 exp(-sin t) from 0, leaf by leaf of any PyTree."""
    return jax.tree.map(lambda leaf: -jnp.cos(t).astype(leaf.dtype) * leaf, y)


def decayed(t):
    return np.exp(-np.sin(np.asarray(t)))


TREE = {"a": jnp.array([1.0, -2.0]), "b": (jnp.array(0.5), jnp.zeros((0, 3))), "c": None}


@every
def test_every_way_to_save_both_ways_in_time(case):
    """t0, ts, t1, every third step, a function of the state, and dense output, in one solve."""
    first = lambda t, y, args: {"t": t, "first": y["a"][0]}

    @jax.jit
    def solve(t0, t1, ts):
        subs = {
            "times": diffrax.SubSaveAt(ts=ts),
            "ends": diffrax.SubSaveAt(t0=True, t1=True),
            "steps": diffrax.SubSaveAt(steps=3, t0=True, fn=first),
        }
        saveat = diffrax.SaveAt(subs=subs, dense=True, solver_state=True, controller_state=True)
        y0 = jax.tree.map(lambda leaf: leaf * jnp.exp(-jnp.sin(t0)), TREE)
        sol = case(decay, t0, t1, y0, saveat=saveat)
        inside = 0.3 * t0 + 0.7 * t1
        return sol, (inside, sol.evaluate(inside), sol.derivative(inside))

    for t0, t1 in ((0.0, 1.0), (1.0, 0.0)):
        ts = jnp.linspace(t0, t1, 7)[1:]
        sol, (inside, value, slope) = solve(t0, t1, ts)
        np.testing.assert_allclose(sol.ts["ends"], [t0, t1])
        for name, times in (("times", ts), ("ends", sol.ts["ends"])):
            np.testing.assert_allclose(sol.ys[name]["a"][:, 1], -2 * decayed(times), atol=ERROR)
            np.testing.assert_allclose(sol.ys[name]["b"][0], 0.5 * decayed(times), atol=ERROR)
            assert sol.ys[name]["b"][1].shape == (len(times), 0, 3)
        kept = np.isfinite(sol.ts["steps"])
        assert kept.sum() == 1 + sol.stats["num_accepted_steps"] // 3
        times = np.asarray(sol.ts["steps"])[kept]
        np.testing.assert_array_equal(times, np.asarray(sol.ys["steps"]["t"])[kept])
        found = np.asarray(sol.ys["steps"]["first"])[kept]
        np.testing.assert_allclose(found, decayed(times), atol=ERROR)
        np.testing.assert_allclose(value["a"][0], decayed(inside), atol=ERROR)
        # A slope is less accurate by a power of the step: 1/64 at worst.
        exact = -np.cos(inside) * decayed(inside)
        np.testing.assert_allclose(slope["a"][0], exact, atol=100 * ERROR)


@most
def test_events(case):
    """y = exp(-t) falls through 1/2 at log 2; a boolean event ends the solve at its step's end."""
    finder = optx.Newton(rtol=1e-10, atol=1e-10)
    fall = lambda t, y, args, **_: y - 0.5
    event = diffrax.Event([fall, lambda t, y, args, **_: y < -1], finder)
    saveat = diffrax.SaveAt(t1=True, ts=jnp.array([0.25, 0.5, 0.75]))
    sol = case(lambda t, y, args: -y, 0.0, jnp.inf, jnp.array(1.0), event=event, saveat=saveat)
    assert sol.result == diffrax.RESULTS.event_occurred
    np.testing.assert_allclose(sol.ts, [0.25, 0.5, np.log(2), np.inf], atol=ERROR)
    np.testing.assert_allclose(sol.ys[:3], [np.exp(-0.25), np.exp(-0.5), 0.5], atol=ERROR)


@adaptive
def test_jumps_and_starts_within_some_ulps_of_one(case):
    """y' = y before 1/2 and -y after it."""

    @jax.jit
    def solve(t0):
        field = lambda t, y, args: jnp.where(t < 0.5, y, -y)
        return case(field, t0, 1.0, jnp.array(1.0), jumps=jnp.array([0.5])).ys[0]

    np.testing.assert_allclose(solve(0.0), 1.0, atol=ERROR)
    for ulps in (-2, -1, 0, 1, 5):
        t0 = 0.5 + ulps * np.finfo(float).eps / 2
        np.testing.assert_allclose(solve(t0), np.exp(-0.5), atol=ERROR)


@most
def test_complex_states(case):
    """y' = i y turns by the angle t."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Complex dtype", UserWarning)
        sol = case(lambda t, y, args: 1j * y, 0.0, 1.0, jnp.array([1.0 + 0j, 2j]))
    np.testing.assert_allclose(sol.ys[0], np.exp(1j) * np.array([1, 2j]), atol=ERROR)


@pytest.mark.parametrize("name", ["adams", "explicit", "implicit"])
def test_leaves_of_several_dtypes(name):
    """Single and double precision side by side, which diffrax's own solvers and norms refuse."""
    case = CASES[name]
    y0 = {"single": jnp.ones(2, jnp.float32), "complex": jnp.full((2, 1), 1 + 1j)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Complex dtype", UserWarning)
        sol = case(decay, jnp.float32(0), jnp.float32(1), y0, dt0=jnp.float32(STEP))
    assert sol.ys["single"].dtype == jnp.float32
    # The time is in single precision: eps times a hundred steps.
    np.testing.assert_allclose(sol.ys["single"][0], decayed(1.0), atol=1e-5)
    np.testing.assert_allclose(sol.ys["complex"][0], (1 + 1j) * decayed(1.0), atol=1e-5)


@most
@pytest.mark.parametrize("y0", [None, (jnp.zeros((2, 0)), None)], ids=str)
def test_states_without_a_number(case, y0):
    sol = case(lambda t, y, args: y, 0.0, 1.0, y0)
    assert sol.result == diffrax.RESULTS.successful
    assert jax.tree.structure(sol.ys) == jax.tree.structure(y0)


@most
def test_vmap_is_a_loop(case):
    """Members of a batch have their own state, argument, direction and end."""

    @jax.jit
    def one(y0, rate, t1):
        sol = case(lambda t, y, rate: -rate * y, 0.0, t1, y0, rate)
        return sol.ys[0], sol.stats["num_accepted_steps"]

    y0 = jnp.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]])
    rates, ends = jnp.array([0.1, 1.0, 5.0]), jnp.array([1.0, -0.5, 0.3])
    together, steps = jax.vmap(one)(y0, rates, ends)
    exact = np.asarray(y0) * np.exp(-np.asarray(rates * ends))[:, None]
    np.testing.assert_allclose(together, exact, atol=10 * ERROR)
    alone = [one(*member) for member in zip(y0, rates, ends, strict=True)]
    np.testing.assert_allclose(together, [y for y, _ in alone], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(steps, [n for _, n in alone])


ADJOINTS = {
    "checkpoint": diffrax.RecursiveCheckpointAdjoint(),
    "direct": diffrax.DirectAdjoint(),
    "backsolve": diffrax.BacksolveAdjoint(),
    "forward": diffrax.ForwardMode(),
}


# Of Adams the others too, in test_adaptive.py; of `checkpoint` and `forward` all, by name, in
# tests/jax_node/test_solvers.py.
FAST = {
    ("adams", "checkpoint"),
    ("explicit", "checkpoint"),
    ("implicit", "backsolve"),
    ("implicit", "forward"),
}


@pytest.mark.parametrize(
    ("name", "adjoint"),
    [
        pytest.param(*pair, marks=() if pair in FAST else slow)
        for pair in itertools.product(CASES, ADJOINTS)
    ],
)
def test_adjoints(name, adjoint):
    """dy/da of y' = a y at three times, the last one t1: t exp(a t)."""
    ts = jnp.array([0.25, 0.7, 1.0])

    def at_times(a):
        y0 = {"u": jnp.array([1.0, 2.0])}
        field = lambda t, y, a: {"u": a * y["u"]}
        saveat = diffrax.SaveAt(ts=ts)
        options = {"saveat": saveat, "adjoint": ADJOINTS[adjoint]}
        return CASES[name](field, 0.0, 1.0, y0, a, **options).ys["u"][:, 1]

    differentiate = jax.jacfwd if adjoint == "forward" else jax.jacrev
    slopes = jax.jit(differentiate(at_times))(jnp.array(-0.7))
    # The derivative of the error, about as large as the error.
    np.testing.assert_allclose(slopes, 2 * ts * np.exp(-0.7 * ts), atol=10 * ERROR)


@every
@slow
def test_the_implicit_adjoint_of_a_steady_state(case):
    """y' = a - y^3 settles at a^(1/3), whose derivative is a^(-2/3) / 3.

    Not under strict promotion: diffrax asks the field at an integer time there.
    """
    settles = diffrax.steady_state_event(rtol=1e-6, atol=1e-6, norm=optx.rms_norm)

    def settled(a):
        return case(
            lambda t, y, a: a - y**3,
            0.0,
            jnp.inf,
            jnp.array(1.0),
            a,
            event=diffrax.Event(settles),
            adjoint=diffrax.ImplicitAdjoint(),
            max_steps=4096,
        ).ys[0]

    with jax.numpy_dtype_promotion("standard"):
        slope = jax.grad(settled)(jnp.array(2.0))
    np.testing.assert_allclose(slope, 2.0 ** (-2 / 3) / 3, rtol=1e-5)


@most
def test_a_sum_of_terms(case):
    """y' = -y + 1 from 0."""
    ones = lambda t, y, args: jnp.ones_like(y)
    terms = diffrax.MultiTerm(diffrax.ODETerm(lambda t, y, args: -y), diffrax.ODETerm(ones))
    sol = case(terms, 0.0, 1.0, jnp.zeros(2))
    np.testing.assert_allclose(sol.ys[0], 1 - np.exp(-1), atol=ERROR)


@every
def test_solves_go_on_from_what_was_saved(case):
    """Half the interval, then the other half with both states or with one of them."""
    saveat = diffrax.SaveAt(t1=True, solver_state=True, controller_state=True, made_jump=True)
    first = case(decay, 0.0, 0.5, jnp.array(1.0), saveat=saveat)
    saved = {"controller_state": first.controller_state}
    for kept in saved | {"solver_state": first.solver_state}, saved:
        again = case(decay, 0.5, 1.0, first.ys[0], made_jump=first.made_jump, **kept)
        np.testing.assert_allclose(again.ys[0], decayed(1.0), atol=ERROR)
        assert again.stats["num_steps"] <= 1.2 * first.stats["num_steps"]


@pytest.mark.parametrize(
    ("controller", "most"),
    [(AdamsController(TOL, TOL), 5), (diffrax.PIDController(TOL, TOL), 15)],
    ids=["adams", "I"],
)
def test_a_step_time_costs_a_step(controller, most):
    """One almost at the start, and two almost at one place in the middle.

    AdamsController goes on with the step that was planned. An I controller multiplies by at most
    ten: from 1e-13 to 1e-2 in eleven steps.
    """

    @jax.jit
    def solve(times):
        clip = diffrax.ClipStepSizeController(controller, step_ts=times)
        sol = PID(decay, 0.0, 1.0, jnp.array(1.0), controller=clip)
        return sol.ys[0], sol.stats["num_steps"]

    solved = [solve(jnp.array(ts)) for ts in ([0.998, 0.999], [1e-13, 0.999], [0.5, 0.5 + 1e-13])]
    np.testing.assert_allclose([y for y, _ in solved], decayed(1.0), atol=ERROR)
    steps = [int(n) for _, n in solved]
    assert max(steps) <= steps[0] + most


def test_a_tiny_first_step_is_outgrown():
    usual, tiny = (ADAMS(decay, 0.0, 1.0, jnp.array(1.0), dt0=dt0) for dt0 in (None, 1e-13))
    assert tiny.stats["num_steps"] <= usual.stats["num_steps"] + 15


def test_diffrax_controllers_do_with_about_the_steps():
    """The error means the same to an I and a PI controller as the step means to our own."""
    steps = [
        int(ADAMS(decay, 0.0, 10.0, jnp.array(1.0), controller=controller, dt0=1e-3).stats[
            "num_steps"
        ])
        for controller in (
            AdamsController(TOL, TOL),
            diffrax.PIDController(TOL, TOL),
            diffrax.PIDController(TOL, TOL, pcoeff=0.3, icoeff=0.4, dtmin=1e-12),
        )
    ]  # fmt: skip
    assert max(steps[1:]) < 1.4 * steps[0]


SQUARE = diffrax.ControlTerm(lambda t, y, args: jnp.ones(()), lambda t0, t1: t1**2 - t0**2)
MINUS = diffrax.ODETerm(lambda t, y, args: -y)


class Hurried(diffrax.ODETerm):
    """An ODE term whose time runs twice as fast: no ODE in t."""

    def contr(self, t0, t1, **kwargs):
        return 2 * (t1 - t0)


@pytest.mark.parametrize("case", list(CASES.values())[:4], ids=list(CASES)[:4])
@pytest.mark.parametrize(
    "term",
    [SQUARE, diffrax.MultiTerm(MINUS, SQUARE), Hurried(lambda t, y, args: -y)],
    ids=["control", "sum", "own contr"],
)
def test_terms_that_are_no_ode_are_refused(case, term):
    with pytest.raises(ValueError, match="must be an `ODETerm`, or a `MultiTerm` of them, but is"):
        case(term, 0.0, 2.0, jnp.array(0.0))


@pytest.mark.parametrize(
    "solver", [diffrax.Tsit5(), diffrax.Kvaerno5(), ExplicitAdams(), RK4()], ids=str
)
def test_our_controller_is_for_our_solver(solver):
    with pytest.raises(ValueError, match="AdamsController chooses the steps of Adams, but"):
        Case(solver, AdamsController(TOL, TOL), 0.1)(decay, 0.0, 1.0, jnp.array(1.0))


@pytest.mark.parametrize("solver", [ExplicitAdams(), ImplicitAdams(), RK4()], ids=str)
def test_fixed_steps_are_not_adapted(solver):
    """But in a HalfSolver, which estimates an error, they can be."""
    pid = diffrax.PIDController(1e-6, 1e-6)
    with pytest.raises(RuntimeError, match="does not provide error estimates"):
        Case(solver, pid, 0.1)(decay, 0.0, 1.0, jnp.array(1.0))
    sol = Case(diffrax.HalfSolver(solver), pid, 0.1)(decay, 0.0, 1.0, jnp.array(1.0))
    np.testing.assert_allclose(sol.ys[0], decayed(1.0), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Adams(max_order=0), "1 to 12"),
        (lambda: Adams(max_order=13), "1 to 12"),
        (lambda: Adams(root_finder=optx.Newton(1e-3, 1e-3)), "FixedPointIteration"),
        (lambda: Adams(root_finder=optx.FixedPointIteration(1e-3, 1e-3, damp=0.5)), "undamped"),
        (lambda: AdamsController(None, None), "rtol"),
        (lambda: ExplicitAdams(max_order=3), "4 to 20"),
        (lambda: ExplicitAdams(max_order=21), "4 to 20"),
        (lambda: ImplicitAdams(max_iters=0), "at least 1"),
    ],
)
def test_bad_arguments_are_refused(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()


@pytest.mark.parametrize("solver", [ExplicitAdams(), ImplicitAdams()], ids=str)
def test_unequal_steps(solver):
    """Steps that grow, and halve in the middle: every one is of the order the solver says."""
    grid = np.concatenate([np.linspace(0, 0.8, 33) ** 2, np.linspace(0.64, 1, 41)[1:]])
    sol = Case(solver, diffrax.StepTo(jnp.asarray(grid)), None)(decay, 0.0, 1.0, jnp.array(1.0))
    np.testing.assert_allclose(sol.ys[0], decayed(1.0), atol=ERROR)


def test_defaults_are_stable():
    """h * lambda = -0.1 over 200 steps; torchdiffeq's order 12 would not be."""
    for solver in (ExplicitAdams(), ImplicitAdams()):
        case = Case(solver, diffrax.ConstantStepSize(), 0.1)
        sol = case(lambda t, y, args: -y, 0.0, 20.0, jnp.array(1.0))
        np.testing.assert_allclose(sol.ys[0], np.exp(-20), atol=1e-8)


def test_statistics_belong_to_our_controller():
    saveat = diffrax.SaveAt(t1=True, solver_state=True, controller_state=True)
    sol = PID(decay, 0.0, 1.0, jnp.array(1.0), saveat=saveat)
    with pytest.raises(ValueError, match="AdamsController"):
        statistics(sol)
    assert statistics(ADAMS(decay, 0.0, 1.0, jnp.array(1.0), saveat=saveat))["nfe"] > 0


def test_no_private_module_of_diffrax():
    """What is offered upstream stands on the public interface."""
    for path in pathlib.Path(jax_node.adams.__file__).parent.glob("*.py"):
        assert "diffrax._" not in path.read_text(), path
