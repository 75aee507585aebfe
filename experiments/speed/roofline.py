"""Where a step's time goes: arithmetic and memory traffic of each layer, against the cores' own.

A program can be no faster than its floating-point operations at the speed of a matrix product, nor
than its bytes at the speed of a copy (Williams, Waterman and Patterson 2009). Operations and bytes
are XLA's own count for the compiled program: what convolutions by Winograd still multiply, and
what every fused kernel reads and writes. What is found in a cache counts too, while the copy is of
arrays that fit in none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure

from experiments.harness.figures import BLUE, ORANGE, bare, save
from experiments.harness.markdown import table
from experiments.speed import measure as measuring
from jax_node import blocks

SIDE = 2048  # of the matrices multiplied
COPIED = 2**26  # bytes read and as many written


def measure(batch_size: int, repeats: int) -> dict[str, Any]:
    """GFLOP, gigabytes and seconds of each part, and the `roof`: GFLOP/s and GB/s of the device."""
    matrix, row = jnp.ones((SIDE, SIDE), jnp.float32), jnp.ones(COPIED // 4, jnp.float32)
    programs = {
        "product": _program(jnp.matmul, matrix, matrix),
        "copy": _program(jnp.negative, row),
        **_parts(batch_size),
    }
    calls = {name: call for name, (call, _) in programs.items()}
    found = measuring.take_turns(calls, repeats)
    seconds = {name: result["seconds"] for name, result in found.items()}
    rows = [
        {"part": name, "gflop": cost["flops"] / 1e9, "gb": cost["bytes accessed"] / 1e9,
         "seconds": seconds[name]}
        for name, (_, cost) in programs.items()
    ]  # fmt: skip
    product, copy, *parts = rows
    return {
        "gflops": product["gflop"] / product["seconds"],
        "gb_per_second": copy["gb"] / copy["seconds"],
        "parts": parts,
    }


Program = tuple[Callable[[], dict[str, float]], Mapping[str, float]]


def _program(function: Callable[..., Any], *arguments: Any) -> Program:
    """A call of the compiled `function`, and XLA's count of its operations and bytes."""
    compiled = jax.jit(function).lower(*arguments).compile()

    def call() -> dict[str, float]:
        jax.block_until_ready(compiled(*arguments))
        return {}

    cost = compiled.cost_analysis()
    assert cost, "XLA counts no operations on this platform"
    return call, cost


def _parts(batch_size: int) -> dict[str, Program]:
    """The layers of the models forward, and with the gradient in weights and input."""
    rngs = nnx.Rngs(0)
    images = jnp.asarray(np.random.default_rng(0).random((28, 28, batch_size, 1)), jnp.float32)
    features = jnp.broadcast_to(images[:6, :6], (6, 6, batch_size, blocks.CHANNELS))
    modules: dict[str, tuple[nnx.Module, Sequence[Any]]] = {
        "downsampling": (blocks.ConvDownsample(rngs=rngs), [images]),
        "residual block": (blocks.Residual(rngs=rngs), [features]),
        "vector field": (blocks.VectorField(rngs=rngs), [jnp.float32(0.5), features]),
        "head": (blocks.Head(final_relu=True, rngs=rngs), [features]),
    }
    programs = {}
    for name, (module, inputs) in modules.items():
        graph, weights = nnx.split(module)
        forward = lambda weights, *inputs, graph=graph: nnx.merge(graph, weights)(*inputs)
        programs[name] = _program(forward, weights, *inputs)
        gradient = lambda *arguments, forward=forward: _vjp(forward, *arguments)
        programs[f"{name}, with gradient"] = _program(gradient, weights, *inputs)
    return programs


def _vjp(function: Callable[..., Any], *arguments: Any) -> Any:
    out, pull = jax.vjp(function, *arguments)
    return pull(out)


def least_seconds(record: Mapping[str, Any], part: Mapping[str, Any]) -> tuple[float, float]:
    """What the operations take at the product's speed, and the bytes at the copy's."""
    return part["gflop"] / record["gflops"], part["gb"] / record["gb_per_second"]


def markdown(record: Mapping[str, Any]) -> str:
    """The table for a page."""
    found = record["roofline"]
    headings = ["", "ms", "GFLOP", "MB", "GFLOP/s", "ms by arithmetic", "ms by memory", "share"]
    body = []
    for part in found["parts"]:
        arithmetic, memory = least_seconds(found, part)
        body.append([
            part["part"], f"{1e3 * part['seconds']:.2f}", f"{part['gflop']:.3f}",
            f"{1e3 * part['gb']:.0f}", f"{part['gflop'] / part['seconds']:.0f}",
            f"{1e3 * arithmetic:.2f}", f"{1e3 * memory:.2f}",
            f"{max(arithmetic, memory) / part['seconds']:.0%}",
        ])  # fmt: skip
    return table(headings, body) + (
        f"\nOne device. A matrix product runs at {found['gflops']:.0f} GFLOP/s, a copy at "
        f"{found['gb_per_second']:.1f} GB/s; the share is of the speed "
        "that the slower of the two allows.\n"
    )


def plot(found: Mapping[str, Any], path: Path) -> None:
    """A bar a part: measured, and what its arithmetic alone and its memory alone would take."""
    parts = found["parts"]
    figure = Figure(figsize=(8, 0.5 * len(parts) + 1), dpi=110, layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(parts))
    arithmetic, memory = zip(*(least_seconds(found, part) for part in parts), strict=True)
    for offset, color, seconds, name in (
        (-0.25, "lightgray", [part["seconds"] for part in parts], "measured"),
        (0, ORANGE, memory, "its bytes at the speed of a copy"),
        (0.25, BLUE, arithmetic, "its arithmetic at the speed of a matrix product"),
    ):
        axes.barh(places + offset, 1e3 * np.array(seconds), 0.25, color=color, label=name)
    axes.set_yticks(places, [part["part"] for part in parts], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds")
    axes.legend(fontsize=8, frameon=False)
    bare(axes)
    save(path, figure)
