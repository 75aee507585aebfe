"""Train an application in a run folder: what dynamics.py and cnf.py share.

The pattern is that of mnist.py: a run's folder holds its flags, metrics, checkpoints and results,
and a stopped run goes on with the numbers of an unbroken one.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from rich.console import Console
from tyro.conf import arg

from experiments.harness import flags, loop
from experiments.harness.command import say
from experiments.harness.errors import ConfigError
from experiments.harness.files import write_atomic
from experiments.harness.provenance import environment, short
from experiments.harness.run_folder import RunFolder, default_folder

Config = TypeVar("Config")
# What a resumed run may change: how long, and where.
FREE = {"epochs", "device"}


@dataclass(frozen=True)
class Backend:
    """The flags of every model: an application's `Model` adds its own."""

    framework: Literal["jax", "torch"] = "jax"
    """Flax and diffrax, or PyTorch and torchdiffeq."""
    precision: Literal["float32", "float64"] = "float32"
    """Floating-point type of everything."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Where to compute."""


@dataclass(frozen=True)
class Run:
    """Where results go, and going on from earlier ones."""

    out: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: runs/...)")] = (
        None
    )
    """New folder for this run."""
    resume: Annotated[Path | None, arg(metavar="RUN", help_behavior_hint="(default: none)")] = None
    """Go on with the run in this folder, with its flags; --epochs may be larger."""
    smoke: bool = False
    """Tiny defaults: everything runs, in seconds, and nothing is learnt."""


@dataclass(frozen=True)
class Training:
    """How long and how fast it is trained, with Adam."""

    epochs: Annotated[int, arg(metavar="N")] = 20
    """Times that metrics, a checkpoint and a picture are made."""
    steps_per_epoch: Annotated[int, arg(metavar="N")] = 500
    """Steps of Adam between them."""
    lr: Annotated[float, arg(metavar="RATE")] = 5e-3
    """Learning rate at the start."""
    lr_schedule: Literal["cosine", "steps", "plateau", "constant"] = "cosine"
    """As for mnist.py: cosine falls to 0 over the run; constant stays."""
    warmup: Annotated[float, arg(metavar="EPOCHS")] = 0.0
    """Over so many epochs the rate first rises to what the schedule says, linearly from 0."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """Seed of the data, the initial weights and all that is drawn in training."""

    def check(self) -> None:
        """Raise `ConfigError` for a value out of range."""
        flags.at_least("--epochs", self.epochs)
        flags.at_least("--steps-per-epoch", self.steps_per_epoch)
        flags.positive("--lr", self.lr)
        flags.check_warmup(self.warmup, self.epochs)
        flags.check_seed(self.seed)


def parse(
    prog: str, examples: str, arguments: Sequence[str], default: Config, smoke: Config
) -> tuple[Config, RunFolder | None]:
    """The configuration, and the folder of the run to go on with, open, if there is one.

    `smoke` has the defaults under --smoke. Raises `ConfigError` and `RunError`.
    """
    base = smoke if "--smoke" in arguments else default
    config: Any = flags.parse(prog, examples, arguments, base)
    if config.run.resume is None:
        return config, None
    if config.run.out:
        raise ConfigError("--out does not go with --resume; results stay in the run's folder.")
    folder = RunFolder.open(config.run.resume)
    try:
        saved: Any = flags.from_json(type(default), folder.read_json("config.json")["flags"])
        config = flags.parse(prog, examples, arguments, dataclasses.replace(saved, run=Run()))
        flags.check_resumed(saved, config, FREE)
    except Exception:
        folder.close()
        raise
    return config, folder


def learner(module: Any, config: Any, *arguments: Any, **options: Any) -> Any:
    """`module.learner` with these and the flags of `Backend`, `ConfigError` if it refuses them."""
    model = config.model
    options |= {
        "seed": config.training.seed, "precision": model.precision, "device": model.device
    }  # fmt: skip
    try:
        return module.learner(*arguments, **options)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None


def command_line(prog: str, arguments: Sequence[str]) -> str:
    """The command as a reader would give it: without the folder for its results."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument != "--out" and not argument.startswith("--out="):
            kept.append(argument)
        skip = argument == "--out"
    return shlex.join(["python", f"experiments/{prog}", *kept])


def start(
    prog: str,
    names: tuple[str, str],
    config: Any,
    folder: RunFolder | None,
    learner: Any,
    data: dict[str, Any],
    arguments: Sequence[str],
    console: Console,
) -> RunFolder:
    """Open a new folder (for `names`, dataset and model) or note the resumption of an old one."""
    say(console, "device", f"{learner.device_name}; {learner.parameter_count:,} parameters")
    record = {
        "flags": flags.to_json(config),
        "data": data,
        "device": learner.device_name,
        "parameters": learner.parameter_count,
        **environment(learner.versions),
        "commands": [command_line(prog, arguments)],
    }
    if folder is None:
        path = config.run.out or default_folder(
            *names, config.model.framework, config.training.seed
        )
        return RunFolder.create(path, record)
    say(console, "resume", f"{folder.path} after epoch {folder.epoch}")
    record["commands"] = folder.read_json("config.json")["commands"] + record["commands"]
    folder.write_json("config.json", record)
    return folder


def train(
    prog: str,
    folder: RunFolder,
    learner: Any,
    config: Any,
    batch: Callable[[int], dict[str, Any]],
    evaluate: Callable[[int], dict[str, Any]],
    console: Console,
    line: Callable[[dict[str, Any], int], str],
) -> list[dict[str, Any]]:
    """Train from the last saved epoch to the last one asked for; returns the rows of all epochs.

    `batch(step)` must depend on nothing but the step. `evaluate(epoch)` returns metrics, `score`
    (lower is better) among them. `line` words a row. Raises `RunFailedError`.
    """
    steps = config.training.steps_per_epoch
    rows = folder.rewind()
    loop.load_checkpoint(learner, folder.last)
    batches = lambda epoch: (batch(step) for step in range((epoch - 1) * steps, epoch * steps))
    loop.train(
        folder, rows, learner, config, steps, batches, evaluate, console, status=_status, line=line
    )
    return rows


def costs(rows: list[dict[str, Any]], config: Any, learner: Any) -> dict[str, Any]:
    """What every summary.json says about time and size."""
    per_epoch = statistics.median(row["seconds_train"] for row in rows)
    return {
        "epochs": len(rows),
        "parameters": learner.parameter_count,
        "seconds_per_step": per_epoch / config.training.steps_per_epoch,
        "seconds_total": sum(row["seconds_train"] + row["seconds_eval"] for row in rows),
        "device": learner.device_name,
    }


def write_summary(folder: RunFolder, summary: dict[str, Any], text: str) -> None:
    """Write summary.json, and summary.md: `text`, with what a reader needs to repeat it."""
    folder.write_json("summary.json", summary)
    config = folder.read_json("config.json")
    commands = "; ".join(f"`{command}`" for command in config["commands"])
    footer = (
        f"\n{commands}: seed {config['flags']['training']['seed']}, {summary['epochs']} epochs, "
        f"{summary['seconds_total']:.0f} s on {summary['device']} (load average "
        f"{os.getloadavg()[2]:.0f} on {os.cpu_count()} cores), "
        f"{summary['parameters']:,} parameters, commit {short(config['git_commit'])}.\n"
    )
    write_atomic(folder.path / "summary.md", text + footer)


def _status(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
