"""The learning rate of every model, chosen alike: by pooled validation loss, before the study.

Each model is trained at three rates, once on each fold. The mean validation loss over the folds
decides; no test image is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from experiments.harness.errors import ConfigError
from experiments.section3.cells import Variant

RATES = {"sgd": ("0.03", "0.1", "0.2"), "adam": ("3e-4", "1e-3", "3e-3")}
LOWER = {"resnet6": "0.01"}  # tried where the least of the three won


def rates_of(variant: Variant) -> tuple[str, ...]:
    """The rates that are tried for a variant: its optimiser's, and one below if the least won."""
    rates = RATES["adam" if "--optimizer adam" in variant.flags else "sgd"]
    return (LOWER[variant.name], *rates) if variant.name in LOWER else rates


def name_of(variant: str, rate: str) -> str:
    """The name of a variant at a rate."""
    return f"{variant}-lr{rate}"


def tried(variants: Sequence[Variant]) -> list[Variant]:
    """Every variant at each of its rates."""
    return [
        Variant(
            name_of(variant.name, rate),
            f"{variant.title}, rate {rate}",
            f"{variant.flags} --lr {rate}",
        )
        for variant in variants
        for rate in rates_of(variant)
    ]


def losses(record: dict[str, Any], variant: Variant) -> dict[str, float]:
    """Mean validation loss over the folds by rate; infinite where a run failed of itself.

    A rate of which runs are missing is left out.
    """
    found = {}
    for rate in rates_of(variant):
        runs = [run for run in record["runs"] if run["variant"] == name_of(variant.name, rate)]
        if not runs or any(run["status"] not in ("done", "failed") for run in runs):
            continue
        found[rate] = sum(
            run["summary"]["validation_loss"] if run["status"] == "done" else math.inf
            for run in runs
        ) / len(runs)
    return found


def chosen(record: dict[str, Any], variant: Variant) -> str | None:
    """The rate of least mean validation loss; None while runs are missing, or if all failed."""
    found = losses(record, variant)
    if len(found) < len(rates_of(variant)) or math.isinf(min(found.values())):
        return None
    return min(found, key=lambda rate: found[rate])


def repeat(record: dict[str, Any], variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """The runs that chose each variant's rate, at that rate, as runs of the variant.

    Validation images alone chose, so their test images are as good as those of any other repeat.
    They are marked `again`, not to be counted twice.
    """
    chose = {v.name: name_of(v.name, rate) for v in variants if (rate := chosen(record, v))}
    return [
        run | {"variant": variant, "again": True}
        for variant, name in chose.items()
        for run in record["runs"]
        if run["variant"] == name and run["status"] == "done"
    ]


def flags_for(record: dict[str, Any], variant: Variant, known: dict[str, Variant]) -> list[str]:
    """`--lr` with the rate chosen for a variant; `ConfigError` if none was."""
    source = known[variant.rate_of or variant.name]
    rate = chosen(record, source)
    if rate is None:
        raise ConfigError(
            f"no learning rate was chosen for {source.name}: its runs of study.py --preset rates "
            "are not all in the file of --rates."
        )
    return ["--lr", rate]
