"""The densities that flows are fitted to and measured against."""

import numpy as np
import pytest

from experiments.flows import densities, pictures


@pytest.mark.parametrize("name", ["moons", "circles", "checkerboard", "gaussians"])
def test_known_densities_are_those_of_the_samples(name):
    points, area = pictures.grid(5.0, 125)
    p = np.exp(densities.log_density(name, points))
    # The checkerboard's edges fall between cells: up to 0.04 of a field's side of 1.5 either way.
    assert p.sum() * area == pytest.approx(1, abs=0.03 if name == "checkerboard" else 1e-3)
    drawn = densities.sample(name, np.random.default_rng(0), 20_000)
    logp = densities.log_density(name, drawn)
    assert np.isfinite(logp).all()
    # First and second moments: a standard error of 20,000 samples of deviation < 3 is < 0.03.
    for power in (1, 2):
        expected = (points**power * p[:, None]).sum(0) * area
        assert (drawn**power).mean(0) == pytest.approx(expected, abs=0.12)
    # And the entropy, within 5 standard errors of the mean of 20,000 log-densities.
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum() * area
    error = 5 * logp.std() / np.sqrt(len(logp)) + (0.1 if name == "checkerboard" else 1e-3)
    assert -logp.mean() == pytest.approx(entropy, abs=error)


def test_a_normal_distribution_fits_its_own_samples():
    table = np.random.default_rng(0).normal(size=(500, 2)) @ np.array([[2.0, 0.5], [0.0, 0.3]])
    points, area = pictures.grid(12.0, 400)
    p = np.exp(densities.gaussian(table, points))
    assert p.sum() * area == pytest.approx(1, abs=1e-3)
    assert (points * p[:, None]).sum(0) * area == pytest.approx(table.mean(0), abs=1e-3)


def test_an_unknown_density_is_answered_with_the_list():
    with pytest.raises(ValueError, match="moons, circles"):
        densities.sample("saturn", np.random.default_rng(0), 1)
