"""Weights from Flax to torch and back, by structure: the last part of a name says what it is.

| what        | Flax   | layout           | torch  | layout           |
|-------------|--------|------------------|--------|------------------|
| convolution | kernel | [*space, in, out]| weight | [out, in, *space]|
| linear      | kernel | [in, out]        | weight | [out, in]        |
| norm        | scale  | [channels]       | weight | [channels]       |
| anything    | bias   | as it is         | bias   | as it is         |

Other names are the same on both sides. Everything before the last part is the path of attributes,
which the two packages share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from jaxtyping import Array
from torch import nn

from crosscheck.check import Check, Tensors, compare_tensors
from jax_node import checkpoint, models
from torch_node import models as torch_models


class WeightsError(ValueError):
    """Weights that do not fit a model; the message names the first tensor that does not."""


def to_torch(arrays: Tensors) -> dict[str, np.ndarray]:
    """Flax names and layouts to torch's."""
    return dict(_to_torch(name, array) for name, array in arrays.items())


def to_jax(tensors: Tensors) -> dict[str, np.ndarray]:
    """Torch names and layouts to Flax's: the inverse of `to_torch`."""
    return dict(_to_jax(name, tensor) for name, tensor in tensors.items())


def of_jax(model: nnx.Module) -> dict[str, np.ndarray]:
    """The parameters of a Flax module by dotted name."""
    flat = checkpoint.flatten("", nnx.state(model, nnx.Param))
    return {name.removeprefix("."): np.asarray(leaf) for name, leaf in flat.items()}


def of_torch(module: nn.Module) -> dict[str, np.ndarray]:
    """The parameters of a torch module by dotted name (copies)."""
    return {name: p.detach().cpu().numpy().copy() for name, p in module.named_parameters()}


def into_jax(model: nnx.Module, arrays: Tensors) -> None:
    """Put weights into a Flax module, in its dtypes; raises WeightsError if they do not fit."""
    state = nnx.state(model, nnx.Param)
    filled = fill(state, arrays)
    nnx.update(model, jax.tree.map(lambda new, old: new.astype(old.dtype), filled, state))


def fill(state: nnx.State, arrays: Mapping[str, Array | np.ndarray]) -> nnx.State:
    """`state` with its leaves, found by dotted name, replaced by `arrays`, in their dtypes."""
    leaves, structure = jax.tree.flatten(state)
    names = [name.removeprefix(".") for name in checkpoint.flatten("", state)]
    check(arrays, {name: leaf.shape for name, leaf in zip(names, leaves, strict=True)})
    return jax.tree.unflatten(structure, [jnp.asarray(arrays[name]) for name in names])


def into_torch(module: nn.Module, tensors: Tensors) -> None:
    """Put weights into a torch module, in its dtypes; raises WeightsError if they do not fit."""
    check(tensors, {name: tuple(p.shape) for name, p in module.named_parameters()})
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(torch.from_numpy(np.array(tensors[name])))


def check(found: Mapping[str, Array | np.ndarray], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise WeightsError naming the first missing, misshapen or extra tensor."""
    for name, shape in expected.items():
        if name not in found:
            raise WeightsError(f"the weights lack {name}, which the model needs as {list(shape)}")
        if tuple(found[name].shape) != tuple(shape):
            raise WeightsError(
                f"the weights have {name} as {list(found[name].shape)}, the model needs "
                f"{list(shape)}: they belong to another model"
            )
    for name in found:
        if name not in expected:
            raise WeightsError(f"the weights have {name}, which the model lacks")


def checks(*, all_models: bool) -> list[Check]:
    """Every model's weights, Flax to torch to Flax and torch to Flax to torch, bit by bit."""
    found = []
    few = {"resnet1": ("residual",), "odenet": ("conv",)}
    for name in models.MODELS if all_models else few:
        for downsampling in ("conv", "residual") if all_models else few[name]:
            integrate: Callable | None = None if name.startswith("resnet") else _no_solver
            flax = models.build(name, solver=integrate, downsampling=downsampling, seed=1)
            twin = torch_models.build(
                name, downsampling=downsampling, solver="euler", adjoint="direct", step_size=1.0
            )
            case = f"{name}, {downsampling} downsampling, float32"
            start = of_jax(flax)
            into_torch(twin, to_torch(start))
            there = of_torch(twin)
            found.append(
                compare_tensors(
                    "weights",
                    case,
                    {"jax": start, "jax to torch to jax": to_jax(there)},
                    0.0,
                    "only moved, never computed with",
                )
            )
            into_jax(flax, to_jax(there))
            found.append(
                compare_tensors(
                    "weights",
                    case,
                    {"torch": there, "torch to jax to torch": to_torch(of_jax(flax))},
                    0.0,
                    "only moved, never computed with",
                )
            )
    return found


def _no_solver(*args, **kwargs):
    raise AssertionError("moving weights solves nothing")


def _to_torch(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    path, _, kind = name.rpartition(".")
    prefix = f"{path}." if path else ""
    array = np.asarray(array)
    if kind == "kernel":
        return f"{prefix}weight", np.moveaxis(array, (-1, -2), (0, 1))
    return f"{prefix}weight" if kind == "scale" else name, array


def _to_jax(name: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    path, _, kind = name.rpartition(".")
    prefix = f"{path}." if path else ""
    tensor = np.asarray(tensor)
    if kind == "weight" and tensor.ndim > 1:
        return f"{prefix}kernel", np.moveaxis(tensor, (0, 1), (-1, -2))
    return f"{prefix}scale" if kind == "weight" else name, tensor
