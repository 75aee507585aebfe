"""The hand-written adjoint against autograd and against torchdiffeq."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from torch_node.adjoint import euler, flatten, odeint_adjoint, step_count, unflatten
from torch_node.blocks import VectorField
from torch_node.solve import solve


class Pendulum(nn.Module):
    """A driven, damped pendulum: theta = (damping, drive) and time both matter."""

    def __init__(self) -> None:
        super().__init__()
        self.damping = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.drive = nn.Parameter(torch.tensor([0.5, 1.7], dtype=torch.float64))

    def forward(self, t, z):
        angle, speed = z.unbind(-1)
        push = self.drive[0] * torch.cos(self.drive[1] * t)
        return torch.stack([speed, -torch.sin(angle) - self.damping * speed + push], dim=-1)


TIMES = (0.0, 0.8, 1.0, 2.0)


def gradients(how, max_step, times=TIMES):
    """Of a loss on all times, with respect to z0, ts and every theta."""
    field = Pendulum()
    z0 = torch.tensor([[1.0, 0.2], [-0.5, 0.9]], dtype=torch.float64, requires_grad=True)
    ts = torch.tensor(times, dtype=torch.float64, requires_grad=True)
    theta = tuple(field.parameters())
    if how == "handwritten":
        zs = odeint_adjoint(field, z0, ts, theta, max_step)
    elif how == "backpropagation":
        states = [z0]
        for i in range(1, len(ts)):
            states.append(euler(field, states[-1], ts[i - 1], ts[i], max_step))
        zs = torch.stack(states)
    else:
        tight = {"rtol": 1e-11, "atol": 1e-11}
        zs = solve(field, z0, ts, solver="dopri8", adjoint="adjoint", **tight).ys
    weights = torch.arange(1.0, zs.numel() + 1).reshape(zs.shape).double()
    return torch.autograd.grad((weights.sin() * zs**2).sum(), (z0, ts, *theta))


@pytest.mark.parametrize("times", [TIMES, TIMES[::-1]])
@pytest.mark.parametrize("other", ["backpropagation", "torchdiffeq"])
def test_first_order_in_the_step(other, times):
    """Each of z0, ts, theta: the difference halves with the step.

    The handwritten gradient and that of the steps are both Euler approximations of the same
    continuous gradient, g + C h + O(h^2) and g + C' h + O(h^2), so they differ by
    (C - C') h + O(h^2), and from torchdiffeq's tight one by C h + O(h^2): the slope is 1 + O(h).
    """
    steps = [0.2 / 2**k for k in range(3, 7)]
    exact = gradients(other, None, times) if other == "torchdiffeq" else None
    differences = []
    for h in steps:
        mine = gradients("handwritten", h, times)
        theirs = exact or gradients(other, h, times)
        differences.append([(a - b).norm().item() for a, b in zip(mine, theirs, strict=True)])
    for group in zip(*differences, strict=True):
        slopes = [math.log2(a / b) for a, b in zip(group[:-1], group[1:], strict=True)]
        # h = 1/320 at the last halving; the O(h) term of the slope has a constant of about 10.
        assert slopes[-1] == pytest.approx(1.0, abs=0.1), slopes


def test_one_linear_step_by_hand():
    """z' = theta z, one step h: z1 = z0 (1 + theta h); L = z1.

    Backwards, one Euler step from t1 = h: a = 1 + theta h, a_theta = h z1, and
    dL/dt1 = theta z1, dL/dt0 = -theta z1 (df/dt = 0).
    """
    theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    z0 = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    ts = torch.tensor([0.0, 0.25], dtype=torch.float64, requires_grad=True)
    zs = odeint_adjoint(lambda t, z: theta * z, z0, ts, (theta,), 1.0)
    z1 = 2.0 * (1 + 0.7 * 0.25)
    assert zs[-1].item() == pytest.approx(z1)
    dz0, dts, dtheta = torch.autograd.grad(zs[-1].sum(), (z0, ts, theta))
    assert dz0.item() == pytest.approx(1 + 0.7 * 0.25)
    assert dtheta.item() == pytest.approx(0.25 * z1)
    assert dts.tolist() == pytest.approx([-0.7 * z1, 0.7 * z1])


def test_an_observation_adds_its_gradient_where_it_is_made():
    """A loss on the middle time only sees no later dynamics."""
    field = Pendulum()
    z0 = torch.tensor([1.0, 0.2], dtype=torch.float64, requires_grad=True)
    ts = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    theta = tuple(field.parameters())
    zs = odeint_adjoint(field, z0, ts, theta, 0.1)
    middle = torch.autograd.grad(zs[1].sum(), (z0, ts, *theta))
    short = odeint_adjoint(field, z0, ts[:2], theta, 0.1)
    alone = torch.autograd.grad(short[1].sum(), (z0, ts, *theta))
    for a, b in zip(middle, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("t0", "t1", "max_step", "steps"),
    [(0.0, 1.0, 0.1, 10), (1.0, 0.0, 0.3, 4), (0.0, 0.3, 0.1, 3), (0.0, 1.0, 7.0, 1)],
)
def test_euler_steps(t0, t1, max_step, steps):
    times = []

    def field(t, y):
        times.append(t.item())
        return torch.ones_like(y)

    t = torch.tensor([t0, t1], dtype=torch.float64)
    y = euler(field, torch.zeros(1, dtype=torch.float64), t[0], t[1], max_step)
    assert step_count(t0, t1, max_step) == len(times) == steps
    assert abs(times[0] - t1) > abs(times[-1] - t1) or steps == 1
    assert y.item() == pytest.approx(t1 - t0)


def test_flatten_and_back():
    parts = [torch.rand(2, 3), torch.rand(()), torch.rand(4)]
    for a, b in zip(parts, unflatten(flatten(parts), parts), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 3e-4), (torch.float64, 1e-12)])
def test_the_mnist_field_against_the_same_euler_steps_in_torchdiffeq(dtype, bound):
    """torchdiffeq's adjoint with its Euler solver takes the same steps: equal but for rounding.

    A sum of 2 * 36 * 64 terms in another order is off by 5e3 roundings at the very worst: 3e-4 in
    float32, 5e-13 in float64.
    """
    torch.manual_seed(0)
    field = VectorField(64).to(dtype)
    x = torch.randn(2, 64, 6, 6, dtype=dtype, requires_grad=True)
    ts = torch.tensor([0.0, 1.0], dtype=dtype)
    found = {}
    for adjoint in ("handwritten", "adjoint"):
        solution = solve(field, x, ts, solver="euler", adjoint=adjoint, step_size=0.25)
        grads = torch.autograd.grad(solution.ys[-1].square().sum(), (x, *field.parameters()))
        found[adjoint] = torch.cat([g.reshape(-1) for g in grads])
        assert solution.nfe == 4
        assert solution.nfe_backward == 4
    error = (found["handwritten"] - found["adjoint"]).norm() / found["adjoint"].norm()
    assert error < bound


RATE = 3.0


def reconstruction(ts, z0=(2.0, -1.0), dtype=torch.float64, **options):
    """Of `z' = RATE z`, from its gradient."""
    z0 = torch.tensor(z0, dtype=dtype, requires_grad=True)
    ts = torch.tensor(ts, dtype=dtype)
    solution = solve(lambda t, z: RATE * z, z0, ts, params=(), **options)
    assert solution.reconstruction == 0
    solution.ys[-1].sum().backward()
    return solution.reconstruction


@pytest.mark.parametrize("ts", [(0.0, 1.0), (0.0, 1.0, 2.0), (1.0, 0.0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("solver", "adjoint", "coefficients"),
    [
        ("rk4", "adjoint", (1, 1, 1 / 2, 1 / 6, 1 / 24)),
        ("implicit_adams", "adjoint", (1, 1, 1 / 2, 1 / 6, 1 / 24)),  # its first step is rk4's
        ("euler", "adjoint", (1, 1)),
        ("euler", "handwritten", (1, 1)),
    ],
)
def test_reconstruction_of_one_step_is_what_the_polynomial_says(
    solver, adjoint, coefficients, ts, dtype
):
    """A step multiplies by R(RATE), R the method's polynomial; the step back by R(-RATE)."""
    power = lambda z: sum(c * z**k for k, c in enumerate(coefficients))
    expected = abs(power(RATE) * power(-RATE) - 1)
    found = reconstruction(ts, dtype=dtype, solver=solver, adjoint=adjoint, step_size=1.0)
    # R(-3) is a difference of numbers up to 4.5 times as large as itself; a few roundings each.
    assert found == pytest.approx(expected, rel=100 * torch.finfo(dtype).eps)


def test_reconstruction_falls_with_the_order_of_the_solver():
    """R(z) R(-z) = 1 + O(z^6), being even: over 1 / h steps the fifth power of h."""
    options = {"solver": "rk4", "adjoint": "adjoint"}
    coarse, fine = (reconstruction((0.0, 1.0), step_size=h, **options) for h in (1 / 16, 1 / 32))
    assert 28 < coarse / fine < 36


def test_a_gradient_through_the_steps_reconstructs_nothing():
    assert reconstruction((0.0, 1.0), solver="rk4", adjoint="direct", step_size=1.0) == 0


def test_a_state_of_zero_that_stays_is_reconstructed():
    options = {"solver": "rk4", "adjoint": "adjoint", "step_size": 1.0}
    assert reconstruction((0.0, 1.0), z0=(0.0, 0.0), **options) == 0


def test_an_adaptive_adjoint_reconstructs_to_its_tolerance():
    for tolerance in (1e-4, 1e-6, 1e-8):
        z0 = torch.tensor([[1.0, 0.2]], dtype=torch.float64, requires_grad=True)
        ts = torch.tensor(TIMES, dtype=torch.float64)
        options = {"solver": "dopri5", "rtol": tolerance, "atol": tolerance}
        solution = solve(Pendulum(), z0, ts, adjoint="adjoint", **options)
        solution.ys.sum().backward()
        assert 0 < solution.reconstruction < 100 * tolerance
