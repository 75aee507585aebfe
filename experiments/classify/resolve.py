"""Settle a configuration: defaults that depend on other flags, and checks of every value."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from experiments.classify.config import Config, Data, Solver, Training, parse
from experiments.harness import frameworks
from experiments.harness.errors import ConfigError
from experiments.harness.flags import (
    at_least_zero,
    check_seed,
    check_warmup,
    complaints,
    counts,
    positive,
)

# A resumed run may change these: they do not change what is computed, or (epochs) say how long.
# Data may have moved: their checksum is compared instead.
FREE_ON_RESUME = {"epochs", "device", "devices", "source", "data_dir", "tfds_dir"}


def resolve(config: Config) -> Config:
    """Settle the defaults that depend on other flags, and check every value.

    Solver and gradient names are the framework's to check, and JAX's devices its to count. Raises
    `ConfigError`.
    """
    model, solver, training, data = config.model, config.solver, config.training, config.data
    if not re.fullmatch(r"odenet|rknet|resnet[1-9]\d*", model.name):
        raise ConfigError(
            f"--model {model.name} is unknown; choose odenet, rknet, resnet6, resnet1 or resnet "
            "with another number of blocks."
        )
    counts(model, "devices")
    if model.framework != "jax":
        if model.devices not in (None, 1):
            raise ConfigError("--devices belongs to --framework jax; torch has one device here.")
        model = dataclasses.replace(model, devices=1)
    if training.batch_size % (model.devices or 1):
        raise ConfigError(
            f"--batch-size {training.batch_size} cannot be split evenly over --devices "
            f"{model.devices}; choose a multiple."
        )
    positive("--t1", solver.t1)
    at_least_zero("--kinetic-weight", training.kinetic_weight)
    at_least_zero("--jacobian-weight", training.jacobian_weight)
    solver = _resolve_solver(config)
    if training.optimizer == "adam" and training.momentum is not None:
        raise ConfigError("--momentum belongs to --optimizer sgd; leave it out with adam.")
    momentum = training.momentum if training.momentum is not None else 0.9
    training = dataclasses.replace(
        training,
        momentum=momentum if training.optimizer == "sgd" else None,
        lr={"sgd": 0.1, "adam": 1e-3}[training.optimizer] if training.lr is None else training.lr,
    )
    positive("--rtol", solver.rtol)
    positive("--atol", solver.atol)
    positive("--lr", training.lr)
    if solver.step_size is not None and not 0 < solver.step_size <= solver.t1:
        raise ConfigError(
            f"--step-size is {solver.step_size}; above 0 and at most --t1 ({solver.t1:g}) expected."
        )
    if not 0 <= momentum < 1:
        raise ConfigError(f"--momentum is {momentum}; at least 0 and below 1 expected.")
    checked = model.framework == "jax" and solver.solver is not None
    if training.check_gradient is not None and not checked:
        raise ConfigError("--check-gradient is for an ODE-Net or RK-Net in --framework jax.")
    check_parts(data)
    if training.select == "validation" and not data.validation:
        raise ConfigError("--select validation needs images for it: --validation N.")
    select = training.select or ("validation" if data.validation else "last")
    training = dataclasses.replace(training, select=select)
    if training.start_from is not None:
        folder = training.start_from.expanduser().absolute()
        training = dataclasses.replace(training, start_from=folder)
    check_seed(training.seed)
    counts(solver, "max_steps")
    counts(training, "epochs", "check_gradient", "batch_size")
    counts(data, "limit_train", "limit_test")
    check_warmup(training.warmup, training.epochs)
    return dataclasses.replace(config, model=model, solver=solver, training=training)


def check_parts(data: Data) -> None:
    """Raise `ConfigError` for parts of the images that cannot be."""
    counts(data, "validation", least=0)
    counts(data, "folds", least=2)
    if (data.folds is None) != (data.fold is None):
        raise ConfigError("--folds K and --fold k go together: how many, and which one to test on.")
    if data.folds is not None and data.fold is not None and not 0 <= data.fold < data.folds:
        raise ConfigError(f"--fold is {data.fold}; 0 to {data.folds - 1} expected.")


def learner_arguments(config: Config) -> dict[str, Any]:
    """Keyword arguments of a framework's `Learner`, from a resolved configuration.

    Devices that are not settled yet (see `mnist.settle_devices`) are one.
    """
    model, training = config.model, config.training
    of = lambda group, *names: {name: getattr(group, name) for name in names}
    return {
        "model": model.name,
        **of(model, "final_relu", "downsampling", "norm", "precision", "device"),
        **({"n_devices": model.devices} if (model.devices or 1) > 1 else {}),
        **of(config.data, "channels", "classes"),
        **dataclasses.asdict(config.solver),
        **of(training, "optimizer", "seed", "kinetic_weight", "jacobian_weight"),
        "momentum": training.momentum if training.momentum is not None else 0.0,
    }


def build_learner(config: Config, **changes: Any) -> Any:
    """A framework's learner, with `changes`; its complaints about values are `ConfigError`s."""
    module = frameworks.module(config.model.framework, "classify")
    with complaints():
        return module.learner(**learner_arguments(config) | changes)


def learner_options(arguments: Sequence[str]) -> dict[str, Any]:
    """Keyword arguments of the `Learner` that `mnist.py` would make from a command line."""
    return learner_arguments(resolve(parse(arguments)))


def _resolve_solver(config: Config) -> Solver:
    model, solver = config.model, config.solver
    if model.name.startswith("resnet"):
        given = dataclasses.asdict(solver) | dataclasses.asdict(config.training)
        defaults = dataclasses.asdict(Solver()) | dataclasses.asdict(Training())
        for field in ("solver", "adjoint", "step_size", "t1", "kinetic_weight", "jacobian_weight"):
            if given[field] != defaults[field]:
                flag = "--" + field.replace("_", "-")
                raise ConfigError(f"{flag} means nothing to {model.name}, which solves no ODE.")
        return solver
    method = solver.solver or {"odenet": "dopri5", "rknet": "rk4"}[model.name]
    step_size = solver.step_size
    if solver.solver is None and model.name == "rknet" and step_size is None:
        step_size = solver.t1 / 4
    torch_adjoint = {"odenet": "adjoint", "rknet": "direct"}[model.name]
    # JAX's fast `direct` is not for the adaptive Adams method, of which it would keep all there is.
    jax_adjoint = "checkpoint" if method == "adams" else "direct"
    adjoint = solver.adjoint or {"jax": jax_adjoint, "torch": torch_adjoint}[model.framework]
    return dataclasses.replace(solver, solver=method, adjoint=adjoint, step_size=step_size)
