"""Settle a configuration: defaults that depend on other flags, and checks of every value."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from experiments.config import Config, ConfigError, Model, Solver

# A resumed run may change these: they do not change what is computed, or (epochs) say how long.
# Data may have moved: their checksum is compared instead.
FREE_ON_RESUME = {"epochs", "device", "source", "data_dir", "tfds_dir", "out", "resume", "evaluate"}


def resolve(config: Config) -> Config:
    """Settle the defaults that depend on other flags, and check every value.

    Solver and gradient names are the framework's to check. Raises `ConfigError`.
    """
    model, solver, training, data = config.model, config.solver, config.training, config.data
    if not re.fullmatch(r"odenet|rknet|resnet[1-9]\d*", model.name):
        raise ConfigError(
            f"--model {model.name} is unknown; choose odenet, rknet, resnet6, resnet1 or resnet "
            "with another number of blocks."
        )
    solver = _resolve_solver(model, solver)
    if training.optimizer == "adam" and training.momentum is not None:
        raise ConfigError("--momentum belongs to --optimizer sgd; leave it out with adam.")
    momentum = training.momentum if training.momentum is not None else 0.9
    training = dataclasses.replace(
        training,
        momentum=momentum if training.optimizer == "sgd" else None,
        lr=training.lr
        if training.lr is not None
        else {"sgd": 0.1, "adam": 1e-3}[training.optimizer],
    )
    _positive("--rtol", solver.rtol)
    _positive("--atol", solver.atol)
    _positive("--lr", training.lr)
    if solver.step_size is not None and not 0 < solver.step_size <= 1:
        raise ConfigError(f"--step-size is {solver.step_size}; above 0 and at most 1 expected.")
    if not 0 <= momentum < 1:
        raise ConfigError(f"--momentum is {momentum}; at least 0 and below 1 expected.")
    if not 0 <= training.seed < 2**32:
        raise ConfigError(f"--seed is {training.seed}; 0 to {2**32 - 1} expected.")
    for flag, number in (
        ("--max-steps", solver.max_steps),
        ("--epochs", training.epochs),
        ("--batch-size", training.batch_size),
        ("--limit-train", data.limit_train),
        ("--limit-test", data.limit_test),
    ):
        if number is not None and number < 1:
            raise ConfigError(f"{flag} is {number}; a whole number of at least 1 expected.")
    return dataclasses.replace(config, solver=solver, training=training)


def learner_arguments(config: Config) -> dict[str, Any]:
    """Keyword arguments of a framework's `Learner`, from a resolved configuration."""
    model, solver, training = config.model, config.solver, config.training
    return {
        "model": model.name,
        "final_relu": model.final_relu,
        "downsampling": model.downsampling,
        "solver": solver.solver,
        "adjoint": solver.adjoint,
        "rtol": solver.rtol,
        "atol": solver.atol,
        "step_size": solver.step_size,
        "max_steps": solver.max_steps,
        "optimizer": training.optimizer,
        "momentum": training.momentum if training.momentum is not None else 0.0,
        "seed": training.seed,
        "precision": model.precision,
        "device": model.device,
    }


def contradictions(saved: Config, given: Config) -> list[str]:
    """Flags in which `given` departs from `saved` and which a resumed run must keep."""
    found = []
    for group in ("model", "solver", "training", "data"):
        before, after = getattr(saved, group), getattr(given, group)
        for field in dataclasses.fields(before):
            old, new = getattr(before, field.name), getattr(after, field.name)
            if field.name not in FREE_ON_RESUME and old != new:
                flag = "model" if field.name == "name" else field.name.replace("_", "-")
                found.append(f"--{flag} {new} (the run has {old})")
    return found


def _resolve_solver(model: Model, solver: Solver) -> Solver:
    if model.name.startswith("resnet"):
        for field in ("solver", "adjoint", "step_size"):
            if getattr(solver, field) is not None:
                flag = "--" + field.replace("_", "-")
                raise ConfigError(f"{flag} means nothing to {model.name}, which solves no ODE.")
        return solver
    method = solver.solver or {"odenet": "dopri5", "rknet": "rk4"}[model.name]
    step_size = solver.step_size
    if solver.solver is None and model.name == "rknet" and step_size is None:
        step_size = 0.25
    torch_adjoint = {"odenet": "adjoint", "rknet": "direct"}[model.name]
    adjoint = solver.adjoint or {"jax": "direct", "torch": torch_adjoint}[model.framework]
    return dataclasses.replace(solver, solver=method, adjoint=adjoint, step_size=step_size)


def _positive(flag: str, value: float | None) -> None:
    if value is None or not (value > 0 and math.isfinite(value)):
        raise ConfigError(f"{flag} is {value}; a number above 0 expected.")
