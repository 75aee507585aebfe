"""A training step of ODE-Net on 1, 2, ... devices: strong and weak scaling.

Strong: the whole batch, whatever the number of devices. Weak: as many images for every device.
On CPU a device is a part of the processor, and one device may use all cores already, so two of its
devices compete with its own threads; `one core` is one device held to one core.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping
from typing import Any

import jax

from experiments.harness.markdown import table
from experiments.speed import contests
from experiments.speed import measure as measuring

MODELS = {"ODE-Net": ["--model", "odenet"], "ResNet-6": ["--model", "resnet6"]}


def counts() -> list[int]:
    """Numbers of devices to try: powers of two up to the cores, or the accelerators."""
    cpu = jax.default_backend() == "cpu"
    most = (os.cpu_count() or 1) if cpu else jax.device_count()
    return [n for n in (1, 2, 4, 8, 16) if n <= most]


def measure(batch_size: int, repeats: int) -> list[dict[str, Any]]:
    """Rows of model, devices, images and seconds, each from a process of its own."""
    rows = []
    for model in MODELS:
        for devices in counts():
            for images in {batch_size, batch_size // counts()[-1] * devices}:
                arguments = (model, devices, images, repeats)
                rows.append(measuring.in_process(seconds, *arguments))
        if jax.default_backend() == "cpu":
            for images in {batch_size, batch_size // counts()[-1]}:
                rows.append(measuring.in_process(seconds, model, 1, images, repeats, True))
    return rows


def seconds(
    model: str, devices: int, images: int, repeats: int, one_core: bool = False
) -> dict[str, Any]:
    """Median seconds of a training step, and its loss."""
    if one_core:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    learner = contests.make_learner("jax", MODELS[model], n_devices=devices)
    batch = contests.digits(images)
    call = lambda: contests.finished(learner, learner.train_step(batch, 0.0))
    result = call()
    samples = [measuring.timed(call)[0] for _ in range(repeats)]
    return {
        "model": model,
        "devices": devices,
        "one_core": one_core,
        "images": images,
        "seconds": statistics.median(samples),
        "samples": samples,
        "loss": result["loss"],
        "steps": result["steps"],
    }


def markdown(record: Mapping[str, Any]) -> str:
    """The table for a page; speed is in images a second, against one device, same model."""
    body = [
        [
            row["model"], "1, one core" if row["one_core"] else row["devices"], row["images"],
            f"{1e3 * row['seconds']:.0f}", f"{row['images'] / row['seconds']:.0f}",
            f"{row['loss']:.6f}", f"{row['steps']:g}",
        ]
        for row in record["scaling"]
    ]  # fmt: skip
    return table(["", "devices", "images", "ms", "images/s", "loss", "steps"], body)
