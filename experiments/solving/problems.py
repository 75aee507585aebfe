"""Non-stiff initial value problems on which ODE solvers are compared, free of any framework.

A field is written once, as `field(xp, t, y)`, with `xp` one of numpy, jax.numpy or torch and `y` a
vector of that library.

DETEST: Hull, Enright, Fellen, Sedgwick, "Comparing numerical methods for ordinary differential
equations", SIAM J. Numer. Anal. 9 (1972), problems A1 to E5, all over [0, 20].
Pleiades, Arenstorf: Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, II.10.
Lotka-Volterra: the predator-prey model with the rates (1.5, 1, 1, 3), over three periods.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class InitialValue:
    """y' = field(xp, t, y), y(0) = y0, integrated to t1; `group` is the set it belongs to."""

    name: str
    group: str
    field: Callable[[Any, Any, Any], Any]
    y0: Float[np.ndarray, " size"]
    t1: float


def _relaxation(xp, t, y):  # B3
    return xp.stack([-y[0], y[0] - y[1] ** 2, y[1] ** 2])


def _torus(xp, t, y):  # B4
    r = xp.sqrt(y[0] ** 2 + y[1] ** 2)
    return xp.stack([-y[1] - y[0] * y[2] / r, y[0] - y[1] * y[2] / r, y[0] / r])


def _chain(rates, xp, t, y):  # C1, C2: radioactive decay
    flow = xp.asarray(rates) * y[:-1]
    return xp.concatenate([-flow[:1], flow[:-1] - flow[1:], flow[-1:]])


def _diffusion(xp, t, y):  # C3, C4: second differences between walls at zero
    inner = y[:-2] - 2 * y[1:-1] + y[2:]
    return xp.concatenate([(y[1] - 2 * y[0])[None], inner, (y[-2] - 2 * y[-1])[None]])


_K2 = 2.95912208286
_SUN = 1.00000597682
_MASSES = np.array(
    [
        0.000954786104043,
        0.000285583733151,
        0.0000437273164546,
        0.0000517759138449,
        0.00000277777777778,
    ]
)
# fmt: off
_PLANETS = np.array([
    3.42947415189, 3.35386959711, 1.35494901715, 6.64145542550, 5.97156957878, 2.18231499728,
    11.2630437207, 14.6952576794, 6.27960525067, -30.1552268759, 1.65699966404, 1.43785752721,
    -21.1238353380, 28.4465098142, 15.3882659679,
    -0.557160570446, 0.505696783289, 0.230578543901, -0.415570776342, 0.365682722812,
    0.169143213293, -0.325325669158, 0.189706021964, 0.0877265322780, -0.0240476254170,
    -0.287659532608, -0.117219543175, -0.176860753121, -0.216393453025, -0.0148647893090,
])
# fmt: on


def _pulls(xp, masses, positions):
    """Return sum_k m_k (x_k - x_j) / |x_k - x_j|^3 for each body j; positions [body, axis]."""
    apart = positions[None, :, :] - positions[:, None, :]  # [j, k, axis]
    bodies = positions.shape[0]
    # The distance of a body to itself is set to one: it has no pull, and no division by zero.
    squared = (apart**2).sum(-1) + xp.asarray(np.eye(bodies))
    return (xp.asarray(masses)[None, :, None] * apart / (squared**1.5)[:, :, None]).sum(1)


def _outer_planets(xp, t, y):  # C5: the outer planets about the sun
    x = y[:15].reshape(5, 3)
    towards_sun = x / (((x**2).sum(-1)) ** 1.5)[:, None]
    masses = xp.asarray(_MASSES)[:, None]
    # The sun is pulled by the other planets, and the coordinates with it.
    others = (masses * towards_sun).sum(0) - masses * towards_sun
    force = -(_SUN + masses) * towards_sun + _pulls(xp, _MASSES, x) - others
    return xp.concatenate([y[15:], _K2 * force.reshape(-1)])


def _orbit(xp, t, y):  # D1 to D5
    r3 = (y[0] ** 2 + y[1] ** 2) ** 1.5
    return xp.stack([y[2], y[3], -y[0] / r3, -y[1] / r3])


def _bessel(xp, t, y):  # E1
    return xp.stack([y[1], -(y[1] / (t + 1) + (1 - 0.25 / (t + 1) ** 2) * y[0])])


def _duffing(xp, t, y):  # E3
    # torch.sin takes no float; the product with 1 + 0 * y makes t one of y's kind.
    force = 2 * xp.sin(2.78535 * t * (1 + 0 * y[0]))
    return xp.stack([y[1], y[0] ** 3 / 6 - y[0] + force])


def _pleiades(xp, t, y):
    x = y[:14].reshape(2, 7).T
    return xp.concatenate([y[14:], _pulls(xp, np.arange(1.0, 8.0), x).T.reshape(-1)])


def _arenstorf(xp, t, y):
    mu = 0.012277471
    d1 = ((y[0] + mu) ** 2 + y[1] ** 2) ** 1.5
    d2 = ((y[0] - (1 - mu)) ** 2 + y[1] ** 2) ** 1.5
    ax = y[0] + 2 * y[3] - (1 - mu) * (y[0] + mu) / d1 - mu * (y[0] - (1 - mu)) / d2
    ay = y[1] - 2 * y[2] - (1 - mu) * y[1] / d1 - mu * y[1] / d2
    return xp.stack([y[2], y[3], ax, ay])


def _lotka_volterra(xp, t, y):
    return xp.stack([1.5 * y[0] - y[0] * y[1], y[0] * y[1] - 3 * y[1]])


def _unit(size: int) -> Float[np.ndarray, " size"]:
    return np.eye(size)[0]


def problems() -> tuple[InitialValue, ...]:
    """Return all problems: DETEST A1 to E5, Pleiades, Arenstorf, Lotka-Volterra."""
    cos = lambda xp, t, y: xp.cos(t * (1 + 0 * y))  # as in _duffing
    half = math.sqrt(2 / math.pi)  # J_{1/2}(1) = half * sin 1, J_{-1/2}(1) = half * cos 1
    detest: dict[str, tuple[Callable[[Any, Any, Any], Any], Any]] = {
        "A1": (lambda xp, t, y: -y, [1.0]),
        "A2": (lambda xp, t, y: -(y**3) / 2, [1.0]),
        "A3": (lambda xp, t, y: y * cos(xp, t, y), [1.0]),
        "A4": (lambda xp, t, y: y / 4 * (1 - y / 20), [1.0]),
        "A5": (lambda xp, t, y: (y - t) / (y + t), [4.0]),
        "B1": (
            lambda xp, t, y: xp.stack([2 * (y[0] - y[0] * y[1]), y[0] * y[1] - y[1]]),
            [1.0, 3.0],
        ),
        "B2": (
            lambda xp, t, y: xp.stack([y[1] - y[0], y[0] - 2 * y[1] + y[2], y[1] - y[2]]),
            [2.0, 0.0, 1.0],
        ),
        "B3": (_relaxation, [1.0, 0.0, 0.0]),
        "B4": (_torus, [3.0, 0.0, 0.0]),
        "B5": (
            lambda xp, t, y: xp.stack([y[1] * y[2], -y[0] * y[2], -0.51 * y[0] * y[1]]),
            [0.0, 1.0, 1.0],
        ),
        "C1": (functools.partial(_chain, np.ones(9)), _unit(10)),
        "C2": (functools.partial(_chain, np.arange(1.0, 10.0)), _unit(10)),
        "C3": (_diffusion, _unit(10)),
        "C4": (_diffusion, _unit(51)),
        "C5": (_outer_planets, _PLANETS),
        **{
            f"D{i}": (_orbit, [1 - e, 0.0, 0.0, math.sqrt((1 + e) / (1 - e))])
            for i, e in enumerate((0.1, 0.3, 0.5, 0.7, 0.9), start=1)
        },
        "E1": (_bessel, [half * math.sin(1), half * (math.cos(1) - math.sin(1) / 2)]),
        "E2": (lambda xp, t, y: xp.stack([y[1], (1 - y[0] ** 2) * y[1] - y[0]]), [2.0, 0.0]),
        "E3": (_duffing, [0.0, 0.0]),
        "E4": (lambda xp, t, y: xp.stack([y[1], 0.032 - 0.4 * y[1] ** 2]), [30.0, 0.0]),
        "E5": (lambda xp, t, y: xp.stack([y[1], xp.sqrt(1 + y[1] ** 2) / (25 - t)]), [0.0, 0.0]),
    }
    pleiades: list[float] = [3, 3, -1, -3, 2, -2, 2, 3, -3, 2, 0, 0, -4, 4]
    pleiades += [0, 0, 0, 0, 0, 1.75, -1.5, 0, 0, 0, -1.25, 1, 0, 0]
    named: dict[str, tuple[Callable[[Any, Any, Any], Any], Any, float]] = {
        "Pleiades": (_pleiades, pleiades, 3.0),
        "Arenstorf": (
            _arenstorf,
            [0.994, 0.0, 0.0, -2.00158510637908252240537862224],
            17.0652165601579625588917206249,
        ),
        "Lotka-Volterra": (_lotka_volterra, [1.0, 1.0], 10.0),
    }
    return (
        *(
            InitialValue(name, f"DETEST {name[0]}", field, np.array(y0, float), 20.0)
            for name, (field, y0) in detest.items()
        ),
        *(
            InitialValue(name, name, field, np.array(y0, float), t1)
            for name, (field, y0, t1) in named.items()
        ),
    )
