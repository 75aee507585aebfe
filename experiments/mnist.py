"""Train and evaluate ResNet, RK-Net or ODE-Net on MNIST: `python experiments/mnist.py --help`."""

from __future__ import annotations

import dataclasses
import importlib
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from rich.console import Console

from experiments import config as configuration
from experiments import data, plots, progress
from experiments.config import Config, ConfigError
from experiments.idx import DataError
from experiments.results import RunError, RunFolder, default_folder, environment
from experiments.schedule import learning_rate


class RunFailedError(RuntimeError):
    """Training or evaluation came to an end that no flag check could foresee; one sentence."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 for a failed run, 2 for bad input."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        run(given, console)
    except (ConfigError, DataError, RunError) as error:
        print(f"mnist.py: {error}", file=sys.stderr)
        return 2
    except RunFailedError as error:
        print(f"mnist.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mnist.py: interrupted; continue with --resume.", file=sys.stderr)
        return 130
    return 0


def run(arguments: list[str], console: Console) -> None:
    """Everything `main` does, with errors as exceptions."""
    config = configuration.parse(arguments)
    earlier = config.run.resume or config.run.evaluate
    folder = None
    if earlier:
        folder, config = reopen(earlier, arguments)
    config = configuration.resolve(config)
    framework = importlib.import_module(f"{config.model.framework}_node.train")
    check_solver(config)
    say(console, "training", configuration.describe(config))
    dataset = load_data(config, console)
    if folder:
        check_same_data(folder, dataset)
    learner = build_learner(framework, config)
    say(console, "device", f"{learner.device_name}; {learner.parameter_count:,} parameters")
    record = {
        "flags": configuration.to_json(config),
        "data": {
            "title": dataset.title,
            "source": dataset.source,
            "sha256": dataset.checksum,
        },
        "device": learner.device_name,
        "parameters": learner.parameter_count,
        **environment(learner.versions),
        "commands": [shlex.join(["python", "experiments/mnist.py", *arguments])],
    }
    if folder is None:
        names = config.data.dataset, config.model.name, config.model.framework
        path = config.run.out or default_folder(*names, config.training.seed)
        folder = RunFolder.create(path, record)
    if config.run.evaluate or folder.epoch == config.training.epochs:
        evaluate_best(folder, learner, dataset, config, console)
        return
    if earlier:
        say(console, "resume", f"{folder.path} after epoch {folder.epoch}")
        record["commands"] = folder.read_json("config.json")["commands"] + record["commands"]
        folder.write_json("config.json", record)
    train(folder, framework, learner, dataset, config, console)


def reopen(path: Path, arguments: list[str]) -> tuple[RunFolder, Config]:
    """An earlier run and its flags, with what `arguments` may change of them changed."""
    folder = RunFolder.open(path)
    saved = configuration.from_json(folder.read_json("config.json")["flags"])
    saved = dataclasses.replace(saved, run=configuration.Run())
    config = configuration.parse(arguments, default=saved)
    if config.run.resume and config.run.evaluate:
        raise ConfigError("--resume and --evaluate exclude each other.")
    if config.run.out:
        raise ConfigError(f"--out does not go with an earlier run; its results stay in {path}.")
    clashes = configuration.contradictions(saved, config)
    if clashes:
        raise ConfigError(
            f"a run keeps its flags, but {', '.join(clashes)} differs; start a new run instead."
        )
    if config.training.epochs < saved.training.epochs:
        raise ConfigError(
            f"--epochs {config.training.epochs} is less than the run's {saved.training.epochs}; "
            "it may only grow."
        )
    if config.training.epochs > saved.training.epochs:
        print(
            f"extended from {saved.training.epochs} to {config.training.epochs} epochs: from here "
            f"on the {config.training.lr_schedule} schedule is the one for {config.training.epochs}"
        )
    return folder, config


def check_solver(config: Config) -> None:
    """Let the framework check the names of the method and of the gradient."""
    if config.solver.solver is None:
        return
    solve = importlib.import_module(f"{config.model.framework}_node.solve")
    try:
        solve.check(config.solver.solver, config.solver.adjoint, config.solver.step_size)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def load_data(config: Config, console: Console) -> data.Dataset:
    """Load the images and say which they are."""
    flags = config.data
    dataset = data.load(
        flags.dataset,
        flags.source,
        data_dir=flags.data_dir,
        tfds_dir=flags.tfds_dir,
        limit_train=flags.limit_train,
        limit_test=flags.limit_test,
    )
    say(console, "data", dataset.title + (f" ({dataset.note})" if dataset.note else ""))
    if config.training.batch_size > len(dataset.train_labels):
        raise ConfigError(
            f"--batch-size is {config.training.batch_size}, more than the "
            f"{len(dataset.train_labels)} training images."
        )
    return dataset


def check_same_data(folder: RunFolder, dataset: data.Dataset) -> None:
    """Refuse to go on with other images than those the run began with."""
    saved = folder.read_json("config.json")["data"]
    if saved["sha256"] != dataset.checksum:
        raise RunError(
            f"the run was made with {saved['title']} (SHA-256 {saved['sha256'][:12]}), but the "
            f"data are now {dataset.title} ({dataset.checksum[:12]}); pass the --source or "
            "--data-dir it had."
        )


def build_learner(framework: ModuleType, config: Config) -> Any:
    """The framework's `Learner`, with its complaints about values turned into `ConfigError`."""
    try:
        return framework.Learner(**configuration.learner_arguments(config))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def train(
    folder: RunFolder,
    framework: ModuleType,
    learner: Any,
    dataset: data.Dataset,
    config: Config,
    console: Console,
) -> None:
    """Train from the last saved epoch to the last one asked for; write and print the results."""
    solve = importlib.import_module(f"{config.model.framework}_node.solve")
    failures = (framework.NonFiniteLossError, solve.SolveError)
    rows = folder.rewind()
    load_checkpoint(learner, folder.last)
    epochs, batch_size = config.training.epochs, config.training.batch_size
    steps = len(dataset.train_labels) // batch_size
    title = f"{configuration.describe(config)}\n{dataset.title}"
    compiling = True
    with progress.TrainingProgress(epochs, folder.epoch, steps, console) as bar:
        for epoch in range(folder.epoch + 1, epochs + 1):
            done: list[dict[str, float]] = []
            seconds: list[float] = []
            rate = 0.0
            try:
                for images, labels in dataset.epoch_batches(
                    config.training.seed, epoch, batch_size, config.training.augment
                ):
                    rate = scheduled_rate(config, steps, (epoch - 1) * steps + len(done))
                    start = time.perf_counter()
                    done.append(learner.train_step(images, labels, rate))
                    seconds.append(time.perf_counter() - start)
                    bar.step(epoch, done[-1])
                tested = evaluate(learner, dataset, batch_size)
            except failures as error:
                raise RunFailedError(stop(folder, learner, epoch, len(done), error)) from None
            row = {"epoch": epoch, **summarise_steps(done), **tested, "learning_rate": rate}
            row["seconds_train"] = steady_seconds(seconds, compiling)
            row["first_step_seconds"] = seconds[0] if compiling else None
            compiling = False
            rows.append(row)
            folder.commit_epoch(row, learner.save)
            bar.epoch(row)
    summary = summarise_run(folder, learner, dataset, config, rows)
    folder.write_json("summary.json", summary)
    plots.plot_curves(rows, title, folder.path / "curves.png")
    progress.print_summary(console, summary)


def scheduled_rate(config: Config, steps_per_epoch: int, step: int) -> float:
    """Learning rate of a step, counted from 0 over the run."""
    training = config.training
    assert training.lr is not None
    return learning_rate(
        training.lr_schedule,
        training.lr,
        step=step,
        steps_per_epoch=steps_per_epoch,
        epochs=training.epochs,
    )


def evaluate(learner: Any, dataset: data.Dataset, batch_size: int) -> dict[str, float]:
    """Test error in per cent, mean test loss, mean NFE of a forward solve, and seconds."""
    start = time.perf_counter()
    errors, loss, nfe = 0.0, 0.0, []
    for images, labels in dataset.test_batches(batch_size):
        result = learner.evaluate(images, labels)
        errors += result["errors"]
        loss += result["loss"] * len(labels)
        nfe.append(result["nfe_forward"])
    count = len(dataset.test_labels)
    return {
        "test_error": 100 * errors / count,
        "test_loss": loss / count,
        "test_nfe_forward": float(np.mean(nfe)),
        "seconds_eval": time.perf_counter() - start,
    }


def evaluate_best(
    folder: RunFolder, learner: Any, dataset: data.Dataset, config: Config, console: Console
) -> None:
    """Evaluate the best checkpoint of a run and print its error."""
    if folder.best is None:
        raise RunError(f"{folder.path} has no checkpoint yet; train it with --resume first.")
    load_checkpoint(learner, folder.best)
    solve = importlib.import_module(f"{config.model.framework}_node.solve")
    try:
        result = evaluate(learner, dataset, config.training.batch_size)
    except solve.SolveError as error:
        raise RunFailedError(f"evaluation failed: {error}") from None
    console.print(
        f"test error {result['test_error']:.2f} % after epoch {folder.best_epoch}, the best of "
        f"{folder.epoch}; {folder.path}",
        highlight=False,
        soft_wrap=True,
    )


def load_checkpoint(learner: Any, path: Path | None) -> None:
    """Restore a checkpoint; `RunError` if it is damaged or another model's."""
    if path is None:
        return
    try:
        learner.load(path.absolute())
    except ValueError as error:
        raise RunError(f"{path} does not fit this run: {error}") from None


def stop(folder: RunFolder, learner: Any, epoch: int, step: int, error: Exception) -> str:
    """Save the last good state of a run that failed; returns the sentence to end it with."""
    path = folder.save_stopped(epoch, step, learner.save)
    message = (
        f"epoch {epoch}, step {step + 1} failed: {str(error).rstrip('.')}; "
        f"{folder.epoch} finished epoch(s) are kept, and the last good state is in {path}."
    )
    folder.write_json("summary.json", {"failed": message, "epochs": folder.epoch})
    return message


def summarise_steps(steps: list[dict[str, float]]) -> dict[str, float]:
    """Means over an epoch's training steps, under the names of metrics.jsonl."""
    names = {
        "train_loss": "loss",
        "train_accuracy": "accuracy",
        "nfe_forward": "nfe_forward",
        "nfe_backward": "nfe_backward",
        "solver_steps": "steps",
        "rejected_steps": "rejected",
    }
    return {name: float(np.mean([step[key] for step in steps])) for name, key in names.items()}


def steady_seconds(seconds: list[float], compiling: bool) -> float:
    """Time of an epoch's steps; a first step that compiles counts as the median of the others."""
    if compiling and len(seconds) > 1:
        return statistics.median(seconds[1:]) + sum(seconds[1:])
    return sum(seconds)


def summarise_run(
    folder: RunFolder,
    learner: Any,
    dataset: data.Dataset,
    config: Config,
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    """Contents of summary.json: what the final table shows."""
    last, best = rows[-1], next(row for row in rows if row["epoch"] == folder.best_epoch)
    first_steps = [row["first_step_seconds"] for row in rows if row["first_step_seconds"]]
    return {
        "model": config.model.name,
        "training": configuration.describe(config),
        "data": dataset.title,
        "data_sha256": dataset.checksum,
        "epochs": last["epoch"],
        "test_error": last["test_error"],
        "best_test_error": best["test_error"],
        "best_epoch": best["epoch"],
        "parameters": learner.parameter_count,
        "nfe_forward": last["nfe_forward"],
        "nfe_backward": last["nfe_backward"],
        "seconds_per_epoch": statistics.median(row["seconds_train"] for row in rows),
        "first_step_seconds": first_steps[-1],
        "run": str(folder.path),
    }


def say(console: Console, topic: str, text: str) -> None:
    """Print one line of the header."""
    console.print(f"{topic:9s} {text}", highlight=False, soft_wrap=True, markup=False)


if __name__ == "__main__":
    sys.exit(main())
