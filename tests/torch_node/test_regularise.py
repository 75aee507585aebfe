"""The torch twin: gradients of the penalties, the solve left as it is, probes."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn

from torch_node.classify import learner as make
from torch_node.regularise import Regulariser, regulariser, solve_penalised
from torch_node.solve import solve

TS = torch.tensor([0.0, 1.5], dtype=torch.float64)
RNG = np.random.default_rng(0)
MATRIX, START = RNG.normal(size=(3, 3)), RNG.normal(size=(2, 3, 1, 1))
PROBE = torch.from_numpy(RNG.choice([-1.0, 1.0], size=START.shape))


class Field(nn.Module):
    def __init__(self, matrix=MATRIX) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor(matrix))

    def forward(self, t, y):
        return torch.tanh(torch.einsum("bchw,cd->bdhw", y, self.matrix)) * (1 + t)


def loss(matrix, start, options):
    field, y0 = Field(matrix), torch.tensor(start, requires_grad=True)
    solver = functools.partial(solve, **options)
    solution, found = solve_penalised(solver, field, y0, TS, probe=PROBE)
    value = found["kinetic"] + 0.3 * found["jacobian"] + 0.1 * solution.ys[-1].pow(2).sum()
    return value, field, y0


@pytest.mark.parametrize(
    ("options", "bound"),
    [
        # Exact for the discretised integrals; central differences of step 1e-5 err by
        # 1e-10 f''' + eps / 1e-5, with f''' < 100 here.
        ({"solver": "rk4", "step_size": 0.25, "adjoint": "direct"}, 1e-8),
        # Backwards the tolerance holds local errors: up to 1000 tol over some dozen steps.
        ({"solver": "dopri5", "rtol": 1e-10, "atol": 1e-10, "adjoint": "adjoint"}, 1e-7),
        # Euler's adjoint errs by C h, with C about 1 here; halving the step halves it.
        ({"solver": "euler", "step_size": 1.5e-2, "adjoint": "handwritten"}, 3e-2),
    ],
    ids=["direct", "adjoint", "handwritten"],
)
def test_gradients_are_those_of_finite_differences(options, bound):
    value, field, y0 = loss(MATRIX, START, options)
    value.backward()
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=MATRIX.shape), rng.normal(size=START.shape)
    ahead, behind = (loss(MATRIX + h * a, START + h * b, options)[0].item() for h in (1e-5, -1e-5))
    slope = (field.matrix.grad.numpy() * a).sum() + (y0.grad.numpy() * b).sum()
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=bound, atol=bound)


@pytest.mark.parametrize("adjoint", ["direct", "adjoint"])
def test_the_solve_is_the_one_without_penalties(adjoint):
    """Same steps, forwards and backwards: the step size control sees `y` alone."""
    options = {"solver": "dopri5", "rtol": 1e-6, "atol": 1e-6, "adjoint": adjoint}
    y0 = torch.tensor(START, requires_grad=True)
    plain = solve(Field(), y0, TS, **options)
    found, _ = solve_penalised(functools.partial(solve, **options), Field(), y0, TS, probe=PROBE)
    gradients = [torch.autograd.grad(s.ys[-1].pow(2).sum(), y0)[0] for s in (plain, found)]
    assert found.step_times == pytest.approx(plain.step_times, rel=1e-9)
    assert found.nfe == plain.nfe
    assert found.nfe_backward == plain.nfe_backward
    torch.testing.assert_close(found.ys, plain.ys, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_backwards_in_time_the_same_way_costs_the_same():
    """From the end to the start: not minus the penalty, which a loss would reward."""
    options = {"solver": "dopri5", "adjoint": "direct", "rtol": 1e-10, "atol": 1e-10}
    solver = functools.partial(solve, **options)
    there, found = solve_penalised(solver, Field(), torch.tensor(START), TS, probe=PROBE)
    _, back = solve_penalised(solver, Field(), there.ys[-1], TS.flip(0), probe=PROBE)
    for name, value in found.items():  # local errors below tol, some dozen steps: 1000 tol
        torch.testing.assert_close(back[name], value, rtol=1e-7, atol=0)


def test_without_gradients_wanted():
    with torch.no_grad():
        value, _, _ = loss(MATRIX, START, {"solver": "rk4", "step_size": 0.5, "adjoint": "direct"})
    assert not value.requires_grad


def test_probes_are_signs_new_in_each_step_and_the_same_again():
    draw = lambda seed, steps: regulariser(0.0, 0.1, seed).options(steps)["draw_probe"](
        torch.zeros(50, 4, 1, 1)
    )
    first = draw(7, 0)
    assert set(first.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(first, draw(7, 0))
    assert not torch.equal(first, draw(7, 1))
    assert not torch.equal(first, draw(8, 0))
    assert regulariser(0.1, 0.0, seed=7).options(0)["draw_probe"] is None


OPTIONS = {
    "final_relu": True, "downsampling": "conv", "rtol": 1e-3, "atol": 1e-3, "max_steps": 8,
    "optimizer": "sgd", "momentum": 0.9, "seed": 0, "precision": "float32", "device": "cpu",
}  # fmt: skip


def test_weights_of_zero_are_no_penalty():
    assert regulariser(0.0, 0.0, seed=0) is None
    assert (
        Regulariser(2.0, 0.5, 0).cost({"kinetic": torch.tensor(3.0), "jacobian": torch.tensor(4.0)})
        == 8
    )
    none = {"solver": None, "adjoint": None, "step_size": None}
    with pytest.raises(ValueError, match="resnet1 solves no ODE"):
        make(model="resnet1", **OPTIONS, **none, kinetic_weight=0.1)


def test_a_penalised_learner_resumes_bit_for_bit(tmp_path):
    options = OPTIONS | {
        "model": "odenet", "solver": "euler", "adjoint": "adjoint", "step_size": 1.0, "t1": 2.0,
        "kinetic_weight": 0.1, "jacobian_weight": 0.1,
    }  # fmt: skip
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1), np.uint8)
    batch = {"images": images, "labels": np.array([3, 7])}
    learner = make(**options)
    before = learner.train_step(batch, 0.01)
    learner.save(tmp_path / "state")
    after = learner.train_step(batch, 0.01)
    # A norm ends the field, so |f|^2 / n = 1 until its scale has moved; the integral goes to t1.
    assert before["kinetic"] == pytest.approx(2, abs=2e-3)
    assert before["nfe_forward"] == 2
    assert before["jacobian"] != after["jacobian"] > 0
    again = make(**options)
    again.load(tmp_path / "state")
    assert again.train_step(batch, 0.01) == after


@pytest.mark.parametrize("adjoint", ["adjoint", "handwritten"])
def test_a_tensor_that_the_adjoint_cannot_see_is_refused(adjoint):
    field, y0 = Field(), torch.tensor(START)
    field.outside = torch.ones(1, dtype=y0.dtype, requires_grad=True)  # is no nn.Parameter
    field.forward = lambda t, y: field.outside * Field.forward(field, t, y)
    solver = functools.partial(solve, solver="euler", step_size=0.5, adjoint=adjoint)
    solution, _ = solve_penalised(solver, field, y0, TS, probe=PROBE)
    with pytest.raises(ValueError, match=r"reads a tensor of shape \(1,\) that requires"):
        solution.ys[-1].sum().backward()
