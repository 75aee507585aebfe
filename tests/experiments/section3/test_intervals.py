import math

import numpy as np
import pytest

from experiments.section3.intervals import (
    Estimate,
    difference,
    disagreement,
    holm,
    interval,
    mean,
    verdicts,
)

TIMES = 1000
# Share of intervals that miss: 4 standard deviations of that of `TIMES` which miss with 5%.
ALLOWED = 4 * math.sqrt(0.95 * 0.05 / TIMES)


def test_interval_by_the_table_of_t():
    # t(0.975; 2) = 4.3027, standard deviation 1, n 3
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert (found.low, found.high) == (found.mean - found.half, found.mean + found.half)


def test_one_value_has_no_interval():
    assert math.isnan(interval([3.0]).half)
    assert interval([]).n == 0


def errors_of(generator, repeats, images, effect, seeds, binary):
    """A model's errors on images of the given `effect`, with repeats that deviate by `seeds`."""
    level = effect + seeds * generator.normal(size=(repeats, 1))
    if binary:
        return 100.0 * (generator.random((repeats, images)) < np.clip(0.2 + 0.1 * level, 0, 1))
    return level + generator.normal(size=(repeats, images))


@pytest.mark.parametrize(
    ("folds", "repeats", "images", "spread", "seeds", "binary"),
    [
        (1, (5, 5), 200, 3.0, 0.0, False),  # images and residuals only
        (1, (5, 3), 50, 0.0, 1.0, False),  # networks decide: few degrees of freedom
        (1, (4, 4), 60, 3.0, 0.5, False),  # both
        (5, (2, 2), 30, 1.0, 0.5, False),  # folds: degrees of freedom from each
        (4, (3, 5), 60, 1.0, 0.3, True),  # right or wrong
    ],
)
def test_the_interval_of_a_difference_covers_as_often_as_it_says(
    folds, repeats, images, spread, seeds, binary
):
    """Images are drawn anew each time; how hard one is has a part in common and one a model."""
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(TIMES):
        models = [], []
        for _ in range(folds):
            common, *own = spread * generator.normal(size=(3, images))
            for model, number, effect in zip(models, repeats, own, strict=True):
                model.append(errors_of(generator, number, images, common + effect, seeds, binary))
        found = difference(*models).interval()
        covered += found.low <= 0 <= found.high
    assert abs(covered / TIMES - 0.95) < ALLOWED


def test_the_interval_of_a_mean_covers_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(TIMES):
        errors = errors_of(generator, 5, 80, 2 * generator.normal(size=80), 0.5, False)
        covered += abs(mean([errors]).mean) <= mean([errors]).interval().half
    assert abs(covered / TIMES - 0.95) < ALLOWED


def test_variance_by_hand():
    a = np.array([[1.0, 0.0, 0.0], [1.0, 3.0, 0.0]])
    found = difference([a], [np.zeros((1, 3))], sure=True)
    # means over repeats 1, 1.5, 0; over images 1/3, 4/3; residuals +-1/2, -+1, +-1/2
    part = np.var([1, 1.5, 0], ddof=1) / 3
    networks = np.var([1 / 3, 4 / 3], ddof=1) / 2
    residual = 2 * (0.25 + 1 + 0.25) / 2 / 6
    assert found.mean == pytest.approx(5 / 6)
    assert found.variance == pytest.approx(max(part, part + networks - residual))
    # Two such folds are twice as many images and networks.
    two = difference([a, a], [np.zeros((1, 3))] * 2, sure=True)
    assert (two.mean, two.variance) == pytest.approx((found.mean, found.variance / 2))
    assert two.df == pytest.approx(2 * found.df)


def test_folds_count_by_their_images():
    a = [np.array([[100.0, 0.0]] * 2), np.array([[100.0, 100.0, 0.0, 0.0, 0.0, 0.0]] * 2)]
    found = difference(a, [np.zeros((2, 2)), np.zeros((2, 6))])
    assert found.mean == pytest.approx(100 * 3 / 8)


def test_repeats_without_effect_leave_the_images_part():
    a = np.array([[1.0, 0.0, 0.0, 5.0]] * 3)
    found = difference([a], [np.zeros((3, 4))])
    assert found.variance == pytest.approx(np.var(a[0], ddof=1) / 4)
    assert (found.df, found.n, found.lacks) == (3, 3, "")


def test_one_repeat_says_what_it_lacks():
    a, b = np.array([[0.0, 100.0, 100.0, 0.0]]), np.array([[0.0, 0.0, 100.0, 0.0]])
    found = difference([a], [b])
    assert found.interval().half == pytest.approx(interval([0, 100, 0, 0]).half)
    assert "images only" in found.lacks
    (verdict,) = verdicts([found], 1000.0)
    assert verdict.words == "not decided (one repeat)"


def test_an_error_is_at_least_none_and_at_most_all():
    found = mean([np.array([[0.0, 0.0, 0.0, 100.0], [0.0, 0.0, 0.0, 100.0]])])
    shown = found.interval(bounds=(0.0, 100.0))
    assert (shown.low, shown.mean, shown.high) == (0.0, 25.0, 100.0)  # 25 +- 80


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((2, 1), (2, 1))])
def test_other_images_are_refused(shapes):
    with pytest.raises(ValueError, match="same images, at least two"):
        difference(*([np.zeros(shape)] for shape in shapes))


def test_holm_by_hand():
    # 0.05 / 3, then 0.05 / 2 which 0.03 misses: it and what follows is kept, at that level.
    assert holm([0.04, 0.001, 0.03], 0.05) == [(False, 0.025), (True, 0.05 / 3), (False, 0.025)]
    assert holm([]) == []


def test_verdicts_are_those_of_their_intervals():
    margin = 0.4
    known = [(1.0, 0.1), (0.05, 0.05), (0.2, 0.02), (0.3, 0.2), (0.0, 0.3)]
    found = verdicts([Estimate(m, s**2, 100, 3) for m, s in known], margin)
    assert [one.words for one in found] == [
        "different",
        "equal within the margin",
        "different, by less than the margin",
        "not decided",
        "not decided",
    ]
    for one in found:
        excludes = not one.interval.low <= 0 <= one.interval.high
        within = -margin < one.interval.low and one.interval.high < margin
        assert excludes == one.words.startswith("different")
        if one.words == "not decided":
            assert not within
        else:
            assert within == ("margin" in one.words)


def test_false_claims_among_many_are_rare():
    """Of ten models without a difference, at the margin's edge, or between: any false claim."""
    generator = np.random.default_rng(0)
    true = np.array([0.0] * 5 + [0.4] * 5)
    false = {"difference": 0, "equality": 0}
    for _ in range(TIMES):
        estimates = [Estimate(float(m), 0.1**2, 1e6, 5) for m in generator.normal(true, 0.1)]
        found = [one.words for one in verdicts(estimates, 0.4)]
        false["difference"] += any(words.startswith("different") for words in found[:5])
        false["equality"] += any("margin" in words for words in found[5:])
    for count in false.values():
        assert count / TIMES < 0.05 + ALLOWED


def test_disagreement_is_over_all_pairs():
    a, b = np.array(["0012", "0013", "0022"]), np.array(["0012", "9999"])
    a, b = (np.array([list(row) for row in rows]) for rows in (a, b))
    assert disagreement(a) == pytest.approx(100 * (1 + 1 + 2) / 3 / 4)
    assert disagreement(a, b) == pytest.approx(100 * (0 + 1 + 1 + 4 * 3) / 6 / 4)
    assert math.isnan(disagreement(b[:1]))
