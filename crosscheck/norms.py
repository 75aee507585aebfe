"""Training with every normalisation: gradient, weights, running statistics and evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crosscheck import jax_side, trained, training, weights
from crosscheck.check import Check, Tensors, compare_tensors

CASES = (("resnet1", "batch"), ("rknet", "batch"), ("rknet", "group1"), ("rknet", "group64"))
STEPS = 3


def checks(cases: Sequence[tuple[str, str]] = CASES) -> list[Check]:
    """Three training steps side by side in float64; `cases` are pairs of a model and a norm."""
    found = []
    for model, norm in cases:
        options = trained.LEARNER | {"model": model, "norm": norm, "precision": "float64"}
        if model.startswith("resnet"):
            options |= {"solver": None, "adjoint": None, "step_size": None}
        case = f"{model}, norm {norm}, batch {training.BATCH}, float64"
        with jax_side.precision("float64"):
            found += _checks(case, training.twins(options))
    return found


def _checks(case: str, sides: dict) -> list[Check]:
    start, _ = _split(training.numbers(sides["torch"]))
    moved: dict[str, Tensors] = {}
    for step in range(STEPS):
        for name, side in sides.items():
            side.train_step(trained.batch(step, training.BATCH), training.RATE)
            if step == 0:
                after, _ = _split(training.numbers(side))
                moved[name] = {tensor: after[tensor] - start[tensor] for tensor in after}
    ends = {name: _split(training.numbers(side)) for name, side in sides.items()}
    trained_weights = {name: end for name, (end, _) in ends.items()}
    running = {name: end for name, (_, end) in ends.items()}
    images = trained.batch(100, 32)["images"]
    logits = {name: {"logits": side.predict(images)} for name, side in sides.items()}
    found = [
        _all_together(f"{case}, gradient", moved),
        _all_together(f"{case}, weights after step {STEPS}", trained_weights),
    ]
    if running["jax"]:
        found.append(_one_by_one(f"{case}, running statistics", running))
    return [*found, _one_by_one(f"{case}, logits in evaluation", logits)]


def _all_together(case: str, sides: Mapping[str, Tensors]) -> Check:
    """A bias before a batch norm has a gradient of rounding only: it has no relative error."""
    value = training.distance(sides["jax"], sides["torch"])
    reason, quantity = "the same sums in another order", "relative distance of all tensors"
    return Check("norms", case, "jax", "torch", value, 1e-12, reason, quantity=quantity)


def _one_by_one(case: str, sides: Mapping[str, Tensors]) -> Check:
    return compare_tensors("norms", case, sides, 1e-10, "the same layers in float64")


def _split(numbers: Tensors) -> tuple[Tensors, Tensors]:
    """Weights, and running statistics."""
    running = lambda name: name.rpartition(".")[2] in weights.RUNNING.values()
    return (
        {name: array for name, array in numbers.items() if not running(name)},
        {name: array for name, array in numbers.items() if running(name)},
    )
