"""What a solve through torchdiffeq costs and where it fails: counted as it happens, not guessed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

Field = Callable[[Tensor, Tensor], Tensor]


class SolveError(RuntimeError):
    """A solve that cannot go on; says how far it got and what to try."""


class Pass:
    """What one pass, forward or backward, has cost so far.

    nfe counts evaluations of the vector field, steps all steps tried.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin to count again."""
        self.nfe = self.steps = self.accepted = self.rejected = 0


class Watched:
    """The user's field, counting its calls and steps; refuses a step that cannot succeed.

    torchdiffeq finds the callbacks by name, and those ending in _adjoint in its backward solve.
    """

    def __init__(
        self, field: Field, solver: str, adaptive: bool, t0: float, t1: float, max_steps: int
    ) -> None:
        self.field, self.solver, self.max_steps = field, solver, max_steps
        self.adaptive = adaptive
        self.direction = 1.0 if t1 >= t0 else -1.0
        self.step_times = [t0]
        self.forward, self.backward = Pass(), Pass()
        self.now = self.forward
        if adaptive:  # torchdiffeq warns if a solver does not know a callback
            self.callback_accept_step = self._accept
            self.callback_reject_step = self._reject

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """The field at (t, y); one evaluation."""
        self.now.nfe += 1
        return self.field(t.to(y.dtype), y)

    def start_backward(self, grad: Tensor) -> None:
        """A hook on the gradient of ys: a new backward pass begins."""
        self.backward.reset()
        self.now = self.backward

    def callback_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        """A step of dt from the state y at t is about to be tried."""
        self._check_step(t, (y,), dt)
        if not self.adaptive and self.now is self.forward:
            self._accept(t, y, dt)

    def callback_step_adjoint(self, t: Tensor, y: tuple[Tensor, ...], dt: Tensor) -> None:
        """The same in the augmented system; y is its state (a_t, y, a, *a_theta)."""
        self._check_step(t, y, dt)

    def _accept(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self.forward.accepted += 1
        self.step_times.append(t.item() + self.direction * abs(dt.item()))

    def _reject(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self.forward.rejected += 1

    def _check_step(self, t: Tensor, y: Sequence[Tensor], dt: Tensor) -> None:
        if self.now.steps >= self.max_steps:
            raise self.error(
                t,
                dt,
                f"the limit of {self.max_steps} steps is reached",
                "raise --max-steps, loosen --rtol and --atol, or enlarge --step-size",
            )
        self.now.steps += 1
        if not all(part.isfinite().all() for part in y):
            raise self.not_finite(t, dt)
        if t + dt == t:
            remedy = "loosen --rtol and --atol, use --precision float64, or a lower learning rate"
            raise self.error(
                t, dt, "the step size underflows, or the field is not finite there", remedy
            )

    def not_finite(self, t: Tensor, dt: Tensor) -> SolveError:
        """The error for a state with NaN or infinity in it at t."""
        remedy = "lower the learning rate or tighten --rtol and --atol (or --step-size)"
        return self.error(t, dt, "the state is not finite", remedy)

    def error(self, t: Tensor, dt: Tensor, reason: str, remedy: str) -> SolveError:
        """The sentence for a solve that stops at t with the step dt."""
        which = "solve" if self.now is self.forward else "backward (adjoint) solve"
        return SolveError(
            f"{self.solver}'s {which} stopped at t = {t.item():.6g} with step size "
            f"{abs(dt.item()):.3g} after {self.now.nfe} evaluations of the vector field: {reason}; "
            f"{remedy}"
        )


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
