"""The points that the augmented model is to tell apart."""

import numpy as np

from experiments import augmented


def test_the_classes_are_a_disc_and_a_ring():
    found = augmented.sample(np.random.default_rng(0), 1000)
    radius = np.linalg.norm(found["x"], axis=1)
    assert radius[found["label"] == 0].max() <= 0.5
    assert radius[found["label"] == 1].min() >= 1
    assert radius.max() <= 1.5
