"""What a solve through torchdiffeq costs and where it fails: counted as it happens, not guessed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from torch_node.graph import node, read_besides

Field = Callable[[Tensor, Tensor], Tensor]
CALLBACKS = ("callback_step", "callback_accept_step", "callback_reject_step")


class SolveError(RuntimeError):
    """A solve that cannot go on: where it stopped, for which cause, and what to try."""


class Pass:
    """What one pass, forward or backward, has cost so far.

    nfe counts evaluations of the vector field, steps all steps tried, intervals those between
    observations that have been solved backwards; see `solve.Solution` for reconstruction.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin to count again."""
        self.nfe = self.steps = self.accepted = self.rejected = self.intervals = 0
        self.reconstruction = 0.0


class Watched:
    """The user's field, counting its calls and steps; refuses a step that cannot succeed.

    torchdiffeq finds the callbacks by name, and those ending in _adjoint in its backward solve;
    callbacks of the user's own field are called too.

    Args:
        field: the user's.
        y0: of which every derivative must have the shape.
        ts: the observation times.
        origin: time at which the solver's clock is 0, if that is not the field's clock.
        ends: times between which the field is asked, ts[0]'s and ts[-1]'s.
        jumps: times in between at which it is not: it is asked a rounding later on the way.
        solver, max_steps: as in `solve`; adaptive: whether the solver is.
        reversed_back: whether the backward solve's clock is -t, as torchdiffeq's is where times
            decrease.
        times_wanted: whether gradients of times are. If not, no derivative in t is taken, which
            may be infinite where the field is not.
        theta: all that the field may read besides which requires a gradient; None: whatever it
            does.
    """

    def __init__(
        self,
        field: Field,
        y0: Tensor,
        ts: Tensor,
        origin: Tensor | None,
        *,
        ends: tuple[float, float],
        jumps: Tensor,
        solver: str,
        adaptive: bool,
        max_steps: int,
        reversed_back: bool,
        times_wanted: bool,
        theta: tuple[Tensor, ...] | None,
    ) -> None:
        self.field, self.solver, self.max_steps = field, solver, max_steps
        self.adaptive, self.shape = adaptive, y0.shape
        self.time_dtype, self.origin = ts.dtype, origin
        self.clock_back, self.times_wanted = -1.0 if reversed_back else 1.0, times_wanted
        start, end = ts[0].item(), ts[-1].item()
        self.first, self.last = min(ends), max(ends)
        self.theta = theta
        self.theta_nodes: set[Any] = set()  # for every evaluation of a backward pass
        self.direction = 1.0 if end > start else -1.0
        self.jumps = self._time(jumps)
        self.step_times = [start]
        self.forward, self.backward = Pass(), Pass()
        self.now = self.forward
        self.asked: list[tuple[Tensor, Tensor]] = []  # in this step: times and derivatives
        self.tried = 0.0  # the latest step
        self.states: (
            Tensor | Sequence[Tensor]
        ) = ()  # once solved, those from which solves backwards start
        for name in CALLBACKS[1:]:  # torchdiffeq warns if a solver does not know a callback
            if adaptive or hasattr(field, name):
                setattr(self, name, getattr(self, f"_{name}"))
            if hasattr(field, f"{name}_adjoint"):
                call = lambda t, y, dt, name=f"{name}_adjoint": self._tell(
                    name, self.clock_back * t, y, dt
                )
                setattr(self, f"{name}_adjoint", call)

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """The field at (t, y), never outside of the first and last time; one evaluation."""
        self.now.nfe += 1
        t = self._time(t if self.times_wanted else t.detach())
        moved = t.detach().clamp(self.first, self.last) - t.detach()  # by one rounding
        if (self.jumps == t.detach() + moved).any():
            ahead = self.direction if self.now is self.forward else -self.direction
            moved = torch.nextafter(t.detach(), t.new_tensor(ahead * torch.inf)) - t.detach()
        t = t + moved  # which is no reason to lose a derivative
        dy = asked(self.field, t, y)
        if not isinstance(dy, Tensor) or dy.shape != self.shape or not dy.is_floating_point():
            found = f"{dy.dtype} of shape {tuple(dy.shape)}" if isinstance(dy, Tensor) else repr(dy)
            raise ValueError(
                f"`field` returned {found} at t = {_plain(t)}; expected a floating tensor of "
                f"y0's shape {tuple(self.shape)}"
            )
        self.asked.append((t.detach(), dy.detach()))
        if self.now is self.backward and self.theta is not None and dy.requires_grad:
            _check_reads(dy, {node(t), node(y), *self.theta_nodes})
        if self.now is self.backward and y.requires_grad and not dy.requires_grad:
            dy = dy + 0 * y  # a field that depends on nothing has a derivative still: zero
        return dy.to(y.dtype, copy=not dy.requires_grad)  # a field may fill one tensor every time

    def start_backward(self, grad: Tensor) -> None:
        """A hook on the gradient of ys: a new backward pass begins."""
        self.backward.reset()
        self.now = self.backward
        self.theta_nodes = set(map(node, self.theta or ()))

    def callback_step(self, t: Tensor, y: Tensor, dt: Tensor | None) -> None:
        """A step of dt from the state y at t is about to be tried; None: the solve has ended."""
        if dt is None:
            return
        self._check_step(t, (y,), dt)
        self._tell("callback_step", t, y, dt)
        if not self.adaptive and self.now is self.forward:
            self._count_accepted(t, dt)

    def callback_step_adjoint(self, t: Tensor, y: Sequence[Tensor], dt: Tensor | None) -> None:
        """The same in the augmented system; y is its state (a_t, y, a, *a_theta)."""
        if dt is None:
            self.came_back(y[1])
            return
        t = self.clock_back * t
        self._check_step(t, y, dt)
        self._tell("callback_step_adjoint", t, y, dt)

    def came_back(self, y: Tensor) -> None:
        """The solve backwards over one interval, the last first, ended with the state y."""
        self.backward.intervals += 1
        start = len(self.states) - 1 - self.backward.intervals
        reference, otherwise = self.states[start], self.states[start + 1]
        distance = (y.detach() - reference).norm()
        size = reference.norm() if reference.any() else otherwise.norm()
        found = (distance / size).item() if distance else 0.0
        self.backward.reconstruction = max(self.backward.reconstruction, found)

    def _callback_accept_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self._count_accepted(t, dt)
        self._tell("callback_accept_step", t, y, dt)

    def _callback_reject_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self.forward.rejected += 1
        self._tell("callback_reject_step", t, y, dt)

    def _count_accepted(self, t: Tensor, dt: Tensor) -> None:
        self.forward.accepted += 1
        start = t.item() + (0.0 if self.origin is None else self.origin.item())
        self.step_times.append(start + self.direction * abs(dt.item()))

    def _tell(self, name: str, t: Tensor, y: Tensor | Sequence[Tensor], dt: Tensor) -> None:
        """Call the user's callback of that name, if the field has one."""
        callback = getattr(self.field, name, None)
        if callback is not None:
            callback(self._time(t), y, abs(dt))

    def _time(self, t: Tensor) -> Tensor:
        """The field's time."""
        t = t.to(self.time_dtype)
        return t if self.origin is None else self.origin + t

    def _check_step(self, t: Tensor, y: Sequence[Tensor], dt: Tensor) -> None:
        asked, self.asked = self.asked, []
        if dt == 0 and self.now.steps:  # torchdiffeq's answer to an error estimate of NaN
            raise self.not_finite(t, "error estimate", asked)
        self.tried = abs(dt.item())
        if self.now.steps >= self.max_steps:
            raise self.error(
                t,
                f"the limit of {self.max_steps} steps is reached",
                "raise `max_steps`, or loosen `rtol` and `atol`",
            )
        self.now.steps += 1
        if not all(part.isfinite().all() for part in y):
            raise self.not_finite(t, "state", asked)
        if t + dt == t:
            raise self.error(
                t,
                "the next step would be too short to change t",
                "the vector field may be too stiff or discontinuous there, or the solution grow "
                "without bound: loosen `rtol` and `atol`, compute in float64, or give jumps as "
                "`jump_t`"
                if self.adaptive
                else "enlarge `step_size`, or compute in float64",
            )

    def not_finite(
        self, t: Tensor, what: str, asked: list[tuple[Tensor, Tensor]] | None = None
    ) -> SolveError:
        """The error for NaN or infinity in the state at t, or met in a step from there."""
        if self.now.steps <= 1 and what == "state" and self.now is self.forward:
            return self.error(t, "`y0` is not finite", "look at where it comes from")
        for time, dy in self.asked if asked is None else asked:
            if not dy.isfinite().all():
                cause = f"the vector field is not finite at t = {_plain(time)}"
                shorter = "tighten `rtol` and `atol`" if self.adaptive else "shorten `step_size`"
                remedy = f"keep it finite for all states that a step may try, or {shorter}"
                return self.error(t, cause, remedy)
        return self.error(
            t,
            f"the {what} is not finite, though the vector field is",
            "the solution may grow without bound: end before it does, or take smaller steps"
            if self.now is self.forward
            else "look at the field's derivatives, which may be infinite, or at the loss",
        )

    def error(self, t: Tensor, cause: str, remedy: str) -> SolveError:
        """The sentence for a solve that stops at t, after the latest step."""
        which = "solve" if self.now is self.forward else "backward (adjoint) solve"
        return SolveError(
            f"{self.solver}'s {which} stopped at t = {_plain(self._time(t))} with step size "
            f"{self.tried:.3g} after {self.now.nfe} evaluations of the vector field: {cause}; "
            f"{remedy}"
        )


def asked(field: Field, t: Tensor, y: Tensor) -> Tensor:
    """field(t, y). Raises ValueError if that changes y, with which a solver goes on."""
    version = 0 if y.is_inference() else y._version
    dy = field(t, y)
    if version != (0 if y.is_inference() else y._version):
        raise ValueError(
            "`field` changed the state that it was given, in place, at t = "
            f"{_plain(t.flatten()[0])}; expected a new tensor, the derivative, and the state as it "
            "was"
        )
    return dy


def _check_reads(dy: Tensor, known: set[Any]) -> None:
    other = read_besides(dy, known)
    if other is not None:
        raise ValueError(
            f"`field` reads a tensor of shape {tuple(other.shape)} that requires a gradient, "
            "which an adjoint cannot see: it is no parameter of `field`; make it an "
            "nn.Parameter, or give all that `field` reads as `params`"
        )


def _plain(t: Tensor) -> str:
    """A time with the digits that its dtype has: unix times that differ look different."""
    return f"{t.item():.{7 if t.dtype == torch.float32 else 15}g}"


@contextmanager
def counting_nonconvergence(solver: str | None) -> Iterator[list[int]]:
    """Count torchdiffeq's warnings of a corrector that did not converge, and silence them.

    Yields a list whose only entry is the count, right once the block has ended. Other warnings
    pass through. Does nothing unless the solver is implicit_adams, the only one with a corrector.
    """
    count = [0]
    if solver != "implicit_adams":
        yield count
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield count
    for warning in caught:
        if "iteration did not converge" in str(warning.message):
            count[0] += 1
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
