"""Layer by layer: every module of the torch model, its inputs caught, against its Flax namesake.

Each layer gets the inputs that torch's had, so that a fault shows in its own layer and not in
those after it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch import nn

from crosscheck import jax_side, torch_side, weights
from crosscheck.check import Check, compare_tensors
from crosscheck.problem import EPS, Problem, condition
from jax_node.solve import solve
from torch_node import models as torch_models

SOLVE: dict[str, Any] = {"solver": "rk4", "step_size": 0.25}
TIMES = np.array([0.0, 0.3, 1.0])
# Inputs and output of every submodule of a torch model, by its dotted name.
Caught = dict[str, tuple[tuple[np.ndarray, ...], np.ndarray]]


def twins(
    name: str,
    params: Mapping[str, np.ndarray] | None,
    precision: str,
    downsampling: str = "conv",
    norm: str = "group",
) -> tuple[nnx.Module, nn.Module]:
    """The model in both frameworks with the same weights: `params` (Flax names), or drawn ones."""
    options: dict[str, Any] = {"downsampling": downsampling, "norm": norm}
    twin = torch_models.build(name, adjoint="direct", **options, **SOLVE)
    twin = twin.to(getattr(torch, precision))
    found = weights.drawn(twin) if params is None else weights.to_torch(params)
    weights.into_torch(twin, found)
    flax = weights.unfilled(
        name,
        solver=functools.partial(solve, adjoint="checkpoint", **SOLVE),
        dtype=jnp.dtype(precision),
        **options,
    )
    weights.into_jax(flax, weights.to_jax(found))
    return flax, twin


def checks(
    name: str,
    params: Mapping[str, np.ndarray] | None,
    images: np.ndarray,
    precision: str,
    downsampling: str = "conv",
    norm: str = "group",
) -> list[Check]:
    """Every layer of a model, in training, and its logits; `images`: uint8 `[batch, 28, 28, 1]`."""
    with jax_side.precision(precision):
        flax, twin = twins(name, params, precision, downsampling, norm)
        logits, caught = _catch(twin, images, precision)
        graph, state = nnx.split(flax)
        case = f"{name}, {downsampling} downsampling, {precision}"
        case += "" if norm == "group" else f", norm {norm}"
        found = _layer_checks(case, graph, state, caught, EPS[precision])
        model = jax.jit(lambda state, images: nnx.merge(graph, state)(images).logits)
        ours = np.asarray(model(state, jnp.asarray(images, precision) / 255))
    found.append(
        compare_tensors(
            "layers",
            f"{case}, logits",
            {"jax": {"logits": ours}, "torch": {"logits": logits}},
            100 * np.sqrt(1024) * EPS[precision],
            "100 eps sqrt(1024): some 10 to 40 layers one after another",
        )
    )
    return found


def layer_checks(
    name: str, params: Mapping[str, np.ndarray] | None, images: np.ndarray
) -> list[Check]:
    """Every layer of a model in float64, without its logits."""
    with jax_side.precision("float64"):
        flax, twin = twins(name, params, "float64")
        _, caught = _catch(twin, images, "float64")
        graph, state = nnx.split(flax)
        return _layer_checks(f"{name}, float64", graph, state, caught, EPS["float64"])


def _layer_checks(
    case: str, graph: Any, state: nnx.State, caught: Caught, eps: float
) -> list[Check]:
    inputs = {
        layer: tuple(jnp.asarray(_turned(array)) for array in arrays)
        for layer, (arrays, _) in caught.items()
    }

    @jax.jit
    def every_layer(state, inputs):
        model: Any = nnx.merge(graph, state)
        return {layer: _submodule(model, layer)(*args) for layer, args in inputs.items()}

    outputs = every_layer(state, inputs)
    # The longest sum is over 4 * 4 * 64 = 1024 numbers; errors add up like a random walk, and
    # Winograd's products lose another factor of 10.
    bound = max(1e-12 if eps < 1e-12 else 0, 10 * np.sqrt(1024) * eps)
    return [
        compare_tensors(
            "layers",
            f"{case}, {layer}",
            {"jax": {layer: _turned(np.asarray(outputs[layer]))}, "torch": {layer: expected}},
            bound,
            "10 eps sqrt(longest sum = 1024); at least 1e-12 in float64",
        )
        for layer, (_, expected) in caught.items()
    ]


def field_checks(
    problem: Problem, precision: str = "float64", times: np.ndarray = TIMES
) -> list[Check]:
    """The vector field at y0 and some times, in both frameworks and, in float64, in numpy."""
    names = [f"t={t:.15g}" for t in times]
    left = dict(zip(names, jax_side.field(problem, times, precision), strict=True))
    right = dict(zip(names, torch_side.field(problem, times, precision), strict=True))

    def values(moved: Problem) -> dict[str, np.ndarray]:
        return dict(zip(names, torch_side.field(moved, times, precision), strict=True))

    kappa = condition(problem, values) if precision == "float64" else 1.0
    bound = 1e-12 * kappa
    reason = f"the same formula in float64, x condition {kappa:.2g}"
    if precision == "float32":
        bound = 10 * problem.stable * np.sqrt(problem.operations) * EPS[precision]
        reason = f"10 eps sqrt({problem.operations} terms) x {problem.stable:g} (Winograd: 10)"
    case = f"{problem.name}, {precision}"
    group = "vector field"
    found = [compare_tensors(group, case, {"jax": left, "torch": right}, bound, reason)]
    if problem.numpy is not None and precision == "float64":
        y0 = problem.to_torch_layout(problem.y0)
        third = {
            name: problem.numpy(np.float64(t), y0, problem.torch_params())
            for name, t in zip(names, times, strict=True)
        }
        for name, side in (("jax", left), ("torch", right)):
            sides = {name: side, "numpy": third}
            found.append(compare_tensors(group, case, sides, bound, reason))
    return found


def features(
    name: str, params: Mapping[str, np.ndarray], images: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The vector field's weights in a model (Flax names), and the states it starts from."""
    twin = torch_models.build(name, adjoint="direct", **SOLVE).double()
    weights.into_torch(twin, weights.to_torch(params))
    _, caught = _catch(twin, images, "float64")
    inside = {
        key.removeprefix("field."): np.asarray(value, np.float64)
        for key, value in params.items()
        if key.startswith("field.")
    }
    return inside, caught["downsample"][1]


def _catch(module: nn.Module, images: np.ndarray, precision: str) -> tuple[np.ndarray, Caught]:
    """Logits, and each submodule's inputs and output in its last call (at t = 1 in the field)."""
    caught: Caught = {}

    def hook(name: str, _: nn.Module, args: tuple, output: torch.Tensor) -> None:
        caught[name] = tuple(a.numpy().copy() for a in args), output.numpy().copy()

    handles = [
        child.register_forward_hook(functools.partial(hook, name))
        for name, child in module.named_modules()
        if name and not isinstance(child, nn.ModuleList)
    ]
    pixels = torch.tensor(images[..., 0][:, None], dtype=getattr(torch, precision)) / 255
    with torch.no_grad():
        logits = module(pixels).logits
    for handle in handles:
        handle.remove()
    return logits.numpy(), caught


def _submodule(model: Any, path: str) -> Any:
    for part in path.split("."):
        model = model[int(part)] if part.isdigit() else getattr(model, part)
    return model


def _turned(a: np.ndarray) -> np.ndarray:
    """Images from torch's layout to that of JAX here, or back; times and vectors as they are."""
    return a.transpose(2, 3, 0, 1) if a.ndim == 4 else a
