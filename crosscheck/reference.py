"""A third opinion in numpy and float64: layers, Runge-Kutta, and gradients exact to rounding.

Complex-step derivatives, dF/dx = Im F(x + ih) / h, have no cancellation: with h = 1e-30 they are
exact to rounding (Squire and Trapp 1998). So the gradient of a fixed-step solve is found without
any rule of differentiation. A ReLU looks at the real part.

Sources: Hairer, Norsett, Wanner, Solving ODEs I, II.1 (tableaux).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.linalg

from crosscheck.problem import Problem

H = 1e-30
# Nodes, rows of stages, weights.
TABLEAUX: dict[str, tuple[list, list, list]] = {
    "euler": ([0.0], [[]], [1.0]),
    "midpoint": ([0.0, 1 / 2], [[], [1 / 2]], [0.0, 1.0]),
    "rk4": (
        [0.0, 1 / 3, 2 / 3, 1.0],
        [[], [1 / 3], [-1 / 3, 1.0], [1.0, -1.0, 1.0]],
        [1 / 8, 3 / 8, 3 / 8, 1 / 8],
    ),
}


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0), by the real part."""
    return np.where(x.real > 0, x, 0)


def group_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Group normalisation of `[batch, channels, height, width]` in 32 groups, eps 1e-5."""
    batch, channels, height, width = x.shape
    groups = x.reshape(batch, min(32, channels), -1)
    centred = groups - groups.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
    column = lambda a: a[:, None, None]
    return normed.reshape(batch, channels, height, width) * column(weight) + column(bias)


def time_conv(t: Any, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """3x3 convolution with padding 1 of `x` with t as its first channel."""
    batch, _, height, width = x.shape
    time = np.broadcast_to(np.asarray(t, x.dtype), (batch, 1, height, width))
    padded = np.pad(np.concatenate([time, x], 1), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    out = np.tensordot(windows, weight, axes=((1, 4, 5), (1, 2, 3)))
    return out.transpose(0, 3, 1, 2) + bias[:, None, None]


def vector_field(t: Any, x: np.ndarray, p: Mapping[str, np.ndarray]) -> np.ndarray:
    """The MNIST models' vector field, `[batch, channels, height, width]`, torch's weights."""
    norm = lambda i, x: group_norm(x, p[f"norm{i}.weight"], p[f"norm{i}.bias"])
    conv = lambda i, x: time_conv(t, x, p[f"conv{i}.weight"], p[f"conv{i}.bias"])
    return norm(3, conv(2, relu(norm(2, conv(1, relu(norm(1, x)))))))


def grid(ts: np.ndarray, step: float, dtype: type) -> list[tuple[Any, Any, bool]]:
    """Steps `(start, length, ends at an observation)`: each interval of ts cut into equal ones."""
    steps: list[tuple[Any, Any, bool]] = []
    ts = np.asarray(ts, dtype)
    for i in range(ts.shape[-1] - 1):
        a, b = ts[..., i], ts[..., i + 1]
        n = round(float(np.ravel((b - a).real)[0]) / step)
        steps += [(a + (b - a) * k / n, (b - a) / n, k == n - 1) for k in range(n)]
    return steps


def solve(
    field: Callable, y0: np.ndarray, ts: np.ndarray, params: Any, solver: str, step: float
) -> np.ndarray:
    """Fixed-step Runge-Kutta on a grid made of ts: states with the times as their first axis."""
    nodes, rows, weights = TABLEAUX[solver]
    y, out = y0, [y0]
    for t, h, observed in grid(ts, step, ts.dtype.type):
        h_y = np.asarray(h)[(..., *[None] * (y.ndim - np.ndim(h)))] if np.ndim(h) else h
        ks: list[np.ndarray] = []
        for node, row in zip(nodes, rows, strict=True):
            inner = sum((a * k for a, k in zip(row, ks, strict=True) if a), start=np.zeros(1))
            ks.append(field(t + node * h, y + h_y * inner, params))
        y = y + h_y * sum(b * k for b, k in zip(weights, ks, strict=True))
        if observed:
            out.append(y)
    return np.stack(out)


def gradients(
    problem: Problem, solver: str, step: float, ts: np.ndarray, cotangent: np.ndarray
) -> dict[str, np.ndarray]:
    """Complex-step gradient of sum(cotangent * ys) in `y0`, `ts` and every parameter.

    For fields that take leading axes: one solve, one leading entry for each number.
    """
    assert problem.numpy is not None
    inputs = {
        "y0": problem.to_torch_layout(problem.y0),
        "ts": np.asarray(ts),
        **problem.torch_params(),
    }
    total = sum(a.size for a in inputs.values())
    bumped, row = {}, 0
    for name, value in inputs.items():
        many = np.repeat(value[None].astype(complex), total, 0).reshape(total, -1)
        many[row + np.arange(value.size), np.arange(value.size)] += 1j * H
        bumped[name] = many.reshape(total, *value.shape)
        row += value.size
    y0, times = bumped.pop("y0"), bumped.pop("ts")
    ys = solve(problem.numpy, y0, times, bumped, solver, step)
    weights = problem.to_torch_layout(cotangent)
    slopes = np.sum((weights[:, None] * ys).imag, axis=(0, *range(2, ys.ndim))) / H
    pieces = np.split(slopes, np.cumsum([a.size for a in inputs.values()])[:-1])
    return {
        name: piece.reshape(value.shape)
        for (name, value), piece in zip(inputs.items(), pieces, strict=True)
    }


def directions(problem: Problem) -> dict[str, np.ndarray]:
    """One fixed random direction for y0 and every parameter."""
    rng = np.random.default_rng(11)
    inputs = {"y0": problem.to_torch_layout(problem.y0), **problem.torch_params()}
    return {name: rng.normal(size=value.shape) for name, value in inputs.items()}


def slopes(
    problem: Problem, solver: str, step: float, ts: np.ndarray, cotangent: np.ndarray
) -> dict[str, np.ndarray]:
    """Complex-step derivatives along `directions`, for fields too large for `gradients`."""
    assert problem.numpy is not None
    inputs = {"y0": problem.to_torch_layout(problem.y0), **problem.torch_params()}
    weights, found = problem.to_torch_layout(cotangent), {}
    for name, direction in directions(problem).items():
        bumped = dict(inputs) | {name: inputs[name] + 1j * H * direction}
        ys = solve(problem.numpy, bumped.pop("y0"), ts, bumped, solver, step)
        found[f"{name} . v"] = np.sum(weights * ys.imag) / H
    return {name: np.asarray(value) for name, value in found.items()}


def along(gradient: Mapping[str, np.ndarray], problem: Problem) -> dict[str, np.ndarray]:
    """A gradient's products with `directions`, to compare with `slopes`."""
    return {
        f"{name} . v": np.sum(gradient[name] * direction)
        for name, direction in directions(problem).items()
    }


def linear_gradients(
    problem: Problem, ts: np.ndarray, cotangent: np.ndarray
) -> dict[str, np.ndarray]:
    """Exact gradient of sum(cotangent * ys) for y' = y A: y(t) = y0 exp(A (t - t0)).

    The derivative of the exponential in A is Frechet's (Al-Mohy and Higham 2009), found entry by
    entry.
    """
    A, y0 = problem.params["A"], problem.y0
    exps = [scipy.linalg.expm(A * (t - ts[0])) for t in ts]
    dA = np.zeros_like(A)
    for index in np.ndindex(A.shape):
        E = np.zeros_like(A)
        E[index] = 1.0
        for t, c in zip(ts, cotangent, strict=True):
            dt = t - ts[0]
            dA[index] += np.sum(c * (y0 @ scipy.linalg.expm_frechet(A * dt, E * dt)[1]))
    dts = np.array([np.sum(c * (y0 @ e @ A)) for c, e in zip(cotangent, exps, strict=True)])
    dts[0] = -dts[1:].sum()  # a shift of all times changes nothing
    dy0 = sum(c @ e.T for c, e in zip(cotangent, exps, strict=True))
    return {"y0": dy0, "ts": dts, "A": dA}
