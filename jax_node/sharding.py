"""A batch over several devices: a mesh with one axis, `data`; XLA partitions the program.

Weights and optimiser state are whole on every device, images and labels are split along the batch.
The program is the one for a single device. Wherever it sums over the batch (the loss, the gradient
and the error norm of an adaptive step) XLA adds a sum over the devices, so all of them take the
same steps, and the result does not depend on their number but for rounding.

Several hosts run the same: each calls `jax.distributed.initialize()` first, `jax.devices()` is then
the devices of all, and each gives its part of the batch to
`jax.make_array_from_process_local_data(split(mesh, batch_size), part)`.
"""

import contextlib

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jax_node.device import choose


def make_mesh(device: str, count: int) -> Mesh:
    """The first `count` devices of a kind (see `device.choose`) in a row.

    The processor is divided into as many devices as are asked for, if JAX has not been used before.

    Raises:
        ValueError: there are fewer; the message says how many.
    """
    if count < 1:
        raise ValueError(f"{count} devices were asked for; at least 1 expected")
    if count > 1:
        with contextlib.suppress(RuntimeError):  # JAX is in use: its devices are fixed
            jax.config.update("jax_num_cpu_devices", count)
    found = jax.devices(choose(device).platform)
    if len(found) < count:
        raise ValueError(
            f"{count} devices were asked for and JAX has {len(found)} ({found[0].platform}): lower "
            "--devices"
        )
    return Mesh(np.array(found[:count]), ("data",))


def whole(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh, batch_size: int) -> NamedSharding:
    """The leading axis cut into equal parts; if that does not go, a copy on every device.

    The last batch of an evaluation may have any size, and then gains nothing by more devices.
    """
    return whole(mesh) if batch_size % mesh.size else NamedSharding(mesh, PartitionSpec("data"))
