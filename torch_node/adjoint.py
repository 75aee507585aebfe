"""The adjoint sensitivity method by hand: Chen et al. (2018), appendices B and C, line by line.

We want the gradients of a loss L(z(t_0), ..., z(t_N)) where dz/dt = f(z, t, theta), without
storing what the solver did on its way forward. The paper's symbols are kept (equation numbers are
those of arXiv:1806.07366v5):

    z(t)        the state                              zs[i]     = z(t_i)
    a(t)        the adjoint dL/dz(t), eq. 34           dL_dzs[i] = how L depends on zs[i] directly
    a_theta(t)  the adjoint of the parameters, eq. 48  (theta seen as a state that stands still)
    a_t(t)      the adjoint of time, eq. 48            (t seen as a state that moves at speed 1)

The solver is Euler's method, so that nothing is hidden; `euler` is six lines. Everything else is
`EulerAdjoint.backward`.

What to expect of the gradients: they solve a *differential equation* for the gradient with Euler's
method (optimise-then-discretise). Backpropagating through the forward Euler steps instead
(discretise-then-optimise) gives the exact gradient of the computed loss. Both are first-order
approximations of the same thing, so they differ by O(h) for a step h: halving the step halves the
difference. Part of the difference is that z(t) is solved backwards again from zs[i], and one Euler
step back does not undo one Euler step forward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from torch_node.once import once_differentiable

Field = Callable[[Tensor, Tensor], Tensor]


def step_count(t0: float, t1: float, max_step: float) -> int:
    """How many equal steps of at most `max_step` lead from t0 to t1: ceil(|t1 - t0| / max_step).

    The quotient may exceed a whole number by rounding alone (0.3 / 0.1 in float32); that does not
    buy another step.
    """
    quotient = abs(t1 - t0) / max_step
    return max(1, math.ceil(min(quotient, 1e18) * (1 - 1e-6)))


def euler(
    field: Field,
    y0: Float[Tensor, "*state"],
    t0: Float[Tensor, ""],
    t1: Float[Tensor, ""],
    max_step: float,
) -> Float[Tensor, "*state"]:
    """y(t1) by Euler's method, y <- y + h f(t, y), in equal steps of at most `max_step`.

    The last step lands on t1, which may lie before t0 (h is then negative). Everything is a torch
    operation, so backpropagation through the steps works too, t0 and t1 included. As in
    torchdiffeq, `field.callback_step(t, y, h)` is called before a step, if there is one.
    """
    steps = step_count(t0.item(), t1.item(), max_step)
    h = (t1 - t0) / steps
    y, before_step = y0, getattr(field, "callback_step", lambda t, y, h: None)
    for k in range(steps):
        t = t0 + k * h
        before_step(t, y, h)
        y = y + h * field(t, y)
    return y


def flatten(parts: Sequence[Tensor]) -> Float[Tensor, " size"]:
    """Tensors of any shapes as one vector, as appendix B.2 writes the augmented state."""
    return torch.cat([part.reshape(-1) for part in parts])


def unflatten(vector: Float[Tensor, " size"], like: Sequence[Tensor]) -> list[Tensor]:
    """The inverse of `flatten`: the vector cut into tensors shaped as those of `like`."""
    pieces = vector.split([part.numel() for part in like])
    return [piece.reshape(part.shape) for piece, part in zip(pieces, like, strict=True)]


class EulerAdjoint(torch.autograd.Function):
    """zs = Euler's method forward; the adjoint method (appendix C, algorithm 2) backward."""

    @staticmethod
    def forward(
        ctx: Any, field: Field, max_step: float, ts: Tensor, z0: Tensor, *theta: Tensor
    ) -> Tensor:
        """Solve from ts[0] on; z(ts[i]) for every i, and nothing in between, is kept."""
        states = [z0]
        for i in range(1, len(ts)):
            states.append(euler(field, states[-1], ts[i - 1], ts[i], max_step))
        zs = torch.stack(states)
        ctx.field, ctx.max_step = field, max_step
        ctx.save_for_backward(ts, zs, *theta)
        return zs

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        """Gradients for ts, z0 and theta: one augmented solve for every interval, last first."""
        (dL_dzs,) = grad_outputs
        ts, zs, *theta = ctx.saved_tensors
        field, max_step = ctx.field, ctx.max_step

        def aug_dynamics(t: Tensor, s: Tensor) -> Tensor:
            """d/dt [z, a, a_theta, a_t] = [f, -a df/dz, -a df/dtheta, -a df/dt], eq. 47-50."""
            z, a = unflatten(s, shapes)[:2]
            with torch.enable_grad():
                z, t = z.detach().requires_grad_(), t.detach().requires_grad_()
                f = field(t, z)
                # -a df/d(z, t, theta) as one vector-Jacobian product; no Jacobian is ever formed.
                da_dt, da_t_dt, *da_theta_dt = torch.autograd.grad(
                    f, (z, t, *theta), grad_outputs=-a, allow_unused=True, materialize_grads=True
                )
            return flatten([f.detach(), da_dt, *da_theta_dt, da_t_dt])

        a = torch.zeros_like(zs[0])
        a_theta = [torch.zeros_like(p) for p in theta]  # a_theta(t_N) = 0, above eq. 51
        a_t = zs.new_zeros(())
        dL_dts = torch.zeros_like(ts) if ctx.needs_input_grad[2] else None
        shapes: list[Tensor] = [zs[0], a, *a_theta, a_t]
        if hasattr(field, "callback_step_adjoint"):
            aug_dynamics.callback_step = lambda t, s, h: field.callback_step_adjoint(  # type: ignore
                t, unflatten(s, shapes), h
            )

        for i in range(len(ts) - 1, 0, -1):
            # An observation at t_i adds its own gradient to the adjoint: a(t) jumps there. At t_N
            # this is the initial condition a(t_N) = dL/dz(t_N), eq. 46; the end of appendix B.1 has
            # the other times, interval by interval.
            a = a + dL_dzs[i]
            if dL_dts is not None:
                # Observing later by dt shows a state moved by f dt, eq. 52 (left):
                dL_dt = torch.sum(dL_dzs[i] * field(ts[i], zs[i]))
                dL_dts[i] = dL_dt
                a_t = a_t - dL_dt  # the last entry of s_0 in algorithm 2
            s = flatten([zs[i], a, *a_theta, a_t])
            s = euler(aug_dynamics, s, ts[i], ts[i - 1], max_step)  # backwards in time
            _, a, *a_theta, a_t = unflatten(s, shapes)

        dL_dz0 = a + dL_dzs[0]  # eq. 46; zs[0] is z0 itself
        if dL_dts is not None:
            dL_dts[0] = a_t  # eq. 52 (right)
        return None, None, dL_dts, dL_dz0, *a_theta  # eq. 51


def odeint_adjoint(
    field: Field,
    z0: Float[Tensor, "*state"],
    ts: Float[Tensor, " times"],
    theta: Sequence[Tensor],
    max_step: float,
) -> Float[Tensor, " times *state"]:
    """z at every time of ts by Euler's method, with gradients by the adjoint method.

    Gradients reach z0, every ts[i] and every tensor of `theta`: those parameters that
    `field(t, z)` reads and that require a gradient. ts may increase or decrease. The gradients
    cannot be differentiated again: what the backward solve does leaves no graph.
    """
    zs = EulerAdjoint.apply(field, max_step, ts, z0, *theta)
    return once_differentiable(zs, ts, z0, *theta)
