import math

import numpy as np
import pytest

from experiments.section3.intervals import Interval, difference, interval, statement


def test_interval_by_the_table_of_t():
    # t(0.975; 2) = 4.3027, standard deviation 1, n 3
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert (found.low, found.high) == (found.mean - found.half, found.mean + found.half)


def test_one_value_has_no_interval():
    assert math.isnan(interval([3.0]).half)
    assert interval([]).n == 0


def test_interval_covers_as_often_as_it_says():
    # Over 4000 repetitions the share has a standard deviation of 0.0034; 4 of them are allowed.
    generator = np.random.default_rng(0)
    samples = generator.normal(7, 2, (4000, 5))
    covered = np.mean([(i := interval(list(row))).low <= 7 <= i.high for row in samples])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)


def test_difference_pairs_seeds_and_images():
    true = "0123"
    a = {0: "0123", 1: "9123", 5: "9999"}  # 0 and 1 errors; seed 5 has no partner
    b = {0: "9993", 1: "9993"}  # 3 errors each
    found = difference(a, b, true)
    assert found.seeds.n == 2
    assert found.seeds.mean == pytest.approx((-75 - 50) / 2)
    # an image counts once, its disagreements averaged over the seeds
    assert found.images.mean == pytest.approx(found.seeds.mean)
    assert found.images.half == pytest.approx(interval([-50, -100, -100, 0]).half)
    assert found.both.half == pytest.approx(math.hypot(found.seeds.half, found.images.half))


def test_the_same_model_does_not_differ():
    runs = {0: "0023", 1: "0113"}
    found = difference(runs, runs, "0123").both
    assert (found.mean, found.half) == (0, 0)


def test_no_common_seed():
    assert difference({0: "1"}, {1: "1"}, "1").both.n == 0


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (Interval(1.0, 0.5, 3), "higher, by 0.50 to 1.50 points"),
        (Interval(-1.0, 0.5, 3), "lower, by 0.50 to 1.50 points"),
        (Interval(0.2, 0.5, 3), "no difference larger than 0.70 points"),
        (Interval(-0.2, 0.5, 3), "no difference larger than 0.70 points"),
        (Interval(2.0, math.nan, 1), "one seed: nothing can be said"),
    ],
)
def test_statement(found, says):
    assert statement(found) == says
