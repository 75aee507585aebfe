"""ODE-Net with a step size for every image, by vmap of the solve, against one for the batch.

The loop runs until the slowest image is done, and every image has its own gradient of the weights
until the end, since the vector field's parameters are shared under vmap.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.harness.markdown import table
from experiments.speed import contests
from experiments.speed import measure as measuring
from jax_node import classify, models
from jax_node.learner import State, train_step
from jax_node.optimizer import transformation
from jax_node.solve import Solution, solve

SOLVE = functools.partial(solve, solver="dopri5", adjoint="direct", max_steps=64)


def per_sample(field, y0, ts, args, *, backward=None) -> Solution:
    """`solve` for every image of `[height, width, batch, channels]` by itself; totals of counts."""
    one = lambda y: SOLVE(field, y[:, :, None], ts, args, backward=backward)
    each = jax.vmap(one, in_axes=2)(y0)
    ys = jnp.moveaxis(each.ys[:, :, :, :, 0], 0, 3)
    told = jax.lax.stop_gradient(each._replace(ys=None))
    one = jax.tree.map(lambda values: values[jnp.argmin(told.ok)], told)  # failed, if one did
    counts = ("nfe", "accepted", "rejected", "nonconverged")
    totals = {name: getattr(told, name).sum() for name in counts}
    return one._replace(ys=ys, **totals)


def measure(batch_size: int, repeats: int) -> list[dict[str, Any]]:
    """Rows of seconds a training step, mean steps and NFE an image, loss and peak memory."""
    solvers: dict[str, Callable[..., Solution]] = {"the batch": SOLVE, "every image": per_sample}
    calls = {name: _call(solver, batch_size) for name, solver in solvers.items()}
    found = measuring.take_turns(calls, repeats)
    shares = {"the batch": 1, "every image": batch_size}
    return [
        {"one step size for": name, **result,
         **{key: result[key] / shares[name] for key in ("steps", "nfe_forward", "nfe_backward")},
         "peak_mb": measuring.alone(_call, solvers[name], batch_size)["peak_mb"]}
        for name, result in found.items()
    ]  # fmt: skip


def _call(solver: Callable[..., Solution], batch_size: int) -> Callable[[], dict[str, float]]:
    """A training step of ODE-Net with `solver`, without changing its weights."""
    batch = {name: jnp.asarray(part) for name, part in contests.digits(batch_size).items()}
    graph, weights = nnx.split(models.build("odenet", solver=solver), nnx.Param)
    optimizer = transformation("sgd", 0.9)
    state = State(weights, optimizer.init(weights), jnp.zeros((), jnp.int32))
    step = jax.jit(functools.partial(train_step, graph, optimizer, classify.loss))

    def call() -> dict[str, float]:
        rate = jnp.zeros((), jnp.float32)
        _, made = jax.block_until_ready(step(state, batch, rate))
        made.solution.check()
        return {name: float(value) for name, value in made.metrics.items()}

    return call


def markdown(record: Mapping[str, Any]) -> str:
    """The table for a page."""
    headers = ["one step size for", "ms", "steps", "NFE fwd/bwd", "loss", "peak MB"]
    body = []
    for row in record["per_sample"]:
        peak = "-" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
        nfe = f"{row['nfe_forward']:.1f}/{row['nfe_backward']:.1f}"
        cells = f"{1e3 * row['seconds']:.0f}", f"{row['steps']:.2f}", nfe, f"{row['loss']:.6f}"
        body.append([row["one step size for"], *cells, peak])
    return table(headers, body) + (
        "\nA training step of ODE-Net, `direct` gradients; steps and NFE are means an image.\n"
    )
