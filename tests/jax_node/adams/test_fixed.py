"""Fixed-step Adams against torchdiffeq, and on its own."""

import warnings

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torchdiffeq

from jax_node.adams import ExplicitAdams, ImplicitAdams

RTOL, ATOL = 1e-7, 1e-9

# Every field is written once, for a namespace `xp` of jax.numpy or torch.
LINEAR = np.array([[-0.3, 1.0, 0.0], [-1.0, -0.3, 0.2], [0.1, 0.0, -0.2]])
PROBLEMS = {
    "linear": (lambda xp, t, y, p: p @ y, [1.0, 0.5, -0.3], 3.0, LINEAR),
    "forced": (
        lambda xp, t, y, p: p @ xp.sin(y) + xp.cos(3 * t),
        [1.0, 0.5, -0.3],
        2.0,
        LINEAR,
    ),
    "lotka_volterra": (
        lambda xp, t, y, p: xp.stack([y[0] * (p[0] - p[1] * y[1]), y[1] * (p[1] * y[0] - p[2])]),
        [1.0, 1.5],
        2.0,
        np.array([1.5, 1.0, 3.0]),
    ),
    "van_der_pol": (
        lambda xp, t, y, p: xp.stack([y[1], p[0] * (1 - y[0] ** 2) * y[1] - y[0]]),
        [2.0, 0.0],
        2.0,
        np.array([1.0]),
    ),
    "neural": (
        lambda xp, t, y, p: xp.tanh(p @ y + t),
        [0.1, -0.4, 0.8, 0.2],
        1.0,
        np.random.default_rng(0).normal(size=(4, 4)),
    ),
}
THEIRS = {"max_order": 12, "assume_equal_steps": True}
SOLVERS = {
    "explicit_adams": ExplicitAdams(**THEIRS),
    "implicit_adams": ImplicitAdams(**THEIRS, rtol=RTOL, atol=ATOL),
}
STABLE = (ExplicitAdams(), ImplicitAdams(rtol=RTOL, atol=ATOL))


DIMENSION = 4  # the largest; smaller states are padded, so that one compilation serves all


def padded_fields():
    def pad(field, size):
        return lambda t, y, p: jnp.pad(field(jnp, t, y[:size], p), (0, DIMENSION - size))

    return [pad(field, len(start)) for field, start, _, _ in PROBLEMS.values()]


def jax_loss(name, steps):
    """Return a jitted function of the problem's index, the state and all problems' parameters."""

    def field(t, y, args):
        index, parameters = args
        branches = [
            lambda t, y, f=f, p=p: f(t, y, p)
            for f, p in zip(padded_fields(), parameters, strict=True)
        ]
        return jax.lax.switch(index, branches, t, y)

    def loss(y0, parameters, index, t1):
        sol = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            SOLVERS[name],
            0.0,
            t1,
            t1 / steps,
            y0,
            (index, parameters),
            saveat=diffrax.SaveAt(steps=True, solver_state=True),
            max_steps=steps,
            adjoint=diffrax.DirectAdjoint(),
        )
        return jnp.sum(sol.ys**2), sol

    return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))


def in_torch(name, problem, steps, y0, parameters):
    """Return the trajectory after t0, the number of evaluations and of warnings."""
    field, _, t1, _ = PROBLEMS[problem]
    calls = 0

    def counted(t, y):
        nonlocal calls
        calls += 1
        return field(torch, t, y, parameters)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        grid = torch.linspace(0, t1, steps + 1, dtype=torch.float64)
        ys = torchdiffeq.odeint(counted, y0, grid, rtol=RTOL, atol=ATOL, method=name)
    return ys[1:], calls, sum("did not converge" in str(w.message) for w in caught)


@pytest.mark.parametrize("name", SOLVERS)
def test_trajectory_and_gradient_agree_with_torchdiffeq(name):
    """The methods are the same: what differs is rounding, amplified by weights up to thousands."""
    steps = 16
    compiled = jax_loss(name, steps)
    parameters = [jnp.asarray(problem[3]) for problem in PROBLEMS.values()]
    for index, (problem, (_, start, t1, own)) in enumerate(PROBLEMS.items()):
        y0 = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        p = torch.tensor(own, requires_grad=True)
        expected, calls, warned = in_torch(name, problem, steps, y0, p)
        torch.sum(expected**2).backward()

        padded = jnp.pad(jnp.array(start), (0, DIMENSION - len(start)))
        (by_y0, by_parameters), sol = compiled(padded, parameters, index, t1)

        scale = float(expected.detach().abs().max())
        ys = sol.ys[:, : len(start)]
        np.testing.assert_allclose(ys, expected.detach(), rtol=0, atol=1e-10 * scale)
        pairs = ((by_y0[: len(start)], y0.grad), (by_parameters[index], p.grad))
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9 * float(theirs.abs().max()))
        assert sol.solver_state.nfe == calls
        assert sol.solver_state.non_converged == warned


def test_non_convergence_is_counted():
    """The step times the Lipschitz constant exceeds what functional iteration contracts."""
    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: -8 * y),
        ImplicitAdams(),
        0.0,
        2.0,
        0.2,
        jnp.array([1.0]),
        saveat=diffrax.SaveAt(t1=True, solver_state=True),
    )
    assert sol.solver_state.non_converged == 8  # every step but the two of the start-up
    assert sol.solver_state.count == 2  # order cannot rise
    assert sol.solver_state.nfe == 2 * 4 + 8 * 5


TIGHT = {"rtol": 1e-13, "atol": 1e-13, "max_iters": 8}  # the corrector's iteration adds no error


@pytest.mark.parametrize(
    ("solver", "expected"),
    [
        (ExplicitAdams(max_order=4), 3),
        (ExplicitAdams(), 4),
        (ImplicitAdams(max_order=4, **TIGHT), 4),
        (ImplicitAdams(**TIGHT), 5),
        pytest.param(ImplicitAdams(max_order=8, **TIGHT), 5, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_global_order(solver, expected):
    @jax.jit
    def error(step):
        sol = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y * jnp.cos(t)),
            solver,
            0.0,
            1.0,
            step,
            1.0,
            saveat=diffrax.SaveAt(ts=jnp.linspace(0.5, 1, 5)),
        )
        return jnp.max(jnp.abs(sol.ys - jnp.exp(-jnp.sin(sol.ts))))

    assert np.log2(error(1 / 40) / error(1 / 80)) == pytest.approx(expected, abs=0.3)
    assert solver.order(None) == expected


@pytest.mark.parametrize("solver", STABLE)
def test_dense_output_is_cubic(solver):
    def error(steps):
        ts = np.linspace(0, 1, 37)
        sol = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y * jnp.cos(t)),
            solver,
            0.0,
            1.0,
            1 / steps,
            1.0,
            saveat=diffrax.SaveAt(ts=ts),
        )
        return np.max(np.abs(sol.ys - np.exp(-np.sin(ts))))

    assert np.log2(error(20) / error(40)) > 3.5


def test_counts_real_evaluations():
    """The counter against a host callback, over the start-up and the iteration."""
    calls = []

    def field(t, y, args):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.sin(y) + t

    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        ImplicitAdams(rtol=1e-4, atol=1e-6),
        0.0,
        1.0,
        0.1,
        jnp.array([0.3]),
        saveat=diffrax.SaveAt(t1=True, solver_state=True),
    )
    jax.block_until_ready(sol.ys)
    jax.effects_barrier()
    assert len(calls) == sol.solver_state.nfe


def test_float32_vmap_and_backwards_time():
    def solve(y0, solver):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: (y[0] * t, -y[1])),
            solver,
            jnp.float32(1.0),
            jnp.float32(0.0),
            jnp.float32(-0.05),
            (y0, y0),
        ).ys

    y0 = jnp.array([1.0, 2.0, 3.0], jnp.float32)
    for solver in STABLE:
        first, second = jax.vmap(lambda y, solver=solver: solve(y, solver))(y0)
        assert first.dtype == jnp.float32
        np.testing.assert_allclose(first[:, 0], np.asarray(y0) * np.exp(-0.5), rtol=1e-5)
        np.testing.assert_allclose(second[:, 0], np.asarray(y0) * np.exp(1.0), rtol=1e-5)


def test_a_jump_restarts_the_history():
    """y' = 1 before and -1 after the jump at 1/2: a history across it would be wrong."""
    solver = ExplicitAdams()
    term = diffrax.ODETerm(lambda t, y, args: jnp.where(t < 0.5, 1.0, -1.0))
    state = solver.init(term, 0.0, 0.1, jnp.array(0.0), None)
    y = jnp.array(0.0)
    step = jax.jit(lambda t, y, state, jump: solver.step(term, t, t + 0.1, y, None, state, jump))
    for i in range(10):
        y, _, _, state, _ = step(jnp.array(i / 10), y, state, jnp.array(i == 5))
    assert abs(y) < 1e-12
