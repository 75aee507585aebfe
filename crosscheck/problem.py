"""An initial value problem in both frameworks, and one run of it in one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import nn

from crosscheck.check import Tensors, difference
from crosscheck.weights import WeightsError, to_torch

EPS = {"float32": float(np.finfo(np.float32).eps), "float64": float(np.finfo(np.float64).eps)}
NEARBY = 1e-7


@dataclass(frozen=True, eq=False)
class Problem:
    """dy/dt = field(t, y, params), y(ts[0]) = y0, written twice (thrice with `numpy`).

    Attributes:
        name: of the field.
        jax: `(t, y, params) -> dy/dt` with jax.numpy.
        torch: the same with torch; or an nn.Module called as `module(t, y)`, whose parameters are
            then found by structure (see `weights`).
        params: as `jax` takes them.
        y0: initial state, as `jax` takes it.
        ts: observation times.
        axes: permutation that takes a state from the layout of `jax` to that of `torch`.
        numpy: the same field in numpy in torch's layouts, fit for complex numbers.
        smooth: whether the field has derivatives enough for orders to be seen.
        operations: length of the longest sum in the field, for bounds in float32.
        stable: factor by which rounding may exceed the rule (Winograd's products lose digits).
    """

    name: str
    jax: Callable[[Any, Any, Any], Any]
    torch: Callable[[Any, Any, Any], Any] | nn.Module
    params: Mapping[str, np.ndarray]
    y0: np.ndarray
    ts: Float[np.ndarray, " times"]
    axes: tuple[int, ...] | None = None
    numpy: Callable[[Any, Any, Any], Any] | None = None
    smooth: bool = True
    operations: int = 10
    stable: float = 1.0

    def torch_params(self) -> dict[str, np.ndarray]:
        """The parameters as the torch side takes them."""
        return self.rename(self.params)

    def rename(self, params: Tensors) -> dict[str, np.ndarray]:
        """Parameters, or their gradients, from the JAX side's form to the torch side's.

        A parameter that the module itself calls `scale`, say, is that one, and no norm's weight.
        """
        if not isinstance(self.torch, nn.Module):
            return dict(params)
        own = {name for name, _ in self.torch.named_parameters()} & params.keys()
        moved = to_torch({name: value for name, value in params.items() if name not in own})
        for name in moved.keys() & own:
            raise WeightsError(f"the weights have {name} twice, under two names")
        return moved | {name: np.asarray(params[name]) for name in own}

    def to_torch_layout(self, states: np.ndarray) -> np.ndarray:
        """States `[..., *state]` from the layout of the JAX side to that of the torch side."""
        if self.axes is None:
            return states
        lead = states.ndim - len(self.axes)
        return states.transpose(*range(lead), *(lead + axis for axis in self.axes))


@dataclass(frozen=True)
class Run:
    """What one framework found, in the names and layouts of the torch side.

    `gradients` has `y0`, `ts` and the parameters of sum(cotangent * ys). `step_times` is None
    where the framework does not tell.
    """

    name: str
    ys: np.ndarray
    gradients: Tensors | None
    nfe_forward: int
    nfe_backward: int
    accepted: int
    rejected: int
    step_times: np.ndarray | None = None


def cotangent(problem: Problem, ts: np.ndarray) -> np.ndarray:
    """A loss sum(cotangent * ys): normal numbers `[times, *state]`, the JAX side's layout."""
    return np.random.default_rng(7).normal(size=(len(ts), *problem.y0.shape))


def condition(problem: Problem, solution: Callable[[Problem], Tensors]) -> float:
    """Measured condition: relative change of a solution by that of y0 and the parameters.

    The largest of three random changes of every entry by +-`NEARBY` of itself, at least 1.
    """
    base, worst = solution(problem), 1.0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        bump = lambda a: a * (1 + NEARBY * rng.choice([-1.0, 1.0], size=a.shape))  # noqa: B023
        params = {name: bump(value) for name, value in problem.params.items()}
        moved = replace(problem, params=params, y0=bump(problem.y0))
        worst = max(worst, difference(solution(moved), base).error / NEARBY)
    return worst
