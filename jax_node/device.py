"""Which device, which precision: the global settings of JAX, made in one place and by verbs."""

import importlib.metadata

import jax
import jax.numpy as jnp


def choose(device: str) -> jax.Device:
    """The first device of a kind: `auto` (the fastest there is), `cpu`, `gpu` or `tpu`.

    Raises:
        ValueError: there is no such device here; the message names those there are.
    """
    try:
        return jax.devices(None if device == "auto" else device)[0]
    except RuntimeError:
        found = sorted({d.platform for d in jax.devices()} | {"cpu"})
        raise ValueError(
            f"JAX finds no {device!r} here, only {', '.join(found)}: choose one as `device` "
            "(for NVIDIA, install the extra: pip install -e '.[cuda]')"
        ) from None


def use_precision(precision: str) -> jnp.dtype:
    """Switch JAX's 64-bit types on for float64, and return the type of weights and state.

    `bfloat16` is a precision of convolutions only, whose weights and results are float32.
    """
    if precision == "float64":
        jax.config.update("jax_enable_x64", True)
    return jnp.dtype("float32" if precision == "bfloat16" else precision)


def describe(*devices: jax.Device) -> str:
    """Devices of one kind in words."""
    name, kind = devices[0].platform, devices[0].device_kind
    number = f", {len(devices)} devices" if len(devices) > 1 else ""
    return (name if name == "cpu" else f"{name}: {kind}") + number


def versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    names = ("jax", "jaxlib", "flax", "optax", "diffrax", "equinox", "orbax-checkpoint")
    return {name: importlib.metadata.version(name) for name in names}
