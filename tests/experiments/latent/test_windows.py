"""Windows of series, the spirals, the CO2 record, and what is measured of predictions."""

import numpy as np
import pytest

from experiments.harness.errors import DataError
from experiments.latent import spirals, windows
from experiments.latent.predictions import coverage, rmse
from experiments.latent.windows import Observed, pack, padding
from experiments.series.mauna_loa import harmonics, mauna_loa
from experiments.series.series import Series


def long_series(count=400, channels=2, seed=0):
    generator = np.random.default_rng(seed)
    times = np.sort(generator.uniform(0, 100, count))
    values = np.stack([np.sin(times + c) for c in range(channels)], axis=1)
    values[generator.uniform(size=values.shape) < 0.2] = np.nan
    return Series(times, values, tuple("abcdef"[:channels]))


def cut(series, **changes):
    given = {
        "title": "t", "unit": "u", "stretch": 6.0, "ahead": 3.0, "observations": 8,
        "train_fraction": 0.6, "seed": 0,
    }  # fmt: skip
    return windows.cut(series, **{**given, **changes})


def test_packing_pads_in_front_and_masks_nan():
    packed = pack(
        [
            (np.array([1.0, 2.0, 3.0]), np.array([[1.0], [np.nan], [3.0]])),
            (np.array([5.0]), np.ones((1, 1))),
        ]
    )
    assert packed.times.tolist() == [[1, 2, 3], [0, 0, 5]]
    assert packed.mask[..., 0].tolist() == [[1, 0, 1], [0, 0, 1]]
    assert np.isfinite(packed.values).all()
    # Three of six solver steps have an observation; of the union 1, 3, 5 each row uses some.
    assert padding(packed) == (pytest.approx(0.5), pytest.approx(0.5))


def test_spirals_are_those_of_the_formula_and_start_where_they_should():
    problem = spirals.make(20, 10, 30, 0.3, 500, seed=0)
    test, own = problem.test, spirals.sample(20, 30, 0.3, (100, 300), 500, np.random.default_rng(0))
    assert problem.train.times.shape == (20, 30)
    assert (np.diff(problem.train.times, axis=1) > 0).all()
    assert test.beyond.times[0, 0] - test.inside.times[0, -1] == pytest.approx(spirals.END / 499)
    assert test.before.times[0, 0] == pytest.approx(-spirals.END / 499)
    # Half of either direction; around (-5, 0) and (5, 0), which the scaling moves by its mean.
    x = own.inside.values[:, :, 0].mean(1)
    assert (x[::2] < 0).all()
    assert (x[1::2] > 0).all()
    # The whole of a counter-clockwise spiral has radius 0.3 times its angle.
    path = own.inside.values[1] - np.array([5.0, 0])
    angle = np.unwrap(np.arctan2(path[:, 1], path[:, 0]))
    turn = (np.linalg.norm(path, axis=1) / 0.3 - angle) / (2 * np.pi)
    assert turn == pytest.approx(np.full(100, round(turn[0])), abs=1e-9)


def test_a_start_fitted_without_noise_is_the_true_one():
    test = spirals.sample(4, 10, 0.0, (100, 300), 500, np.random.default_rng(0))
    for i in range(4):
        found = spirals.fit(test.observed.times[i], test.observed.values[i], test.beyond.times[i])
        # Starts are tried at steps below 0.002, and a clockwise spiral is at most 20 a unit fast.
        assert np.abs(found - test.beyond.values[i]).max() < 0.04


def test_noise_has_the_deviation_asked_for():
    noisy = spirals.sample(400, 100, 0.3, (100, 300), 500, np.random.default_rng(0))
    error = noisy.observed.values - noisy.inside.values
    assert error.std() == pytest.approx(0.3, abs=5 * 0.3 / np.sqrt(2 * error.size))


def test_windows_of_a_series_are_apart_and_within_it():
    series = long_series()
    problem = cut(series)
    assert len(problem.train) > 50
    assert problem.train.times.max() <= windows.UNITS
    assert (problem.test.before.times <= 0).all()
    assert (problem.test.beyond.times >= windows.UNITS).all()
    assert (np.diff(problem.test.beyond.times, axis=1) > 0).all()
    # What was drawn and what is asked inside make up all that is known there.
    real = lambda part: part.mask.any(2)
    inside = set(problem.test.inside.times[0][real(problem.test.inside)[0]])
    drawn = set(problem.test.observed.times[0][real(problem.test.observed)[0]])
    assert len(drawn) == 8
    assert not inside & drawn


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"stretch": 90.0}, "no window to"),
        ({"ahead": 80.0}, "no window to test"),
        ({"stretch": 1e-5, "ahead": 1e-5}, "2 observations of every channel"),
        ({"stretch": 1.0, "ahead": 1001.0}, "further than float32 resolves time"),
    ],
)
def test_a_series_too_short_or_too_sparse_is_refused(changes, complaint):
    with pytest.raises(DataError, match=complaint):
        cut(long_series(), **changes)


@pytest.mark.parametrize("level", [1.0, 1e6 + 0.1])  # 7 times the latter has a mean beside it
def test_a_channel_that_never_changes_is_refused(level):
    assert (level == 1) == (np.mean([level] * 7) == level)
    series = Series(np.arange(50.0), np.full((50, 1), level), ("flat",))
    with pytest.raises(DataError, match="flat never changes"):
        cut(series, stretch=7.0, ahead=2.0, observations=7)


def test_the_co2_record_is_the_published_one():
    series = mauna_loa()
    assert len(series.times) == 2284 - 59  # weeks without a value
    assert series.values[0, 0] == 316.1
    assert series.values[-1, 0] == 371.5
    assert series.values.max() == 373.9
    assert series.times[0] == pytest.approx(1958 + 88 / 365, abs=2 / 365)
    assert series.times[-1] == pytest.approx(2001 + 363 / 365, abs=5 / 365)
    widest = np.diff(series.times).argmax()
    assert 1964 < series.times[widest] < 1964.3
    assert np.diff(series.times)[widest] * 365.25 == pytest.approx(19 * 7)


def test_harmonics_find_a_line_and_a_cycle_exactly():
    t = np.sort(np.random.default_rng(0).uniform(0, 2, 20))
    y = lambda t: (3 + t + np.sin(2 * np.pi * t) - np.cos(4 * np.pi * t))[:, None]
    later = np.linspace(2, 3, 7)
    assert harmonics(t, y(t), later) == pytest.approx(y(later), abs=1e-9)


def test_bands_hold_as_much_as_they_say():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(50, 40, 1))
    truth = Observed(np.zeros((50, 40)), values, np.ones_like(values))
    samples = generator.normal(size=(400, 50, 40, 1))
    # 2,000 Bernoulli trials at 0.9, sd 0.007; quantiles of 400 samples are off by about 0.01.
    assert coverage(truth, samples, np.zeros(1)) == pytest.approx(0.9, abs=0.03)
    assert coverage(truth, samples, np.array([2.0])) > 0.98
    problem = spirals.make(4, 4, 10, 0.0, 1000, 0)
    assert rmse(problem, problem.test.inside, problem.test.inside.values) == 0
