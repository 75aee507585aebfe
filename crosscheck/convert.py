"""A training state, or a whole run, of one framework as one of the other.

Both checkpoints are flat tables of arrays by dotted name, `model.*`, `optimizer.*` and `steps`.
Weights map by structure (`weights`); the optimiser's arrays have the shapes of the weights and map
with them:

    optax                         torch
    optimizer.trace.NAME          optimizer.NAME.momentum_buffer
    optimizer.mu.NAME, nu.NAME    optimizer.NAME.exp_avg, exp_avg_sq
    optimizer.count               optimizer.NAME.step

A batch norm's running statistics map like weights; torch counts its batches besides, which are the
steps.

Both update rules are the same (no dampening; eps outside of the root), so training goes on.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from filelock import FileLock, Timeout

from crosscheck import jax_side, weights
from jax_node import checkpoint as jax_checkpoint
from jax_node import solve as jax_solve
from torch_node import checkpoint as torch_checkpoint
from torch_node import solve as torch_solve

SLOTS = {"trace": "momentum_buffer", "mu": "exp_avg", "nu": "exp_avg_sq"}
FRAMEWORKS = ("jax", "torch")


class ConvertError(ValueError):
    """A run or checkpoint that cannot be converted; the message is one sentence for the user."""


def convert(run: Path | str, to: str, out: Path | str | None = None) -> Path:
    """Write the run folder, or the single checkpoint, `run` for the framework `to`.

    Returns the new folder: `out`, or the old name with `-jax` or `-torch` behind it.

    Raises:
        ConvertError: nothing to convert there, the target exists, or a name has no counterpart.
    """
    if to not in FRAMEWORKS:
        raise ConvertError(f"{to!r} is no framework; choose one of {', '.join(FRAMEWORKS)}.")
    run = Path(os.path.normpath(run))
    run = run if run.name else run.absolute()  # `.` has no name
    out = Path(out) if out else run.with_name(f"{run.name}-{to}")
    if not run.is_dir():
        raise ConvertError(f"{run} is not a folder; give a run folder or a checkpoint in one.")
    if run.resolve() in out.resolve().parents:
        raise ConvertError(f"{out} is inside of {run}; choose a folder beside it with --out.")
    if out.exists():
        raise ConvertError(f"{out} exists already; choose a new folder with --out.")
    try:
        if (run / "config.json").is_file():
            _convert_run(run, to, out)
        else:
            _convert_checkpoint(run, to, out)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return out


def jax_to_torch(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The table of a JAX checkpoint as that of a torch checkpoint."""
    found = weights.to_torch({k: v for k, v in arrays.items() if k.startswith("model.")})
    steps = int(arrays["steps"])
    for name in [name for name in found if name.endswith(".running_var")]:
        found[f"{name.removesuffix('running_var')}{weights.COUNT}"] = np.asarray(steps, np.int64)
    for name, array in arrays.items():
        kind, _, path = name.removeprefix("optimizer.").partition(".")
        if name.startswith("optimizer.") and kind in SLOTS:
            ((moved, value),) = weights.to_torch({path: array}).items()
            found[f"optimizer.{moved}.{SLOTS[kind]}"] = value
            if kind == "mu":
                count = np.asarray(arrays["optimizer.count"], np.float32)
                found[f"optimizer.{moved}.step"] = count
        elif name.startswith("optimizer.") and kind != "count":
            raise ConvertError(f"the optimiser's array {name} has no counterpart in torch.")
    return {**found, "steps": np.asarray(steps, np.int64)}


def torch_to_jax(tensors: Mapping[str, np.ndarray], optimizer: str) -> dict[str, np.ndarray]:
    """The table of a torch checkpoint as that of a JAX checkpoint.

    `optimizer` is `momentum`, `adam` or `none`. Before the first step earlier versions wrote no
    optimiser state in torch: it is zeros.
    """
    model = {
        name: tensor
        for name, tensor in tensors.items()
        if name.startswith("model.") and not name.endswith(f".{weights.COUNT}")
    }
    found = weights.to_jax(model)
    steps = int(tensors["steps"])
    kinds = {"momentum": ("trace",), "adam": ("mu", "nu"), "none": ()}[optimizer]
    for kind in kinds:
        for name, weight in model.items():
            if name.rpartition(".")[2] in weights.RUNNING.values():
                continue
            bare = name.removeprefix("model.")
            slot = f"optimizer.{bare}.{SLOTS[kind]}"
            if steps and slot not in tensors:
                raise ConvertError(f"the checkpoint lacks the tensor {slot}.")
            value = tensors[slot] if steps else np.zeros_like(weight)
            ((moved, array),) = weights.to_jax({bare: value}).items()
            found[f"optimizer.{kind}.{moved}"] = array
    if optimizer == "adam":
        found["optimizer.count"] = np.asarray(steps, np.int32)
    return {**found, "steps": np.asarray(steps, np.int32)}


def framework_of(path: Path) -> str:
    """Which framework wrote the checkpoint in a folder, by the files in it."""
    if (path / torch_checkpoint.FILE).is_file():
        return "torch"
    if any((path / name).exists() for name in ("_METADATA", "_CHECKPOINT_METADATA")):
        return "jax"
    raise ConvertError(f"{path} holds neither a run (config.json) nor a checkpoint.")


def _convert_checkpoint(source: Path, to: str, target: Path, optimizer: str | None = None) -> None:
    if framework_of(source) == to:
        raise ConvertError(f"{source} is a checkpoint of {to} already.")
    try:
        if to == "torch":
            arrays = jax_to_torch(jax_checkpoint.read(source))
            table = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
            torch_checkpoint.write(target, table)
            return
        state = torch_checkpoint.read(source, torch.device("cpu"))
        tensors = {name: tensor.numpy() for name, tensor in state.items()}
        arrays = torch_to_jax(tensors, optimizer or _optimizer_of(tensors))
    except (
        jax_checkpoint.CheckpointError, torch_checkpoint.CheckpointError, weights.WeightsError,
    ) as error:  # fmt: skip
        raise ConvertError(f"{str(error).rstrip('.')}.") from None
    except KeyError as error:
        raise ConvertError(f"{source} lacks the array {error}, so it is no checkpoint.") from None
    with jax_side.precision("float64"):  # or 64-bit arrays would be cut
        jax_checkpoint.write(target, {name: jnp.asarray(a) for name, a in arrays.items()})


def _optimizer_of(tensors: Mapping[str, np.ndarray]) -> str:
    if any(name.endswith(".exp_avg") for name in tensors):
        return "adam"
    return "momentum" if any(n.endswith(".momentum_buffer") for n in tensors) else "none"


def _convert_run(run: Path, to: str, out: Path) -> None:
    try:
        with FileLock(run / ".lock").acquire(blocking=False):
            record = json.loads((run / "config.json").read_text())
            flags = record["flags"]
            if flags["model"]["framework"] == to:
                raise ConvertError(f"{run} is a run of {to} already.")
            training = flags["training"]
            optimizer = training.get("optimizer", "adam")  # the applications have no other
            if optimizer == "sgd":
                optimizer = "momentum" if training["momentum"] else "none"
            record["converted_from"] = str(run)
            record["changed"] = _adapt(flags, to)
            file = run / "checkpoints" / "index.json"
            index = json.loads(file.read_text()) if file.exists() else {}
            if "last" not in index:
                raise ConvertError(f"{run} has no checkpoint yet; train it for an epoch first.")
            (out / "checkpoints").mkdir(parents=True)
            for name in {index["last"], index["best"]}:
                kept = Path("checkpoints") / name
                _convert_checkpoint(run / kept, to, out / kept, optimizer)
            index.pop("stopped", None)
            (out / "checkpoints" / "index.json").write_text(json.dumps(index, indent=2) + "\n")
            shutil.copyfile(run / "metrics.jsonl", out / "metrics.jsonl")
            for folder in run.iterdir():  # what pictures of earlier epochs are made of
                if folder.is_dir() and folder.name != "checkpoints":
                    shutil.copytree(folder, out / folder.name)
            # Last, for a folder is a run by this file.
            (out / "config.json").write_text(json.dumps(record, indent=2) + "\n")
    except Timeout:
        raise ConvertError(f"{run} is in use by another process; wait for it to end.") from None
    except (OSError, json.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
        raise ConvertError(f"{run} cannot be converted: {error!r}.") from None


# What one framework alone offers, and what stands for it in the other.
ONLY_JAX: dict[tuple[str, str], Any] = {
    ("model", "devices"): 1,
    ("model", "precision"): "float32",  # bfloat16 is of convolutions only, and weights are float32
    ("training", "check_gradient"): None,
}


def _adapt(flags: dict[str, Any], to: str) -> list[str]:
    """Make a run's flags such as the other framework takes; returns what that changes, in words."""
    before = {(group, name): v for group, given in flags.items() for name, v in given.items()}
    flags["model"]["framework"] = to
    if to == "torch":
        for (group, name), value in ONLY_JAX.items():
            only = name != "precision" or flags[group][name] == "bfloat16"
            if name in flags[group] and only:
                flags[group][name] = value
    if "adjoint" in flags.get("solver", {}):  # an application's methods are the same on both sides
        _rename_methods(flags["solver"], to)
    return [
        f"{name} {value} is {flags[group][name]} in {to}"
        for (group, name), value in before.items()
        if name != "framework" and flags[group][name] != value
    ]


def _rename_methods(solver: dict[str, Any], to: str) -> None:
    """Give the gradient method its name on the other side; the solver must exist there."""
    if solver["solver"] is None:
        return
    target: Any = torch_solve if to == "torch" else jax_solve
    names = {"checkpoint": "direct", "handwritten": "adjoint"}
    if solver["adjoint"] not in target.ADJOINTS:
        solver["adjoint"] = names[solver["adjoint"]]
    try:
        target.check(solver["solver"], solver["adjoint"], solver["step_size"])
    except ValueError as error:
        raise ConvertError(f"{str(error).rstrip('.')}; the run cannot go on there.") from None
