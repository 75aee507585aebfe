"""Thirty right fields, none of which `compare` may fail, and thirty faults, each of which it must.

A field is written once, `field(xp, t, z, p)` with `xp` numpy as either framework has it. A fault is
what the torch side has instead. Scales, directions, offsets of time and layouts vary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from crosscheck import compare

W = np.array([[0.3, -1.0], [1.2, -0.2]])
B = np.array([0.1, -0.4])
Z0 = np.array([[1.0, 0.5], [0.2, -0.3]])


@dataclass(frozen=True)
class Case:
    """A field with all that `compare` takes; `fault` is the torch side's if it is another."""

    field: Callable[..., Any]
    params: dict[str, Any] = field(default_factory=dict)
    z0: Any = ((1.0, 0.5), (0.2, -0.3))
    ts: Any = (0.0, 0.5, 1.0)
    solvers: tuple[str, ...] = ("dopri5",)
    options: dict[str, Any] = field(default_factory=dict)
    fault: Callable[..., Any] | None = None


def net(xp, t, z, p):
    return xp.tanh(z @ p["w"] + p["b"]) * xp.cos(t)


def decay(xp, t, z, p):
    return -p["a"] * z


def plain(xp, t, z, p):
    return -z * t


def spiral(xp, t, z, p):
    return z**3 @ p["w"]


def logistic(xp, t, z, p):
    return p["a"] * z * (1 - z)


def forced(xp, t, z, p):
    return p["a"] * (xp.sin(t) - z) + xp.cos(t)


def pendulum(xp, t, z, p):
    return xp.stack([z[..., 1], -p["a"] * xp.sin(z[..., 0])], -1)


def lotka(xp, t, z, p):
    x, y = z[..., 0], z[..., 1]
    return xp.stack([x * (p["a"] - y), y * (x - p["c"])], -1)


def kinked(xp, t, z, p):
    return xp.maximum(z @ p["w"] + p["b"], 0 * z) - z


def root(xp, t, z, p):
    return xp.sqrt(4 - t) * z


def constant(xp, t, z, p):
    return 0 * z + p["a"]


NET, A = {"w": W, "b": B}, {"a": np.array(0.7)}
BACK = (1.0, 0.4, 0.0)
RIGHT = {
    "plain, from the docs of torchdiffeq": Case(plain, z0=[[1.0, 0.5]], ts=[0, 1, 2]),
    "plain, backwards": Case(plain, z0=[[1.0, 0.5]], ts=[2, 1, 0]),
    "plain, rk4": Case(plain, z0=[[1.0, 0.5]], ts=[0, 1, 2], solvers=("rk4",)),
    "decay": Case(decay, A),
    "decay, backwards": Case(decay, A, ts=BACK),
    "decay, small": Case(decay, A, z0=1e-6 * Z0),
    "decay, large": Case(decay, A, z0=1e6 * Z0),
    "decay, long": Case(decay, A, ts=[0, 5, 20]),
    "decay, short": Case(decay, A, ts=[0, 1e-4, 2e-4]),
    "decay, late": Case(decay, A, ts=[1e4, 1e4 + 1]),
    "decay, one number": Case(decay, A, z0=1.5),
    "decay, stiff": Case(decay, {"a": np.array(30.0)}, ts=[0, 0.5]),
    "growth": Case(decay, {"a": np.array(-3.0)}),
    "net": Case(net, NET),
    "net, backwards": Case(net, NET, ts=BACK),
    "net, many times": Case(net, NET, ts=np.linspace(-1, 1, 9)),
    "net, euler": Case(net, NET, solvers=("euler",)),
    "net, midpoint backwards": Case(net, NET, ts=[1.0, 0.5, 0.0], solvers=("midpoint",)),
    "net, bosh3": Case(net, NET, solvers=("bosh3",)),
    "net, dopri8 and loose": Case(net, NET, solvers=("dopri8",), options={"rtol": 1e-4}),
    "net, tight": Case(net, NET, options={"rtol": 1e-10}),
    "spiral": Case(spiral, {"w": W - 0.5 * np.eye(2)}),
    "logistic, backwards": Case(logistic, A, z0=[0.2, 0.6], ts=[0.0, -1.0, -2.0]),
    "forced": Case(forced, A, ts=[-1, 0, 3]),
    "forced, late rk4": Case(forced, A, ts=[100, 100.5, 101], solvers=("rk4",)),
    "pendulum": Case(pendulum, {"a": np.array(4.0)}, ts=[0, 1, 3]),
    "pendulum, backwards rk4": Case(pendulum, A, ts=[2.0, 1.0, 0.0], solvers=("rk4",)),
    "lotka": Case(lotka, {"a": np.array(1.5), "c": np.array(3.0)}, z0=[4.0, 0.5], ts=[0, 1, 2]),
    "kinks": Case(kinked, NET, options={"smooth": False}),
    "no value outside, constant": Case(root, ts=[4.0, 3.0, 2.0], solvers=("rk4",)),
}
assert len(RIGHT) == 30


def off(size, of):
    """The field, wrong by a part."""
    return lambda xp, t, z, p: of(xp, t, z, p) * (1 + size)


def cut(*names, of):
    """The right values, with no gradient for what is named: z, t, or parameters."""

    def faulty(xp, t, z, p):
        keep = lambda name, x: x.detach() if name in names else x
        return of(xp, keep("t", t), keep("z", z), {n: keep(n, x) for n, x in p.items()})

    return faulty


def part(size, name, of):
    """The right values, with gradients for a parameter that are wrong by a part."""

    def faulty(xp, t, z, p):
        wrong = p[name].detach() * -size + p[name] * (1 + size)
        return of(xp, t, z, p | {name: wrong})

    return faulty


def replaced(of, **changes):
    return lambda xp, t, z, p: of(xp, t, z, p | {n: change(p[n]) for n, change in changes.items()})


PEND, RK4 = {"a": np.array(4.0)}, ("rk4",)
LOTKA = {"a": np.array(1.5), "c": np.array(3.0)}
WRONG = {
    "by 1e-9": Case(net, NET, fault=off(1e-9, net)),
    "by 1e-9, backwards": Case(net, NET, ts=BACK, solvers=(), fault=off(1e-9, net)),
    "by 1e-9, small": Case(decay, A, z0=1e-6 * Z0, fault=off(1e-9, decay)),
    "by 1e-9, large": Case(decay, A, z0=1e6 * Z0, fault=off(1e-9, decay)),
    "by 1e-9, late": Case(decay, A, ts=[1e4, 1e4 + 1], fault=off(1e-9, decay)),
    "sign": Case(decay, A, fault=off(-2, decay)),
    "time dropped": Case(net, NET, fault=lambda xp, t, z, p: net(xp, 0 * t, z, p)),
    "time late": Case(net, NET, fault=lambda xp, t, z, p: net(xp, t + 1e-8, z, p)),
    "time reversed": Case(forced, A, ts=BACK, fault=lambda xp, t, z, p: forced(xp, -t, z, p)),
    "transposed": Case(net, NET, fault=replaced(net, w=lambda w: w.T)),
    "no bias": Case(net, NET, fault=replaced(net, b=lambda b: 0 * b)),
    "sine for tanh": Case(net, NET, fault=lambda xp, t, z, p: xp.sin(z @ p["w"] + p["b"])),
    "square for cube": Case(spiral, {"w": W}, fault=lambda xp, t, z, p: z**2 @ p["w"]),
    "components exchanged": Case(pendulum, PEND, fault=lambda *a: pendulum(*a).flip(-1)),
    "linear pendulum": Case(
        pendulum, PEND, fault=lambda xp, t, z, p: xp.stack([z[..., 1], -p["a"] * z[..., 0]], -1)
    ),
    "a clamp": Case(decay, A, fault=lambda *a: decay(*a).clamp(min=-0.5)),
    "a float32 on the way": Case(net, NET, fault=lambda *a: net(*a).float().double()),
    "not a number": Case(decay, A, fault=off(np.nan, decay)),
    "c for a": Case(lotka, LOTKA, z0=[4.0, 0.5], fault=replaced(lotka, c=lambda c: c + 1e-7)),
    "kinks moved": Case(
        kinked, NET, options={"smooth": False}, fault=replaced(kinked, b=lambda b: b + 1e-6)
    ),
    "w cut": Case(net, NET, fault=cut("w", of=net)),
    "b cut, backwards": Case(net, NET, ts=BACK, fault=cut("b", of=net)),
    "z cut": Case(net, NET, fault=cut("z", of=net)),
    "z cut, rk4 backwards": Case(net, NET, ts=[1.0, 0.5, 0.0], solvers=RK4, fault=cut("z", of=net)),
    "t cut": Case(forced, A, ts=[0.3, 1.0, 2.0], fault=cut("t", of=forced)),
    "t cut, backwards": Case(forced, A, ts=[2.0, 1.0, 0.3], fault=cut("t", of=forced)),
    "a cut, kinks": Case(kinked, NET, options={"smooth": False}, fault=cut("b", of=kinked)),
    "gradient by 1e-3": Case(net, NET, fault=part(1e-3, "w", net)),
    "gradient by 1e-3, backwards": Case(decay, A, ts=BACK, fault=part(1e-3, "a", decay)),
    "gradient by 1e-7, rk4": Case(net, NET, solvers=RK4, fault=part(1e-7, "b", net)),
}
assert len(WRONG) == 30
# Right and forwards, by rk4 and dopri5, is the page's example, which test_page.py runs.
FAST = {"net, midpoint backwards", "t cut, backwards", "by 1e-9, backwards"}


def few(cases):
    """All of them, but those that are not in `FAST` marked slow: each compiles for seconds."""
    return [
        pytest.param(case, id=name, marks=() if name in FAST else pytest.mark.slow)
        for name, case in cases.items()
    ]


def comparison(case: Case):
    theirs = case.fault or case.field
    return compare(
        lambda t, z, p: case.field(jnp, t, z, p),
        lambda t, z, p: theirs(torch, t, z, p),
        case.params,
        np.asarray(case.z0),
        case.ts,
        solvers=case.solvers,
        **case.options,
    )


@pytest.mark.parametrize("case", few(RIGHT))
def test_a_right_field_passes(case):
    found = comparison(case)
    assert found.passed, str(found)


@pytest.mark.parametrize("case", few(WRONG))
def test_a_fault_is_found(case):
    assert comparison(case).failures
