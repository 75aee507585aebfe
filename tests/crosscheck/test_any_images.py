"""Images of any size and number of channels, of any number of classes: both frameworks agree."""

import numpy as np
import pytest
import torch

from crosscheck import jax_side, trained, training
from jax_node.models import SMALLEST
from torch_node import models

NOT_SQUARE = (17, 23, 2)
SHAPES = {(32, 32, 3): 7, NOT_SQUARE: 2, (SMALLEST, SMALLEST, 1): 12}


def twins(shape, downsampling, norm="group"):
    options = trained.LEARNER | {"step_size": 0.5, "precision": "float64", "norm": norm}
    options |= {"channels": shape[-1], "classes": SHAPES[shape], "downsampling": downsampling}
    return training.twins(options)


# Both of the shape that no mistake in the order of axes leaves as it is; of even sides, too, which
# `residual` has at 28x28 in test_weights.py.
CASES = [(shape, "conv") for shape in SHAPES]
CASES += [(NOT_SQUARE, "residual"), ((SMALLEST, SMALLEST, 1), "residual")]


@pytest.mark.parametrize(("shape", "downsampling"), CASES, ids=str)
def test_both_frameworks_predict_and_learn_the_same(shape, downsampling):
    generator = np.random.default_rng(0)
    batch = {
        "images": generator.integers(0, 256, (4, *shape), np.uint8),
        "labels": generator.integers(0, SHAPES[shape], 4),
    }
    with jax_side.precision("float64"):
        sides = twins(shape, downsampling)
        logits = {name: side.predict(batch["images"]) for name, side in sides.items()}
        assert logits["jax"].shape == (4, SHAPES[shape])
        # Rounding of eps 2e-16 through some twenty layers of sums over 600 numbers.
        np.testing.assert_allclose(logits["jax"], logits["torch"], rtol=1e-10, atol=1e-11)
        losses = [side.train_step(batch, 0.01)["loss"] for side in sides.values()]
        assert losses[0] == pytest.approx(losses[1], rel=1e-10)
        if shape == NOT_SQUARE:  # the one that can be transposed
            path = [side.trajectory(batch["images"], [0.0, 1.0]) for side in sides.values()]
            assert path[0].states.shape == path[1].states.shape


def test_channels_come_in_their_order():
    pixels = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    found = models.as_images(torch.from_numpy(pixels), torch.float64).numpy()
    assert (found == np.moveaxis(pixels, -1, 1) / 255).all()
