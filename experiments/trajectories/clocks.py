"""What a batch of irregular times costs: `python experiments/irregular_cost.py --out FOLDER`.

Samples that are each observed at their own times can be solved on a clock of their own
(jax_node/irregular.py), or on one clock that stops at the times of all of them. Both are measured
in turns on the same network, with the gradient of a sum of squares in its weights.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from rich.console import Console
from tyro.conf import arg

from experiments.harness import flags
from experiments.harness.command import command, show
from experiments.harness.files import write_atomic
from experiments.harness.markdown import table
from experiments.harness.provenance import environment, short
from experiments.series.series import Series
from experiments.trajectories import shooting

PROG = "irregular_cost.py"
EXAMPLES = """examples:
  python experiments/irregular_cost.py --out /tmp/cost
"""


@dataclass(frozen=True)
class Config:
    """Compare a clock for each sample with one clock for all: evaluations, memory, time."""

    samples: Annotated[int, arg(metavar="N")] = 32
    """Samples in the batch."""
    observations: Annotated[int, arg(metavar="N")] = 40
    """Observations of each, at random times."""
    width: Annotated[int, arg(metavar="N")] = 64
    """Units of the field's two hidden layers."""
    repeats: Annotated[int, arg(metavar="N")] = 11
    """Gradients of each kind; the medians are compared."""
    out: Annotated[Path | None, flags.named("FOLDER", "none")] = None
    """Where to write summary.md."""


def run(arguments: list[str], console: Console) -> None:
    """Everything `main` does, with errors as exceptions."""
    config = flags.parse(PROG, EXAMPLES, arguments, Config())
    flags.counts(config, "samples", "width", "repeats")
    flags.counts(config, "observations", least=2)
    if config.out and not config.out.is_dir():
        raise flags.ConfigError(f"--out {config.out} is no folder; make it first.")
    text = clocks(config) + "\n" + padding(config)
    commit = short(environment({})["git_commit"])
    text += f"\n`python experiments/{PROG}`: seed 0, float32, commit {commit}.\n"
    show(console, text)
    if config.out:
        write_atomic(config.out / "summary.md", text)


main = command(PROG, run)


def clocks(config: Config) -> str:
    """Evaluations, memory and time of the gradient by both ways, as a table."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from jax_node.irregular import solve_at
    from jax_node.mlp import MLP

    generator = np.random.default_rng(0)
    size = (config.samples, config.observations)
    ts = np.sort(generator.uniform(0, 6, size), axis=1).astype(np.float32)
    ts[:, 0] = 0  # all start together, so that one clock can serve them
    common, index = np.unique(ts, return_inverse=True)
    y0 = jnp.asarray(generator.normal(size=(config.samples, 2)), jnp.float32)
    network = MLP((2, config.width, config.width, 2), rngs=nnx.Rngs(0))
    graph, weights = nnx.split(network)
    field = lambda t, y, weights: nnx.merge(graph, weights)(y)

    def own(weights):
        return solve_at(field, y0, jnp.asarray(ts), weights)

    def shared(weights):
        everywhere = jnp.broadcast_to(common, (config.samples, len(common)))
        ys = solve_at(field, y0, everywhere, weights)
        return jnp.take_along_axis(ys, index.reshape(size)[..., None], axis=1)

    ways = {"a clock for each sample": (own, size[1]), "one clock for all": (shared, len(common))}
    compiled: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for name, (way, _) in ways.items():
        gradient = jax.grad(lambda weights, way=way: jnp.sum(way(weights) ** 2))
        compiled[name] = jax.jit(gradient).lower(weights).compile()
    for _ in range(config.repeats):
        for name, call in compiled.items():
            began = time.process_time()
            jax.block_until_ready(call(weights))
            seconds[name].append(time.process_time() - began)
    least = statistics.median(seconds["a clock for each sample"])
    body = []
    for name, (_, times) in ways.items():
        memory = compiled[name].memory_analysis().temp_size_in_bytes / 2**20
        ratio = statistics.median(seconds[name]) / least
        body.append([name, 4 * (times - 1), f"{memory:.1f}", f"{ratio:.1f}"])
    headers = ["gradient through rk4", "field evaluations a sample", "MiB of temporaries"]
    title = f"{size[0]} samples, each at {size[1]} times of its own.\n\n"
    return title + table([*headers, "processor time, relative"], body)


def padding(config: Config) -> str:
    """How much of a batch of unequally long series is padding: whole, and in windows."""
    generator = np.random.default_rng(0)
    counts = generator.integers(max(2, config.observations // 4), config.observations + 1, 32)
    series = []
    for count in counts:
        times = np.cumsum(generator.uniform(0.1, 1, count))
        series.append(Series(times, generator.normal(size=(count, 2)), ("x", "y")))
    batch = shooting.prepare(series, 5, log=False).batch
    idle = {
        "whole series": np.mean(np.diff(batch["all_times"], axis=1) == 0),
        "windows of 5 intervals": np.mean(np.diff(batch["times"], axis=1) == 0),
    }
    body = [[name, f"{100 * share:.1f} %"] for name, share in idle.items()]
    title = f"32 series of {counts.min()} to {counts.max()} observations in one batch.\n\n"
    return title + table(["solved as", "intervals that are padding"], body)
