"""What cannot be solved is refused in a sentence, or marked; what can be solved is solved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import SLOPES_AT

from jax_node.solve import SolveError, rms, solve

ONE = jnp.ones(1)
EXP = np.exp(-1)


def decay(t, y, rate):
    return jax.tree.map(lambda y: -y, y)


def run(field=decay, y0=ONE, ts=(0.0, 1.0), args=None, *, solver="dopri5", **options):
    return solve(field, y0, list(ts), args, solver=solver, **options)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ts": [0, 1, 0.5, 2]}, r"strictly increasing.* times 1 and 2 are 1 and 0.5"),
        ({"ts": [0, 1, 1]}, r"times 1 and 2 are 1 and 1: count time from another origin"),
        ({"ts": [0, 0, 1]}, r"times 0 and 1 are 0 and 0"),
        ({"ts": [0, np.nan, 1]}, r"`ts` is not finite at index 1"),
        ({"ts": [0, np.inf]}, r"`ts` is not finite at index 1"),
        ({"ts": [0.0]}, r"at least two times"),
        ({"ts": None}, r"`ts` is NoneType"),
        ({"ts": np.array([0, None])}, r"`ts` is object: .* float32 or float64"),
        ({"y0": 2**70}, r"`y0` is int"),
        ({"rtol": "tight"}, r"`rtol` is 'tight': give one number"),
        ({"atol": np.ones(2)}, r"`atol` is .* give one number"),
        ({"jump_ts": "noon"}, r"`jump_ts` is not finite"),
        ({"solver": "rk4", "step_size": np.ones(1)}, r"`step_size` is .* give one number"),
        ({"args": 1j, "adjoint": "adjoint"}, r"some of `args` is complex"),
        ({"ts": [1j, 2j]}, r"`ts` is complex"),
        ({"y0": jnp.ones(1, jnp.float16)}, r"`y0` is float16"),
        ({"y0": {"a": jnp.ones(1, jnp.bfloat16)}}, r"`y0\['a'\]` is bfloat16"),
        ({"y0": 1j}, r"`y0` is complex128.*real and imaginary"),
        ({"y0": "one"}, r"`y0` is str"),
        ({"y0": ()}, r"`y0` has no numbers"),
        ({"rtol": -1e-3}, r"`rtol` is -0.001"),
        ({"atol": np.nan}, r"`atol` is nan"),
        ({"rtol": 0, "atol": 0}, r"both 0"),
        ({"max_steps": 0}, r"`max_steps` is 0"),
        ({"dtmax": 0}, r"`dtmax` is 0"),
        ({"jump_ts": [np.nan]}, r"`jump_ts` is not finite"),
        ({"step_size": 0.1}, r"leave out `step_size`"),
        ({"solver": "rk4"}, r"as `step_size`"),
        ({"solver": "rk4", "step_size": 0.1, "dtmax": 1}, r"leave out `dtmax`"),
        ({"solver": "rk4", "step_size": 0.1, "jump_ts": [1]}, r"leave out `jump_ts`"),
        *(
            ({"solver": "rk4", "step_size": size}, r"`step_size` is .* above 0")
            for size in (-0.1, 0, np.inf, np.nan)
        ),
        ({"solver": "rk45"}, r"unknown `solver` 'rk45'"),
        ({"adjoint": "backprop"}, r"unknown `adjoint` 'backprop'"),
        ({"field": lambda t, y, _: y[:, None]}, r"the field returns float64\[1, 1\] for `y0`"),
        ({"field": lambda t, y, _: (y,)}, r"structure of `y0`"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("_no_type_checks")
def test_refused_in_a_sentence(given, message):
    usual = {"field": decay, "y0": ONE, "ts": [0.0, 1.0], "solver": "dopri5"}
    with pytest.raises(ValueError, match=message) as error:
        solve(**usual | given)
    assert "\n" not in str(error.value)
    assert "--" not in str(error.value)  # a library has parameters, and no flags


def test_what_only_a_trace_knows_ends_in_ok():
    program = jax.jit(
        lambda ts, step_size: solve(
            decay, ONE, ts, solver="euler", step_size=step_size, max_steps=16
        )
    )
    good = [0, 0.25, 0.5, 1.0]
    for ts, step_size, message in (
        ([0, 0.5, 0.25, 1.0], 0.1, "`ts`"),
        ([0, np.nan, 0.5, 1.0], 0.1, "`ts`"),
        ([0, 0.5, 0.5, 1.0], 0.1, "`ts`"),
        *((good, size, "`step_size`") for size in (-0.1, 0.0, np.inf, np.nan, 1e-17)),
    ):
        solution = program(jnp.asarray(ts), step_size)
        assert not solution.ok
        assert np.isnan(solution.ys).all()
        with pytest.raises(SolveError, match=f"refused: .*{message}"):
            solution.check()
    solution = program(jnp.asarray(good), 0.05)
    # 16 steps end at 0.8: what was not reached is NaN, and no state of another time.
    assert not solution.ok
    np.testing.assert_array_equal(np.isnan(solution.ys[:, 0]), [False, False, False, True])
    assert program(jnp.asarray(good), 0.125).check().ok


@pytest.mark.parametrize("y0", [1, True, [1, 1], jnp.ones(1, jnp.int32), 1.0])
def test_numbers_that_are_no_floats_become_floats(y0):
    for leaf in jax.tree.leaves(run(y0=y0, rtol=1e-6, atol=1e-6).check().ys):
        assert leaf.dtype == jnp.float64
        np.testing.assert_allclose(leaf[-1], EXP, rtol=1e-5)


def test_times_keep_their_resolution():
    """A state in float32 and unix times in float64; the field gets them as they are."""
    ts = 1.7e9 + np.array([0, 0.5, 1.0])
    field = lambda t, y, _: -y * jnp.where(t > 0, 1, jnp.nan).astype(y.dtype)
    solution = run(field, jnp.ones(1, jnp.float32), ts, rtol=1e-6, atol=1e-6).check()
    assert solution.ys.dtype == jnp.float32
    np.testing.assert_allclose(solution.ys[:, 0], np.exp([0, -0.5, -1.0]), rtol=1e-5)
    for unresolved in (ts, [2**24 + 1, 2**24 + 11]):  # the latter 12 apart in float32
        with jax.enable_x64(False), pytest.raises(ValueError, match="or use float64"):
            solve(decay, np.ones(1, np.float32), unresolved, solver="dopri5")


def test_what_is_known_of_a_field_may_be_a_python_number():
    ys = run(lambda t, y, _: 1, 0.0, jump_ts=[]).check().ys
    np.testing.assert_allclose(ys[-1], 1, rtol=1e-12)  # every method is exact in lines


@pytest.mark.parametrize("solver", ["dopri5", "dopri8", "bosh3", "adams"])
@pytest.mark.parametrize("ts", [(0.0, 1.0), (1.0, 0.0)])
def test_no_field_is_asked_outside_of_its_times(solver, ts):
    """`sqrt` is not defined below 0; a flat start makes for long trial steps."""
    field = lambda t, y, ends: jnp.sqrt(jnp.abs(ends[0] - ends[1]) - jnp.abs(t - ends[0])) + 0 * y
    ys = run(field, jnp.zeros(1), ts, ts, solver=solver, rtol=1e-6, atol=1e-6).check().ys
    # The square root limits the order at the end: within 1e-3 of 2/3.
    np.testing.assert_allclose(np.abs(ys[-1]), 2 / 3, atol=1e-3)


def test_the_smallest_step_is_that_of_the_present_time():
    field = lambda t, y, _: 50 * (1 - y) * jnp.exp(-t)
    ts = jnp.array([0, 1e5], jnp.float32)
    y = solve(field, jnp.zeros(1, jnp.float32), ts, solver="dopri5").check().ys[-1]
    np.testing.assert_allclose(y, 1, atol=1e-3)


@pytest.mark.parametrize(
    ("field", "options", "message", "attempts"),
    [
        (lambda t, y, _: y * jnp.nan, {}, r"t = 0 after 1 steps.*not finite", 1),
        (lambda t, y, _: y + jnp.where(t > 0.5, jnp.nan, 0), {}, r"t = 0\.(5|49).*not finite", 60),
        (lambda t, y, _: y + jnp.where(t > 0.5, jnp.nan, 0),
         {"solver": "rk4", "step_size": 0.1}, r"t = 0\.5 after 6 steps.*not finite", 6),
        (lambda t, y, _: 100 * y**2, {}, r"t = 0\.01.*blows up", 200),
        (lambda t, y, _: -1e9 * (y - jnp.cos(t)), {"max_steps": 50}, r"`max_steps` .*`rtol`", 50),
        (decay, {"solver": "rk4", "step_size": 0.01, "max_steps": 50},
         r"t = 0\.5 after 50 steps.*enlarge `step_size`", 50),
        (lambda t, y, _: y * jnp.nan, {"solver": "adams"}, r"t = 0 .*not finite", 20),
    ],
)  # fmt: skip
def test_a_failure_says_why_and_where_at_once(field, options, message, attempts):
    solution = run(field, **options)
    assert int(solution.accepted + solution.rejected) <= attempts
    assert np.isnan(solution.ys[-1])
    with pytest.raises(SolveError, match=message):
        solution.check()


def test_a_step_out_of_the_domain_is_made_smaller():
    """y' = -4 sqrt(y) is (1 - 2 t)^2 up to 1/2, and long steps make it negative."""
    field = lambda t, y, _: -4 * jnp.sqrt(y)
    y = run(field, ts=(0, 0.49), rtol=1e-8, atol=1e-8).check().ys[-1, 0]
    np.testing.assert_allclose(y, 0.02**2, rtol=1e-4)


PULSE = lambda t, y, height: jnp.where((t >= 5) & (t < 5.1), height, 0.0) * jnp.ones(1)


@pytest.mark.parametrize("solver", ["dopri5", "bosh3", "adams"])
@pytest.mark.parametrize(
    "ts", [(0.0, 3.0, 7.0, 10.0), (10.0, 5.1, 5.0, 0.0), (5.0, 5.03, 5.07, 5.1)]
)
def test_a_pulse_is_seen(solver, ts):
    exact = 0.1 if ts[0] < ts[-1] else -0.1
    for options in ({"jump_ts": [5.0, 5.1]}, {"dtmax": 0.05, "rtol": 1e-6, "atol": 1e-6}):
        ys = run(PULSE, jnp.zeros(1), ts, 1.0, solver=solver, **options).check().ys
        # A jump inside of a step costs as much as the tolerance allows, a dozen times.
        atol = 1e-12 if "jump_ts" in options else 2e-4
        np.testing.assert_allclose(ys[-1], exact, atol=atol)


@pytest.mark.parametrize("adjoint", ["checkpoint", "direct", "adjoint"])
def test_gradients_over_a_jump(adjoint):
    """y' = -y before 0 and a y after it."""
    field = lambda t, y, a: jnp.where(t > 0, a, -1.0) * y

    def end(y0, ts, a):
        options = {"rtol": 1e-9, "atol": 1e-9, "jump_ts": [0.0], "max_steps": 256}
        return solve(field, y0, ts, a, solver="dopri5", adjoint=adjoint, **options).ys[-1, 0]

    e = np.exp(1.0)
    found = jax.grad(end, (0, 1, 2))(ONE, jnp.array([-1.0, 1.0]), 2.0)
    for ours, exact in zip(found, ([e], [e, 2 * e], e), strict=True):
        np.testing.assert_allclose(ours, exact, rtol=1e-6)


# y' is 2, then -3, then 5, with no value at the jumps.
def slopes(t, y, _):
    slope = jnp.where(t < 1, 2.0, jnp.where(t < 2, -3.0, 5.0))
    return jnp.where((t == 1) | (t == 2), jnp.nan, slope) + 0 * y


@pytest.mark.parametrize("adjoint", ["checkpoint", "direct", "adjoint"])
@pytest.mark.parametrize(("ts", "at"), SLOPES_AT)
def test_gradients_of_times_over_jumps(adjoint, ts, at):
    weights = jnp.arange(1.0, len(ts) + 1)

    def loss(ts):
        options = {"rtol": 1e-9, "atol": 1e-9, "jump_ts": [1.0, 2.0], "max_steps": 256}
        ys = solve(slopes, ONE, ts, solver="dopri5", adjoint=adjoint, **options).ys
        return jnp.sum(weights * ys[:, 0])

    # y_i = y0 - f0 t0 + ... + f_i t_i
    expected = weights * jnp.array(at, float)
    expected = expected.at[0].set(-float(at[0]) * weights[1:].sum())
    found = jax.grad(loss)(jnp.array(ts, float))
    if adjoint == "checkpoint":  # takes the other side of a jump inside
        away = [i for i, t in enumerate(ts) if t not in (1, 2) or i in (0, len(ts) - 1)]
        found, expected = found[jnp.array(away)], expected[jnp.array(away)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)  # a step of 1e-6 divides by itself


def test_jumps_count_what_they_cost():
    calls = []

    def counting(t, y, height):
        jax.debug.callback(lambda: calls.append(1))
        return PULSE(t, y, height)

    solution = run(counting, jnp.zeros(1), (0.0, 10.0), 1.0, jump_ts=[5.0, 5.1])
    jax.effects_barrier()
    assert int(solution.nfe) == len(calls)


@pytest.mark.parametrize("adjoint", ["checkpoint", "direct", "adjoint"])
def test_a_solve_that_made_no_step_has_no_gradient(adjoint):
    """The first step is rejected and the last one allowed, or only a trace knows the times."""
    steep = lambda t, y, rate: -rate * (y - jnp.cos(t))

    @jax.jit
    def gradient(y0, ts, rate):
        how = {"adjoint": adjoint, "max_steps": 1}
        end = lambda *inputs: solve(steep, *inputs, solver="dopri5", **how).ys[-1, 0]
        return jax.grad(end, (0, 1, 2))(y0, ts, rate)

    for ts in ([0.0, 1.0], [0.0, 0.0]):
        for found in gradient(ONE, jnp.array(ts), 1e6):
            assert np.isnan(found).all()


@pytest.mark.parametrize("adjoint", ["checkpoint", "direct", "adjoint"])
def test_a_gradient_in_bfloat16_is_added_up_in_the_states_dtype(adjoint):
    """y' = a y: dy(1)/da = exp(a), by 1,000 steps that bfloat16 could not tell from none."""

    def end(a):
        how = {"adjoint": adjoint, "step_size": 1e-3, "max_steps": 1000}
        field = lambda t, y, a: a.astype(y.dtype) * y
        return run(field, args=a, solver="euler", **how).ys[-1, 0]

    found = jax.grad(end)(jnp.array(0.5, jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    # Euler's error is a step, rounding 2^-8.
    np.testing.assert_allclose(float(found), np.exp(0.5), rtol=2**-8 + 1e-3)


@pytest.mark.parametrize(("solver", "step_size"), [("rk4", 0.1), ("explicit_adams", 0.6)])
def test_steps_whose_ends_rounding_moves_are_refused(solver, step_size):
    """In float32 times about 1e6 are 1/16 apart: Adams methods took 0.5625 and 0.625 for 0.6."""
    ts, field = jnp.array([1e6, 1e6 + 20], jnp.float32), lambda t, y, _: jnp.cos((t - 1e6) / 5)
    how = {"solver": solver, "step_size": step_size}
    y0 = jnp.zeros((), jnp.float32)
    with pytest.raises(SolveError, match="above the spacing of floating point numbers"):
        solve(field, y0, ts, **how).check()
    solve(field, y0, ts.astype(jnp.float64), **how).check()


@pytest.mark.parametrize("solver", ["dopri5", "adams", "implicit_adams"])
def test_a_gradient_of_arguments_wider_than_the_state(solver):
    """By the adjoint it is solved for beside the state, in the widest dtype."""
    narrow = lambda *values: jnp.array(values, jnp.float32)

    def end(rate, adjoint):
        field = lambda t, y, rate: (-rate * y.astype(rate.dtype)).astype(y.dtype)
        ys = solve(
            field, narrow(1.0), narrow(0.0, 1.0), rate, solver=solver, adjoint=adjoint,
            rtol=1e-6, atol=1e-6, **({"step_size": 0.02} if solver == "implicit_adams" else {}),
        ).ys  # fmt: skip
        assert ys.dtype == jnp.float32
        return ys[-1, 0]

    found = jax.grad(end)(jnp.array(1.5), "adjoint")
    assert found.dtype == jnp.float64
    # The state and what the field returns are rounded to float32, in some hundred evaluations.
    assert found == pytest.approx(-np.exp(-1.5), abs=100 * float(np.finfo(np.float32).eps))

    def closed_over(rate):
        field = lambda t, y, _: (-rate * y.astype(rate.dtype)).astype(y.dtype)
        ys = solve(field, narrow(1.0), narrow(0.0, 1.0), solver="dopri5", adjoint="adjoint").ys
        return ys[-1, 0]

    with pytest.raises(ValueError, match=r"closes over float64 values .* give them in `args`"):
        jax.grad(closed_over)(jnp.array(1.5))


WIGGLE = lambda t, y, _: jnp.sin(20 * t) - y


@pytest.mark.parametrize("adjoint", ["checkpoint", "direct", "adjoint"])
def test_what_a_norm_closes_over_is_never_stale(adjoint):
    how = {"adjoint": adjoint, "max_steps": 128, "rtol": 1e-6, "atol": 1e-6}
    scale = 1.0

    def solved(scale):
        return run(WIGGLE, norm=lambda y: scale * rms(y), **how)

    same = lambda y: scale * rms(y)  # one function, which is read anew
    steps = [int(run(WIGGLE, norm=same, **how).accepted)]
    scale = 100.0
    steps.append(int(run(WIGGLE, norm=same, **how).accepted))
    assert steps[1] > steps[0]
    # Known to a trace only; the size of steps is not differentiated.
    assert [int(jax.jit(solved)(s).accepted) for s in (1.0, 100.0)] == steps
    assert jax.grad(lambda s: solved(s).ys[-1, 0])(1.0) == 0


@pytest.mark.usefixtures("_no_type_checks")
def test_a_norm_that_is_no_size_is_refused():
    for norm, found in (
        (jnp.abs, r"float64\[1\]"),
        (lambda y: None, "NoneType"),
        (lambda y: jax.lax.complex(rms(y), rms(y)), "complex128"),
        (lambda y: 1, "int64"),
    ):
        with pytest.raises(ValueError, match=f"`norm` returns {found}.*: return one real number"):
            run(norm=norm)
    assert not run(norm=lambda y: -rms(y)).ok
    # Every step would do, as it would by a norm that is the same for all states.
    for size in (0.0, 0.5):
        with pytest.raises(SolveError, match="`norm` larger for larger states"):
            run(norm=lambda y, size=size: size + 0 * rms(y)).check()
