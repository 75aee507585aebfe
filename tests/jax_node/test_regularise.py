"""Penalties against quadrature of the exact dynamics, and their gradients, in float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_node.adjoint import Backward
from jax_node.classify import learner as make
from jax_node.regularise import Regulariser, regulariser, solve_penalised
from jax_node.solve import solve

T1 = 1.5
TS = jnp.array([0.0, T1])
MATRIX = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)))
Y0 = jnp.asarray(np.random.default_rng(1).normal(size=(1, 1, 2, 3)))  # a batch of two
PROBE = jnp.asarray(np.random.default_rng(2).choice([-1.0, 1.0], size=Y0.shape))


def field(t, y, matrix):
    return jnp.tanh(y @ matrix) * (1 + t)


def penalties(matrix, y0=Y0, probe=PROBE, backward=None, **options):
    solver = functools.partial(solve, **{"solver": "dopri5", "max_steps": 512} | options)
    solution, found = solve_penalised(solver, field, y0, TS, matrix, probe=probe, backward=backward)
    return solution, found


def by_quadrature(probe):
    """Both integrals by 16 Gauss points on the trajectory, with the Jacobian written out."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    ts = jnp.asarray(np.concatenate([[0], (nodes + 1) * T1 / 2, [T1]]))
    ys = solve(field, Y0, ts, MATRIX, solver="dopri5", rtol=1e-12, atol=1e-12).ys[1:-1, 0, 0]
    f = jax.vmap(jax.vmap(field, (None, 0, None)), (0, 0, None))
    J = jax.vmap(jax.vmap(jax.jacobian(field, 1), (None, 0, None)), (0, 0, None))
    pulled = jnp.einsum("bi,tbij->tbj", probe[0, 0], J(ts[1:-1], ys, MATRIX))
    weights = weights * T1 / 2
    return [weights @ jnp.mean(x**2, (1, 2)) for x in (f(ts[1:-1], ys, MATRIX), pulled)]


def test_both_are_the_integrals():
    _, found = penalties(MATRIX, rtol=1e-10, atol=1e-10)
    # Local errors are held below tol; those of some dozen steps and the flow's growth: 1000 tol.
    np.testing.assert_allclose(
        [found["kinetic"], found["jacobian"]], by_quadrature(PROBE), rtol=1e-7
    )


def test_backwards_in_time_the_same_way_costs_the_same():
    """From the end to the start: not minus the penalty, which a loss would reward."""
    solver = functools.partial(solve, solver="dopri5", rtol=1e-10, atol=1e-10, max_steps=512)
    there, found = solve_penalised(solver, field, Y0, TS, MATRIX, probe=PROBE)
    _, back = solve_penalised(solver, field, there.ys[-1], TS[::-1], MATRIX, probe=PROBE)
    for name, value in found.items():  # tolerance as above
        np.testing.assert_allclose(back[name], value, rtol=1e-7)


def test_the_mean_over_all_probes_is_the_frobenius_norm():
    signs = jnp.array(list(itertools.product([-1.0, 1.0], repeat=3)))
    y0 = jnp.broadcast_to(Y0[:, :, :1], (1, 1, 8, 3))
    _, found = penalties(MATRIX, y0, signs[None, None], solver="rk4", step_size=T1)
    # One step of Kutta's 3/8 rule, by hand.
    y, total = Y0[0, 0, 0], 0.0
    stages = []
    for c, a in ((0, []), (1 / 3, [1 / 3]), (2 / 3, [-1 / 3, 1]), (1, [1, -1, 1])):
        at = y + T1 * sum((w * k for w, k in zip(a, stages, strict=True)), jnp.zeros(3))
        f = lambda y, t=c * T1: field(t, y, MATRIX)
        stages.append(f(at))
        weight = T1 * (1 if c in (0, 1) else 3) / 8
        total += weight * jnp.sum(jax.jacobian(f)(at) ** 2) / 3
    np.testing.assert_allclose(found["jacobian"], total, rtol=1e-13)


@pytest.mark.parametrize("adjoint", ["direct", "checkpoint", "adjoint"])
def test_the_solve_is_the_one_without_penalties(adjoint):
    """Same steps, forwards and backwards: the step size control sees `y` alone."""
    options = {"solver": "dopri5", "rtol": 1e-6, "atol": 1e-6, "adjoint": adjoint, "max_steps": 64}

    def penalised(y0, backward):
        solution, _ = penalties(MATRIX, y0, backward=backward, **options)
        return jnp.sum(solution.ys[-1] ** 2), solution

    def plain(y0, backward):
        solution = solve(field, y0, TS, MATRIX, backward=backward, **options)
        return jnp.sum(solution.ys[-1] ** 2), solution

    found, expected = (
        jax.jit(jax.grad(loss, (0, 1), has_aux=True))(Y0, Backward.zeros())
        for loss in (penalised, plain)
    )
    (gradient, backward), solution = found
    (expected_gradient, expected_backward), expected_solution = expected
    assert int(solution.nfe) == int(expected_solution.nfe)
    assert int(backward.nfe) == int(expected_backward.nfe) > 0
    # The same operations in another program: rounding.
    np.testing.assert_allclose(solution.ys, expected_solution.ys, rtol=1e-13)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-11)


@pytest.mark.parametrize(
    ("options", "bound"),
    [
        # The gradient of the discretised integrals themselves; central differences of step 1e-5
        # err by 1e-10 f''' + eps / 1e-5, with f''' < 100 here.
        ({"solver": "rk4", "step_size": 0.25, "adjoint": "direct"}, 1e-8),
        ({"solver": "rk4", "step_size": 0.25, "adjoint": "checkpoint"}, 1e-8),
        # Backwards the tolerance holds local errors: up to 1000 tol, as above.
        ({"solver": "dopri5", "rtol": 1e-10, "atol": 1e-10, "adjoint": "adjoint"}, 1e-7),
    ],
)
def test_gradients_are_those_of_finite_differences(options, bound):
    def loss(matrix, y0):
        solution, found = penalties(matrix, y0, **options)
        return found["kinetic"] + 0.3 * found["jacobian"] + 0.1 * jnp.sum(solution.ys[-1] ** 2)

    value, gradients = jax.jit(loss), jax.jit(jax.grad(loss, (0, 1)))(MATRIX, Y0)
    rng = np.random.default_rng(3)
    for _ in range(3):
        along = [jnp.asarray(rng.normal(size=a.shape)) for a in (MATRIX, Y0)]
        ahead, behind = (value(MATRIX + h * along[0], Y0 + h * along[1]) for h in (1e-5, -1e-5))
        slope = sum(jnp.sum(g * a) for g, a in zip(gradients, along, strict=True))
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=bound, atol=bound)


def test_probes_are_signs_new_in_each_step_and_the_same_again():
    penalty = regulariser(0.0, 0.1, seed=7)
    draw = lambda penalty, steps: penalty.options(jnp.array(steps))["draw_probe"](
        jnp.zeros((50, 4))
    )
    first = draw(penalty, 0)
    assert set(np.unique(first)) == {-1.0, 1.0}
    np.testing.assert_array_equal(first, draw(penalty, 0))
    assert np.any(first != draw(penalty, 1))
    assert np.any(first != draw(regulariser(0.0, 0.1, seed=8), 0))
    assert regulariser(0.1, 0.0, seed=7).options(jnp.array(0))["draw_probe"] is None


def test_weights_of_zero_are_no_penalty():
    assert regulariser(0.0, 0.0, seed=0) is None
    assert (
        Regulariser(2.0, 0.5, 0).cost({"kinetic": jnp.array(3.0), "jacobian": jnp.array(4.0)}) == 8
    )
    with pytest.raises(ValueError, match="resnet1 solves no ODE"):
        make(
            model="resnet1", final_relu=True, downsampling="conv", solver=None, adjoint=None,
            rtol=1e-3, atol=1e-3, step_size=None, max_steps=64, optimizer="sgd", momentum=0.9,
            seed=0, precision="float32", device="cpu", kinetic_weight=0.1,
        )  # fmt: skip


def test_a_penalised_learner_resumes_bit_for_bit(tmp_path):
    options = {
        "model": "odenet", "final_relu": True, "downsampling": "conv", "solver": "euler",
        "adjoint": "direct", "rtol": 1e-3, "atol": 1e-3, "step_size": 1.0, "max_steps": 4,
        "optimizer": "sgd", "momentum": 0.9, "precision": "float32", "device": "cpu",
        "kinetic_weight": 0.1, "jacobian_weight": 0.1,
    }  # fmt: skip
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1), np.uint8)
    batch = {"images": images, "labels": np.array([3, 7])}
    learner = make(**options, seed=0)
    before = learner.train_step(batch, 0.1)
    learner.save(tmp_path / "state")
    after = learner.train_step(batch, 0.1)
    # A norm ends the field: one Euler step has |f|^2 / n = 1 until that norm's scale has moved.
    assert before["kinetic"] == pytest.approx(1, abs=1e-3)
    assert before["jacobian"] != after["jacobian"] > 0
    again = make(**options, seed=0)
    again.load(tmp_path / "state")
    assert again.train_step(batch, 0.1) == after
