"""The adaptive Adams method: accuracy, cost, gradients, and every part of diffrax it must fit."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
import scipy.integrate

from jax_node.adams import Adams, AdamsController, statistics

EVERYTHING = diffrax.SaveAt(t1=True, solver_state=True, controller_state=True)


def solve(field, y0, t1=1.0, tol=1e-6, args=None, t0=0.0, saveat=EVERYTHING, **options):
    options.setdefault("stepsize_controller", AdamsController(rtol=tol, atol=tol))
    solver = options.pop("solver", Adams())
    return diffrax.diffeqsolve(
        diffrax.ODETerm(field), solver, t0, t1, None, y0, args, saveat=saveat, **options
    )


def orbit(t, y, args):
    """Kepler's problem, eccentricity 0.5, period 2 pi."""
    r3 = (y[0] ** 2 + y[1] ** 2) ** 1.5
    return jnp.stack([y[2], y[3], -y[0] / r3, -y[1] / r3])


def orbit_in_numpy(t, y):
    r3 = (y[0] ** 2 + y[1] ** 2) ** 1.5
    return np.array([y[2], y[3], -y[0] / r3, -y[1] / r3])


def by_dop853(field, y0, t1, ts=None):
    """An independent solution, to some 1e-12: at `ts`, or at `t1`."""
    found = scipy.integrate.solve_ivp(
        field, (0, t1), y0, method="DOP853", rtol=1e-13, atol=1e-13, t_eval=ts
    )
    return found.y.T if ts is not None else found.y[:, -1]


ORBIT = np.array([0.5, 0.0, 0.0, 3**0.5])


@pytest.fixture(scope="module")
def orbits():
    """Error and statistics of two periods at ten tolerances."""
    compiled = jax.jit(lambda tol: solve(orbit, jnp.asarray(ORBIT), 4 * np.pi, tol))
    out = {}
    for tol in 10.0 ** -np.arange(3, 13):
        sol = compiled(tol)
        out[tol] = (float(jnp.max(jnp.abs(sol.ys[0] - ORBIT))), statistics(sol))
    return out


def test_error_is_proportional_to_tolerance(orbits):
    """Over nine decades; an error in energy shifts the phase, by some thousand times here."""
    tols, errors = np.array(list(orbits)), np.array([error for error, _ in orbits.values()])
    slope, _ = np.polyfit(np.log10(tols), np.log10(errors), 1)
    assert 0.9 < slope < 1.15
    assert np.all(errors[2:] / tols[2:] < 1e4)


def test_fewer_evaluations_than_vode_and_dopri5_at_equal_error(orbits):
    def cost(method):
        tols, costs = 10.0 ** -np.arange(6, 12), []
        for tol in tols:
            calls = 0

            def field(t, y):
                nonlocal calls
                calls += 1
                return orbit_in_numpy(t, y)

            if method == "vode":
                ode = scipy.integrate.ode(field).set_integrator(
                    "vode", method="adams", rtol=tol, atol=tol, nsteps=10**5
                )
                y = ode.set_initial_value(ORBIT).integrate(4 * np.pi)
            else:
                y = scipy.integrate.solve_ivp(
                    field, (0, 4 * np.pi), ORBIT, method=method, rtol=tol, atol=tol
                ).y[:, -1]
            costs.append((np.max(np.abs(y - ORBIT)), calls))
        return np.array(costs)

    ours = np.array([(e, stats["nfe"]) for e, stats in orbits.values()])
    for method in ("vode", "LSODA", "RK45"):
        theirs = cost(method)
        order = np.argsort(theirs[:, 0])
        for error, nfe in ours[(ours[:, 0] < 1e-5) & (ours[:, 0] > theirs[:, 0].min())]:
            at_equal_error = np.exp(
                np.interp(np.log(error), np.log(theirs[order, 0]), np.log(theirs[order, 1]))
            )
            assert nfe < at_equal_error, (method, error)


def test_order_rises_with_accuracy(orbits):
    orders = [int(stats["highest_order"]) for _, stats in orbits.values()]
    assert orders[-1] == 12
    assert all(stats["contraction"] < 1 for _, stats in list(orbits.values())[3:])


def test_counts_real_evaluations():
    """Against a host callback: first step size, rejected steps, steps from a jump and all.

    Without a jump: test_nfe_are_those_really_made in tests/jax_node/test_solve.py.
    """
    calls = []

    def field(t, y, args):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.where(t < 0.5, 1.0, -1.0) * jnp.cos(20 * t) - y**3

    controller = AdamsController(rtol=1e-6, atol=1e-6)
    controller = diffrax.ClipStepSizeController(controller, jump_ts=jnp.array([0.5]))
    sol = jax.jit(lambda y: solve(field, y, stepsize_controller=controller))(jnp.array([1.0]))
    jax.block_until_ready(sol.ys)
    jax.effects_barrier()
    assert len(calls) == statistics(sol)["nfe"]
    assert sol.stats["num_rejected_steps"] > 0


def test_a_jump_restarts():
    """A field that changes sign: declared, the solve meets it exactly and needs fewer steps."""

    def field(t, y, args):
        return jnp.where(t < 0.5, 1.0, -2.0) * y

    controller = AdamsController(rtol=1e-8, atol=1e-8)
    declared = diffrax.ClipStepSizeController(controller, jump_ts=jnp.array([0.5]))
    exact = np.exp(0.5 - 1.0)
    steps = []
    # Undeclared, the jump is crossed at the price of some tolerances.
    for c, error in ((declared, 1e-7), (controller, 1e-6)):
        sol = solve(field, jnp.array(1.0), stepsize_controller=c)
        np.testing.assert_allclose(sol.ys[0], exact, rtol=error)
        steps.append(sol.stats["num_steps"])
    assert steps[0] < steps[1]


def test_dense_output():
    """As accurate as the steps between them, meeting them with a continuous slope."""
    tol = 1e-8
    ts = np.linspace(0, 2 * np.pi, 400)
    sol = solve(
        orbit,
        jnp.asarray(ORBIT),
        ts[-1],
        tol,
        saveat=diffrax.SaveAt(ts=ts, dense=True),
        max_steps=1000,
    )
    exact = by_dop853(orbit_in_numpy, ORBIT, ts[-1], ts)
    assert np.max(np.abs(sol.ys - exact)) < 1e3 * tol

    steps = np.asarray(sol.interpolation.ts)
    steps = steps[np.isfinite(steps)][1:-1]
    either_side = 1e-5
    times = steps[10::10, None] + either_side * np.array([-1, 0, 1])
    ys = jax.vmap(sol.evaluate)(times.ravel()).reshape(*times.shape, 4)
    kinks = np.abs(ys[:, 2] - 2 * ys[:, 1] + ys[:, 0]) / either_side
    # The curvature, up to 16 at the perihelion, gives 2e-4; a kink would be the slope's jump.
    assert np.max(kinks) < 1e-3


POINT = (0.7, 1.3, 2.0)


def driven(p, tol, adjoint, times=True):
    """y(t1) of y' = sin(rate t) - y^2 in a PyTree, of p = (y0, rate, t1)."""
    y0, rate, t1 = p
    sol = solve(
        lambda t, y, rate: {"u": jnp.sin(rate * t) - y["u"] ** 2},
        {"u": y0},
        t1 if times else POINT[2],
        tol,
        rate,
        saveat=diffrax.SaveAt(t1=True),
        adjoint=adjoint,
        max_steps=256,
    )
    return sol.ys["u"][0]


@pytest.fixture(scope="module")
def finite_differences():
    """Central differences of a tight solve; the third derivative adds about h^2 / 6."""
    h = 1e-3
    points = np.array(POINT) + h * np.concatenate([np.eye(3), -np.eye(3)])
    field = lambda t, y, rate: np.sin(rate * t) - y**2
    ends = np.array(
        [by_dop853(lambda t, y, r=r: field(t, y, r), [y0], t1)[0] for y0, r, t1 in points]
    )
    return (ends[:3] - ends[3:]) / (2 * h)


# The other two: test_adjoints in test_interface.py, and by name in tests/jax_node/test_solvers.py.
@pytest.mark.parametrize(
    "adjoint",
    [diffrax.DirectAdjoint(), diffrax.BacksolveAdjoint()],
    ids=lambda adjoint: type(adjoint).__name__,
)
def test_gradients(adjoint, finite_differences):
    """In the state, the arguments and, where the adjoint can, the last time."""
    times = not isinstance(adjoint, diffrax.BacksolveAdjoint)
    slopes = jax.jit(jax.grad(lambda p: driven(p, 1e-9, adjoint, times)))(POINT)
    compared = 3 if times else 2
    np.testing.assert_allclose(slopes[:compared], finite_differences[:compared], atol=2e-6)


def test_vmap_is_a_loop():
    """Members of a batch choose their own steps and orders."""

    def one(rate):
        sol = solve(lambda t, y, rate: -rate * y, jnp.ones(2), args=rate)
        return sol.ys[0], statistics(sol)

    rates = jnp.array([0.1, 1.0, 10.0])
    together, counts = jax.jit(jax.vmap(one))(rates)
    alone = [jax.jit(one)(rate) for rate in rates]
    np.testing.assert_allclose(together, [y for y, _ in alone], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(counts["nfe"], [stats["nfe"] for _, stats in alone])


def test_float32():
    """Also far from zero, where times are as coarse as 1e-5."""
    y0 = {"a": jnp.ones(3, jnp.float32), "b": (jnp.zeros((2, 2), jnp.float32),)}
    field = lambda t, y, args: {"a": -y["a"], "b": (jnp.ones_like(y["b"][0]),)}
    compiled = jax.jit(lambda t0: solve(field, y0, t0 + 1, jnp.float32(1e-5), t0=t0).ys)
    for t0 in (0.0, 100.0):
        ys = compiled(jnp.float32(t0))
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(ys))
        np.testing.assert_allclose(ys["a"][0], np.exp(-1), atol=5e-5)
        np.testing.assert_allclose(ys["b"][0][0], 1, atol=5e-5)


def test_prescribed_steps():
    """Other controllers: test_interface.py."""
    sol = solve(
        lambda t, y, args: -y * jnp.cos(t),
        jnp.array([1.0]),
        solver=Adams(root_finder=optx.FixedPointIteration(1e-8, 1e-8)),
        stepsize_controller=diffrax.StepTo(jnp.linspace(0, 1, 101)),
    )
    # They start at order 1 whatever the tolerance: 2 steps of 0.01 err by 1e-5.
    np.testing.assert_allclose(sol.ys[0, 0], np.exp(-np.sin(1)), atol=1e-4)


@pytest.mark.parametrize("max_order", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_short_history_limits_the_order(max_order):
    sol = solve(lambda t, y, args: -y, jnp.array(1.0), solver=Adams(max_order=max_order))
    assert statistics(sol)["highest_order"] == max_order
    assert jax.tree.leaves(sol.solver_state.differences)[0].shape == (max_order,)
    np.testing.assert_allclose(sol.ys[0], np.exp(-1), atol=1e-5)


FAILURES = {
    "stiff": (lambda t, y, args: -1e6 * (y - jnp.cos(t)), diffrax.RESULTS.max_steps_reached),
    "blows up": (lambda t, y, args: y**2, diffrax.RESULTS.dt_min_reached),
    "leaves its domain": (lambda t, y, args: -1 / jnp.sqrt(y), diffrax.RESULTS.dt_min_reached),
    "never finite": (lambda t, y, args: y * jnp.nan, diffrax.RESULTS.dt_min_reached),
    "not finite from 1/2 on": (
        lambda t, y, args: jnp.where(t < 0.5, -y, jnp.inf),
        diffrax.RESULTS.dt_min_reached,
    ),
    "chatters": (  # slides along y = 1 for ever, in steps of the tolerance
        lambda t, y, args: -jnp.sign(y - 1 + t / 9),
        diffrax.RESULTS.max_steps_reached,
    ),
}


@jax.jit
def fails(index):
    """Solve the field of that number; compiled once for all."""
    fields = [field for field, _ in FAILURES.values()]
    return solve(
        lambda t, y, index: jax.lax.switch(index, fields, t, y, None),
        jnp.array(1.1),
        t1=3.0,
        args=index,
        throw=False,
        max_steps=2000,
    ).result


@pytest.mark.parametrize("name", FAILURES)
def test_failures_end_in_a_result_code(name):
    assert fails(list(FAILURES).index(name)) == FAILURES[name][1]


@pytest.fixture(scope="module")
def empty():
    """A solve over an empty interval."""
    return solve(lambda t, y, args: -y, jnp.array([1.0]), t0=1.0, t1=1.0)


def test_zero_field_and_empty_interval(empty):
    sol = solve(lambda t, y, args: 0 * y, jnp.array([1.0, -2.0]), t1=1e3)
    np.testing.assert_array_equal(sol.ys[0], [1.0, -2.0])
    assert sol.stats["num_steps"] < 40
    np.testing.assert_array_equal(empty.ys[0], [1.0])


def test_unseen_switches():
    """A square wave that the solver is not told of: many restarts, and the right integral."""
    field = lambda t, y, args: jnp.where(jnp.floor(4 * t) % 2 == 0, 1.0, -0.5)
    sol = solve(field, jnp.array(0.0), t1=2.0, tol=1e-7)
    np.testing.assert_allclose(sol.ys[0], 0.5, atol=1e-5)


@pytest.mark.parametrize("missing", ["solver_state", "controller_state"])
def test_statistics_say_what_is_missing(missing, empty):
    without = eqx.tree_at(lambda sol: getattr(sol, missing), empty, None)
    with pytest.raises(ValueError, match=f"{missing}=True"):
        statistics(without)


def test_solves_go_on_from_a_saved_state():
    """Two halves, the second with the first one's history, cost little more than the whole."""
    field = diffrax.ODETerm(lambda t, y, args: -y * jnp.cos(t))
    controller = AdamsController(rtol=1e-8, atol=1e-8)

    @jax.jit
    def go_on(t0, t1, y0, dt0, state):
        return diffrax.diffeqsolve(
            field,
            Adams(),
            t0,
            t1,
            dt0,
            y0,
            stepsize_controller=controller,
            saveat=EVERYTHING,
            solver_state=state,
        )

    y0 = jnp.array([1.0])
    start = Adams().init(field, jnp.array(0.0), jnp.array(1e-4), y0, None)
    whole = go_on(0.0, 4.0, y0, 1e-4, start)
    first = go_on(0.0, 2.0, y0, 1e-4, start)
    second = go_on(2.0, 4.0, first.ys[0], first.solver_state.step, first.solver_state)
    np.testing.assert_allclose(second.ys[0], np.exp(-np.sin(4.0)), atol=1e-7)
    assert int(statistics(second)["nfe"]) < 1.25 * int(statistics(whole)["nfe"])
