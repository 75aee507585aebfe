"""Train an application in a run folder: what dynamics, latent_ode, cnf and augmented share.

The pattern is that of mnist.py: a run's folder holds its flags, metrics, checkpoints and results,
and a stopped run goes on with the numbers of an unbroken one.
"""

from __future__ import annotations

import contextlib
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

from experiments.harness import flags, frameworks, loop
from experiments.harness.command import Main, command, say, show
from experiments.harness.errors import ConfigError
from experiments.harness.files import write_atomic
from experiments.harness.provenance import environment, short
from experiments.harness.run_folder import RunFolder, default_folder, nan_for_null

Config = TypeVar("Config")
# What a resumed run may change: how long, and where.
FREE = {"epochs", "device"}
FLAGS = {"flags": dict}


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

    out: Annotated[Path | None, flags.named("FOLDER", "runs/...")] = None
    """New folder for this run."""
    resume: Annotated[Path | None, flags.named("RUN", "none")] = None
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
        flags.counts(self, "epochs", "steps_per_epoch")
        flags.positive("--lr", self.lr)
        flags.check_warmup(self.warmup, self.epochs)
        flags.check_seed(self.seed)


def check_solver(config: Any) -> None:
    """Raise `ConfigError` unless --solver is one that steps from observation to observation."""
    known, solver = frameworks.module(config.model.framework, "irregular").METHODS, config.solver
    if solver.solver not in known:
        raise ConfigError(f"--solver {solver.solver} is unknown here; choose {', '.join(known)}.")


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
        saved: Any = flags.from_json(type(default), folder.read_json("config.json", FLAGS)["flags"])
        config = flags.parse(prog, examples, arguments, dataclasses.replace(saved, run=Run()))
        flags.check_resumed(saved, config, FREE)
    except Exception:
        folder.close()
        raise
    return config, folder


@dataclass(frozen=True)
class Plan:
    """What a command line asks for.

    Attributes:
        config: its flags, checked and resolved.
        title: of the data, in words.
        names: of dataset and model, for the name of a run folder.
        source: of the data, as flags name it.
        shape: what the module's `learner` takes first.
        options: what it takes by name, besides the flags of `Backend` and the seed.
        work: all that is done in the run folder.
    """

    config: Any
    title: str
    names: tuple[str, str]
    source: str
    shape: Any
    options: dict[str, Any]
    work: Callable[[Session], None]


@dataclass(frozen=True)
class Session:
    """A run under way, in its locked folder; `module` has the framework's functions for it."""

    config: Any
    title: str
    folder: RunFolder
    module: Any
    learner: Any
    console: Console

    def apply(self, function: str, **arrays: Any) -> Any:
        """The module's `function` of the model with its present weights."""
        return self.learner.apply(getattr(self.module, function), **arrays)

    def train(
        self,
        batch: Callable[[int], dict[str, Any]],
        evaluate: Callable[[int], dict[str, Any]],
        line: Callable[[dict[str, Any], int], str],
    ) -> list[dict[str, Any]]:
        """Train from the last saved epoch to the last one asked for; returns all epochs' rows.

        `batch(step)` must depend on nothing but the step. `evaluate(epoch)` returns metrics,
        `score` (lower is better) among them. `line` words a row. Raises `RunFailedError`.
        """
        steps = self.config.training.steps_per_epoch
        rows = self.folder.rewind()
        loop.load_checkpoint(self.learner, self.folder.last)
        batches = lambda epoch: (batch(step) for step in range((epoch - 1) * steps, epoch * steps))
        loop.train(
            self.folder, rows, self.learner, self.config, steps, batches, evaluate, self.console,
            status=_status, line=line,
        )  # fmt: skip
        return rows

    def frames(self) -> Path:
        """The folder for what each epoch gives to an animation."""
        path = self.folder.path / "frames"
        path.mkdir(exist_ok=True)
        return path

    def finish(
        self,
        rows: list[dict[str, Any]],
        results: dict[str, Any],
        text: Callable[[dict[str, Any]], str],
    ) -> None:
        """Write summary.json with `results`, and from it summary.md (see `page`); print `text`."""
        config = self.folder.read_json("config.json")
        per_epoch = statistics.median(row["seconds_train"] for row in rows)
        seconds = sum(row["seconds_train"] + row["seconds_eval"] for row in rows)
        summary = {
            "data": self.title,
            **results,
            "epochs": len(rows),
            "parameters": self.learner.parameter_count,
            "seconds_per_step": per_epoch / self.config.training.steps_per_epoch,
            "seconds_total": seconds,
            "device": self.learner.device_name,
            "seed": self.config.training.seed,
            "commands": config["commands"],
            "commit": short(config["git_commit"]),
            "load": round(os.getloadavg()[2]),
            "cores": os.cpu_count(),
        }
        self.folder.write_json("summary.json", summary)
        write_atomic(self.folder.path / "summary.md", page(summary, text))
        show(self.console, text(summary))
        say(self.console, "run", f"{self.folder.path} ({seconds:.0f} s)")


def page(summary: dict[str, Any], text: Callable[[dict[str, Any]], str]) -> str:
    """A run's summary.md from its summary.json: the data, `text`, and the command to repeat it."""
    summary = nan_for_null(summary)
    commands = "; ".join(f"`{command}`" for command in summary["commands"])
    return (
        f"{summary['data']}.\n\n{text(summary)}\n{commands}: seed {summary['seed']}, "
        f"{summary['epochs']} epochs, {summary['seconds_total']:.0f} s on {summary['device']} "
        f"(load average {summary['load']} on {summary['cores']} cores), "
        f"{summary['parameters']:,} parameters, commit {summary['commit']}.\n"
    )


def main(
    prog: str,
    examples: str,
    name: str,
    default: Config,
    smoke: Config,
    plan: Callable[[Config], Plan],
) -> Main:
    """The `main` of an application: its flags, its run folder, its learner, and then its work.

    Args:
        prog: the command's file.
        examples: what `--help` shows last.
        name: of the module with `learner`, the same in both frameworks.
        default: flags that are not given.
        smoke: the same under --smoke.
        plan: from flags to what is done; raises `ConfigError` and `DataError`.
    """

    def run(arguments: list[str], console: Console) -> None:
        config, folder = parse(prog, examples, arguments, default, smoke)
        with contextlib.ExitStack() as locks:
            if folder:
                locks.enter_context(folder)
            made = plan(config)
            say(console, "data", made.title)
            module = frameworks.module(made.config.model.framework, name)
            model, seed = made.config.model, made.config.training.seed
            backend = {"seed": seed, "precision": model.precision, "device": model.device}
            with flags.complaints():
                trained = module.learner(made.shape, **made.options, **backend)
            folder = _start(prog, made, folder, trained, arguments, console)
            locks.enter_context(folder)
            made.work(Session(made.config, made.title, folder, module, trained, console))

    return command(prog, run)


def _start(
    prog: str,
    plan: Plan,
    folder: RunFolder | None,
    learner: Any,
    arguments: Sequence[str],
    console: Console,
) -> RunFolder:
    """Open a new folder or note the resumption of an old one."""
    say(console, "device", f"{learner.device_name}; {learner.parameter_count:,} parameters")
    record = {
        "flags": flags.to_json(plan.config),
        "data": {"title": plan.title, "source": plan.source},
        "device": learner.device_name,
        "parameters": learner.parameter_count,
        **environment(learner.versions),
        "commands": [_command_line(prog, arguments)],
    }
    if folder is None:
        framework, seed = plan.config.model.framework, plan.config.training.seed
        path = plan.config.run.out or default_folder(*plan.names, framework, seed)
        return RunFolder.create(path, record)
    say(console, "resume", f"{folder.path} after epoch {folder.epoch}")
    folder.resume(record)
    return folder


def _command_line(prog: str, arguments: Sequence[str]) -> str:
    """The command as a reader would give it: without the folder for its results."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument != "--out" and not argument.startswith("--out="):
            kept.append(argument)
        skip = argument == "--out"
    return shlex.join(["python", f"experiments/{prog}", *kept])


def _status(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
