"""A batch over several devices: a mesh with one axis, `data`.

Weights and optimiser state are whole on every device, images and labels are split along the batch.
By `by_device` every device runs the program for one device on its part, and they meet only where
the batch is summed over: in the error norm of an adaptive step, so that all take the same steps,
and once in the loss and the gradient. On a CPU a core then keeps its part from one end of the step
to the other, where XLA's threads would divide every single operation. Without `by_device` XLA
partitions the program by itself: the same numbers, slower. Either way the result does not depend
on the number of devices but for rounding (of `adjoint` through Adams methods, or of `args` that are
split as the batch is, but for the tolerances).

Several hosts run the same: each calls `jax.distributed.initialize()` first, `jax.devices()` is then
the devices of all, and each gives its part of the batch to
`jax.make_array_from_process_local_data(split(mesh, batch_size), part)`.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, PyTree

from jax_node.device import choose

AXIS = "data"
WHOLE, SPLIT = P(), P(AXIS)


def make_mesh(device: str, count: int = 1) -> Mesh:
    """The first `count` devices of a kind (see `device.choose`) in a row.

    The processor is divided into as many devices as are asked for, if JAX has not been used before.

    Raises:
        ValueError: there are fewer; the message says how many.
    """
    if count < 1:
        raise ValueError(f"{count} devices were asked for; at least 1 expected")
    if count > 1:
        divide_processor(count)
    found = jax.devices(choose(device).platform)
    if len(found) < count:
        raise ValueError(
            f"{count} devices were asked for and JAX has {len(found)} ({found[0].platform}): lower "
            "their number"
        )
    return Mesh(np.array(found[:count]), (AXIS,))


def default_count(device: str, batch_size: int) -> int:
    """As many devices as pay: all that the CPU is divided into, if each gets 16 images or more.

    Accelerators are often shared, so of them it is one. Raises ValueError if there is no such
    device.
    """
    if choose(device).platform != "cpu":
        return 1
    counts = range(1, len(jax.devices("cpu")) + 1)
    return max((n for n in counts if batch_size % n == 0 and batch_size // n >= 16), default=1)


def divide_processor(count: int) -> None:
    """Make `count` devices of the CPU, unless JAX is in use: its devices are fixed then."""
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", count)


def whole(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, WHOLE)


def split(mesh: Mesh, batch_size: int) -> NamedSharding:
    """The leading axis cut into equal parts; if that does not go, a copy on every device.

    The last batch of an evaluation may have any size, and then gains nothing by more devices.
    """
    return whole(mesh) if batch_size % mesh.size else NamedSharding(mesh, SPLIT)


def by_device(function: Callable, mesh: Mesh, batched: tuple[bool, ...], outputs: Any) -> Callable:
    """`function`, run by every device of `mesh` on its part of the arguments that are `batched`.

    `outputs` are the `PartitionSpec`s of what it returns. A batch that cannot be cut into equal
    parts goes to all devices whole.
    """
    specs = tuple(SPLIT if is_batched else WHOLE for is_batched in batched)
    parts = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=outputs, check_vma=False)

    def run(*arguments):
        size = len(jax.tree.leaves(arguments[batched.index(True)])[0])
        return (function if size % mesh.size or mesh.size == 1 else parts)(*arguments)

    return run


def count() -> int:
    """How many devices share the batch of the function being traced."""
    return jax.lax.axis_size(AXIS) if _inside() else 1


def mean(values: Float[Array, " batch"]) -> Float[Array, ""]:
    """This device's share of the mean over the whole batch; the `total` of the shares is it."""
    return values.sum() / (len(values) * count())


def total(tree: PyTree) -> PyTree:
    """The sum of every leaf over the devices that share the batch."""
    return jax.lax.psum(tree, AXIS) if _inside() else tree


def largest(number: Float[Array, ""]) -> Float[Array, ""]:
    """The largest over the devices that share the batch; it is not differentiated."""
    return jax.lax.pmax(jax.lax.stop_gradient(number), AXIS) if _inside() else number


def everywhere(truth: Bool[Array, ""]) -> Bool[Array, ""]:
    """Whether it holds on all devices that share the batch."""
    return total((~truth).astype(np.int32)) == 0


def _inside() -> bool:
    return AXIS in jax.sharding.get_abstract_mesh().manual_axes
