"""A convolution's weight gradient inside a loop: `python experiments/convolution_in_loop.py`.

A minimal reproduction of https://github.com/jax-ml/jax/issues/12868 on a CPU, and two remedies.
Prints a table in Markdown.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import Array, lax

from jax_node import conv

LAYOUT = ("NHWC", "HWIO", "NHWC")
TURNS = 10


def plain(x: Array, kernel: Array) -> Array:
    """3x3 convolution with zero padding; XLA finds the gradient's layout by itself."""
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)


@jax.custom_vjp
def canonical(x: Array, kernel: Array) -> Array:
    """The same, with a weight gradient in the one order that XLA's fast path on CPU knows.

    It is a convolution too, of the input by the cotangent: batch takes the part of the features and
    features that of the batch. The barriers keep XLA from folding the transpositions into it.
    """
    return plain(x, kernel)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return plain(x, kernel), (x, kernel)


def _backward(residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    dx = plain(g, jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    x, g = lax.optimization_barrier((x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)))
    padding = ((1, 1), (1, 1))
    dkernel = lax.conv_general_dilated(x, g, (1, 1), padding, dimension_numbers=LAYOUT)
    return dx, lax.optimization_barrier(dkernel).transpose(1, 2, 0, 3)


canonical.defvjp(_forward, _backward)


def as_products(x: Array, kernel: Array) -> Array:
    """The same as matrix products, as the models here have it."""
    return conv.same3x3(x.transpose(1, 2, 0, 3), kernel).transpose(2, 0, 1, 3)


def milliseconds(convolve: Callable[[Array, Array], Array], turns: int) -> float:
    """Median time of a weight gradient, alone (`turns` 1) or in a loop."""
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (128, 6, 6, 64))
    kernel = jax.random.normal(keys[1], (3, 3, 64, 64))
    gradient = jax.grad(lambda kernel: jnp.sum(convolve(x, kernel) ** 2))
    body = lambda _, kernel: kernel - 1e-9 * gradient(kernel)
    run = jax.jit(lambda kernel: lax.fori_loop(0, turns, body, kernel) if turns > 1
                  else body(0, kernel))  # fmt: skip
    jax.block_until_ready(run(kernel))
    times = []
    for _ in range(7):
        start = time.perf_counter()
        jax.block_until_ready(run(kernel))
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times) / turns


def main() -> int:
    """Run the command line."""
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    if len(sys.argv) > 1:
        print(f"{Path(__file__).name}: takes no arguments", file=sys.stderr)
        return 2
    print("| weight gradient of a 3x3 convolution, 128 images 6x6x64 | ms alone | ms in a loop |")
    print("|---|---|---|")
    for name, convolve in (
        ("`lax.conv_general_dilated`", plain),
        ("in canonical order between barriers", canonical),
        ("as matrix products (`conv.same3x3`)", as_products),
    ):
        alone, looped = (milliseconds(convolve, turns) for turns in (1, TURNS))
        print(f"| {name} | {alone:.1f} | {looped:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
