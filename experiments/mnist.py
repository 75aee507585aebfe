"""Train and evaluate ResNet, RK-Net or ODE-Net on MNIST: `python experiments/mnist.py --help`."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
from types import ModuleType
from typing import Any

from rich.console import Console

from experiments.classify import config as configuration
from experiments.classify.config import Config
from experiments.classify.data import load
from experiments.classify.resolve import (
    FREE_ON_RESUME,
    build_learner,
    learner_arguments,
    resolve,
)
from experiments.classify.summary import SELECTED
from experiments.classify.training import evaluate, train
from experiments.harness import frameworks, workers
from experiments.harness.command import command, say, show
from experiments.harness.errors import ConfigError, RunError, RunFailedError
from experiments.harness.flags import check_resumed, complaints, to_json
from experiments.harness.loop import load_checkpoint
from experiments.harness.provenance import environment
from experiments.harness.run_folder import RunFolder, default_folder
from experiments.images.dataset import Dataset


def run(arguments: list[str], console: Console) -> None:
    """Everything `main` does, with errors as exceptions."""
    config = configuration.parse(arguments)
    earlier = config.run.resume or config.run.evaluate
    with contextlib.ExitStack() as locks:
        folder = locks.enter_context(RunFolder.open(earlier)) if earlier else None
        if folder:
            config = saved_config(folder, arguments)
        execute(config, folder, locks, arguments, console)


def execute(
    config: Config,
    folder: RunFolder | None,
    locks: contextlib.ExitStack,
    arguments: list[str],
    console: Console,
) -> None:
    """Train or evaluate in an earlier run's `folder`, or in a new one that joins `locks`."""
    config = resolve(config)
    module = frameworks.module(config.model.framework, "classify")
    check_solver(config)
    say(console, "training", configuration.describe(config))
    dataset = load_data(config, console)
    config = settle_data(config, dataset)
    if folder:
        check_same_data(folder, dataset)
    config = settle_devices(module, config)
    learner = build_learner(config)
    say(console, "device", f"{learner.device_name}; {learner.parameter_count:,} parameters")
    record = {
        "flags": to_json(config),
        "data": {
            "title": dataset.title,
            "source": dataset.source,
            "sha256": dataset.checksum,
            "shape": dataset.shape,
            "classes": dataset.classes,
        },
        "device": learner.device_name,
        "parameters": learner.parameter_count,
        **environment(learner.versions),
        "commands": [shlex.join(["python", "experiments/mnist.py", *arguments])],
    }
    if folder is None:
        names = dataset.name, config.model.name, config.model.framework
        path = config.run.out or default_folder(*names, config.training.seed)
        folder = locks.enter_context(RunFolder.create(path, record))
    if config.run.evaluate or folder.finished(config.training.epochs):
        evaluate_best(folder, learner, dataset, config, console)
        return
    if config.run.resume:
        say(console, "resume", f"{folder.path} after epoch {folder.epoch}")
        folder.resume(record)
    train(folder, learner, dataset, config, console)


def saved_config(folder: RunFolder, arguments: list[str]) -> Config:
    """The flags of an earlier run, with what `arguments` may change of them changed."""
    saved = configuration.from_json(folder.read_json("config.json", {"flags": dict})["flags"])
    saved = dataclasses.replace(saved, run=configuration.Run())
    config = configuration.parse(arguments, default=saved)
    if config.run.resume and config.run.evaluate:
        raise ConfigError("--resume and --evaluate exclude each other.")
    if config.run.out:
        raise ConfigError(
            f"--out does not go with an earlier run; its results stay in {folder.path}."
        )
    check_resumed(saved, config, FREE_ON_RESUME)
    if config.training.epochs > saved.training.epochs:
        print(
            f"extended from {saved.training.epochs} to {config.training.epochs} epochs: from here "
            f"on the {config.training.lr_schedule} schedule is the one for {config.training.epochs}"
        )
    return config


def check_solver(config: Config) -> None:
    """Let the framework check the names of the method and of the gradient."""
    if config.solver.solver is None:
        return
    solve = frameworks.module(config.model.framework, "solve")
    with complaints():
        solve.check(config.solver.solver, config.solver.adjoint, config.solver.step_size)


def load_data(config: Config, console: Console) -> Dataset:
    """Load the images and say which they are."""
    dataset = load(config.data)
    say(console, "data", dataset.title + (f" ({dataset.note})" if dataset.note else ""))
    if config.training.batch_size > len(dataset.train_labels):
        raise ConfigError(
            f"--batch-size is {config.training.batch_size}, more than the "
            f"{len(dataset.train_labels)} training images."
        )
    least = frameworks.module(config.model.framework, "models").SMALLEST
    if min(dataset.shape[:2]) < least:
        height, width, _ = dataset.shape
        raise ConfigError(
            f"the images have {height}x{width} pixels; at least {least}x{least} expected, for they "
            "are made four times smaller."
        )
    return dataset


def settle_data(config: Config, dataset: Dataset) -> Config:
    """The configuration with the source that was used, to be found again, and the images' kind."""
    flags = config.data
    folder = flags.data_dir.expanduser().absolute() if flags.data_dir else None
    flags = dataclasses.replace(
        flags,
        source=dataset.source,
        data_dir=folder,
        channels=dataset.shape[-1],
        classes=len(dataset.classes),
    )
    return dataclasses.replace(config, data=flags)


def check_same_data(folder: RunFolder, dataset: Dataset) -> None:
    """Refuse to go on with other images than those the run began with."""
    kinds = {"data.sha256": str, "data.title": str}
    saved = folder.read_json("config.json", kinds)["data"]
    if saved["sha256"] != dataset.checksum:
        raise RunError(
            f"the run was made with {saved['title']} (SHA-256 {saved['sha256'][:12]}), but the "
            f"data are now {dataset.title} ({dataset.checksum[:12]}); pass the --source or "
            "--data-dir it had."
        )


def settle_devices(module: ModuleType, config: Config) -> Config:
    """The configuration with a number of devices: if none is given, as many as pay."""
    if config.model.devices is not None:
        return config
    cores = len(workers.available_cores())
    with complaints():
        count = module.default_devices(
            config.training.batch_size, cores, **learner_arguments(config)
        )
    return dataclasses.replace(config, model=dataclasses.replace(config.model, devices=count))


def evaluate_best(
    folder: RunFolder, learner: Any, dataset: Dataset, config: Config, console: Console
) -> None:
    """Evaluate the best checkpoint of a run and print its error."""
    if folder.best is None:
        raise RunError(f"{folder.path} has no checkpoint yet; train it with --resume first.")
    load_checkpoint(learner, folder.best)
    solve = frameworks.module(config.model.framework, "solve")
    try:
        result = evaluate(learner, dataset, config.training.batch_size)
    except solve.SolveError as error:
        raise RunFailedError(f"evaluation failed: {error}") from None
    show(
        console,
        f"test error {result['test_error']:.2f} % with the weights after epoch "
        f"{folder.best_epoch} of {folder.epoch}, {SELECTED[config.training.select or 'last']}; "
        f"{folder.path}",
    )


main = command("mnist.py", run)

if __name__ == "__main__":
    sys.exit(main())
