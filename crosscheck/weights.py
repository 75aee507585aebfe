"""Weights from Flax to torch and back, by structure: the last part of a name says what it is.

| what        | Flax   | layout           | torch  | layout           |
|-------------|--------|------------------|--------|------------------|
| convolution | kernel | [*space, in, out]| weight | [out, in, *space]|
| linear      | kernel | [in, out]        | weight | [out, in]        |
| norm        | scale  | [channels]       | weight | [channels]       |
| running mean of a batch norm | mean | [channels] | running_mean | [channels] |
| running variance of one      | var  | [channels] | running_var  | [channels] |
| anything    | bias   | as it is         | bias   | as it is         |

Other names are the same on both sides. Everything before the last part is the path of attributes,
which the two packages share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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

RUNNING = {"mean": "running_mean", "var": "running_var"}  # Flax to torch
_TO_TORCH = {"scale": "weight", **RUNNING}
_TO_FLAX = {theirs: ours for ours, theirs in _TO_TORCH.items()}
# How many batches torch has seen: of no consequence to its results, and not in Flax.
COUNT = "num_batches_tracked"


class WeightsError(ValueError):
    """Weights that do not fit a model; the message names the first tensor that does not."""


def to_torch(arrays: Tensors) -> dict[str, np.ndarray]:
    """Flax names and layouts to torch's. Raises WeightsError if two become one."""
    return _renamed(_to_torch, arrays)


def to_jax(tensors: Tensors) -> dict[str, np.ndarray]:
    """Torch names and layouts to Flax's: the inverse of `to_torch`."""
    return _renamed(_to_jax, tensors)


def of_jax(model: nnx.Module) -> dict[str, np.ndarray]:
    """The parameters and running statistics of a Flax module by dotted name."""
    flat = checkpoint.flatten("", nnx.state(model))
    return {name.removeprefix("."): np.asarray(leaf) for name, leaf in flat.items()}


def of_torch(module: nn.Module) -> dict[str, np.ndarray]:
    """The parameters and running statistics of a torch module by dotted name (copies)."""
    return {name: tensor.cpu().numpy().copy() for name, tensor in _tensors(module).items()}


def unfilled(name: str, **options: Any) -> nnx.Module:
    """`jax_node.models.build` with shapes for numbers: `into_jax` fills it.

    (Drawing initial numbers compiles a function for every shape, which takes seconds.)
    """
    return nnx.eval_shape(lambda: models.build(name, **options))


def drawn(module: nn.Module, seed: int = 1) -> dict[str, np.ndarray]:
    """Random numbers for all that `of_torch` has: no scale or variance is 1, no bias 0."""
    rng = np.random.default_rng(seed)
    return {
        name: np.asarray(rng.normal(size=p.shape) / 20 + (p.ndim == 1), np.float32)
        for name, p in _tensors(module).items()
    }


def into_jax(model: nnx.Module, arrays: Tensors) -> None:
    """Put weights into a Flax module, in its dtypes; raises WeightsError if they do not fit."""
    state = nnx.state(model)
    filled = fill(state, {name: _native(array) for name, array in arrays.items()})
    nnx.update(model, jax.tree.map(lambda new, old: new.astype(old.dtype), filled, state))


def fill(state: nnx.State, arrays: Mapping[str, Array | np.ndarray]) -> nnx.State:
    """`state` with its leaves, found by dotted name, replaced by `arrays`, in their dtypes."""
    leaves, structure = jax.tree.flatten(state)
    names = [name.removeprefix(".") for name in checkpoint.flatten("", state)]
    check(arrays, {name: leaf.shape for name, leaf in zip(names, leaves, strict=True)})
    return jax.tree.unflatten(structure, [jnp.asarray(arrays[name]) for name in names])


def into_torch(module: nn.Module, tensors: Tensors) -> None:
    """Put weights into a torch module, in its dtypes; raises WeightsError if they do not fit."""
    found = _tensors(module)
    check(tensors, {name: tuple(tensor.shape) for name, tensor in found.items()})
    for name, tensor in found.items():
        tensor.copy_(torch.from_numpy(_native(tensors[name]).copy()))


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
    for name, array in found.items():
        if name not in expected:
            raise WeightsError(f"the weights have {name}, which the model lacks")
        if not jnp.issubdtype(array.dtype, jnp.number) or jnp.iscomplexobj(array):
            raise WeightsError(f"the weights have {name} as {array.dtype}; real numbers expected")


def checks(*, all_models: bool) -> list[Check]:
    """Every model's weights, Flax to torch to Flax and torch to Flax to torch, bit by bit."""
    found = []
    few = {"resnet1": ("residual",), "odenet": ("conv",)}
    for name in models.MODELS if all_models else few:
        for downsampling in ("conv", "residual") if all_models else few[name]:
            integrate: Callable | None = None if name.startswith("resnet") else _no_solver
            flax = unfilled(name, solver=integrate, downsampling=downsampling)
            twin = torch_models.build(
                name, downsampling=downsampling, solver="euler", adjoint="direct", step_size=1.0
            )
            case = f"{name}, {downsampling} downsampling, float32"
            into_torch(twin, drawn(twin))
            there = of_torch(twin)
            into_jax(flax, to_jax(there))
            start = of_jax(flax)
            into_torch(twin, to_torch(start))
            for sides in (
                {"jax": start, "jax to torch to jax": to_jax(of_torch(twin))},
                {"torch": there, "torch to jax to torch": to_torch(of_jax(flax))},
            ):
                why = "only moved, never computed with"
                found.append(compare_tensors("weights", case, sides, 0.0, why))
    return found


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    found = module.state_dict()
    return {name: tensor for name, tensor in found.items() if not name.endswith(COUNT)}


def _renamed(move: Callable, arrays: Tensors) -> dict[str, np.ndarray]:
    moved: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        other, value = move(name, array)
        if other in moved:
            raise WeightsError(f"the weights have two tensors that become {other}, one is {name}")
        moved[other] = value
    return moved


def _native(array: Any) -> np.ndarray:
    """Of a dtype that both frameworks know, whatever byte order and length numbers have."""
    array = np.asarray(array)
    if array.dtype.kind not in "iuf":  # bfloat16, among those that are numbers
        return array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array
    native = array.dtype.newbyteorder("=")
    return array.astype(np.float64 if array.dtype == np.longdouble else native)


def _no_solver(*args, **kwargs):
    raise AssertionError("moving weights solves nothing")


def _to_torch(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    path, _, kind = name.rpartition(".")
    prefix = f"{path}." if path else ""
    array = np.asarray(array)
    if kind == "kernel":
        if array.ndim < 2:
            raise WeightsError(
                f"the weights have {name} as {list(array.shape)}; [*, in, out] expected"
            )
        return f"{prefix}weight", np.moveaxis(array, (-1, -2), (0, 1))
    return prefix + _TO_TORCH.get(kind, kind), array


def _to_jax(name: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    path, _, kind = name.rpartition(".")
    prefix = f"{path}." if path else ""
    tensor = np.asarray(tensor)
    if kind == "weight" and tensor.ndim > 1:
        return f"{prefix}kernel", np.moveaxis(tensor, (0, 1), (-1, -2))
    return prefix + _TO_FLAX.get(kind, kind), tensor
