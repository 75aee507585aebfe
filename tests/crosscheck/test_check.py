"""Differences and checks."""

import math

import numpy as np

from crosscheck.check import Check, compare_tensors, difference


def test_the_worst_entry_is_relative_to_its_tensor():
    left = {"big": np.array([[1000.0, 0.0]]), "small": np.array([2.0, 4.0, 4.5])}
    right = {"big": np.array([[1000.0, 1.0]]), "small": np.array([2.0, 4.0, 5.0])}
    worst = difference(left, right)
    assert worst.place == "small[2]"
    assert (worst.left, worst.right) == (4.5, 5.0)
    assert worst.error == 0.5 / 5


def test_rounding_of_a_zero_is_no_difference():
    left = {"zero": np.array([1e-17]), "one": np.array([1.0])}
    right = {"zero": np.array([0.0]), "one": np.array([1.0])}
    assert difference(left, right).error < 1e-10


def test_what_cannot_be_compared_is_infinitely_wrong():
    one = {"a": np.ones(2), "b": np.ones(2)}
    for other, name in (
        ({"a": np.ones(2)}, "b"),
        ({"a": np.ones(2), "b": np.ones(2), "c": np.ones(1)}, "c"),
        ({"a": np.ones(2), "b": np.ones(3)}, "b"),
        ({"a": np.array([1, math.nan]), "b": np.ones(2)}, "a"),
        ({"a": np.array([math.inf, 1]), "b": np.ones(2)}, "a"),
    ):
        worst = difference(one, other)
        assert worst.error == math.inf
        assert worst.tensor == name
        assert difference(other, one).error == math.inf


def test_nothing_and_other_dtypes_are_no_agreement():
    for left, right in (
        ({}, {}),
        ({"a": np.zeros((0, 2))}, {"a": np.zeros((0, 2))}),
        ({"a": np.ones(2)}, {"a": np.ones(2, np.float32)}),
        ({"a": np.ones(2)}, {"a": np.ones(2, int)}),
        ({"a": np.array([1 + 1j])}, {"a": np.array([1 - 1j])}),  # a cast drops what differs
    ):
        assert not compare_tensors("g", "c", {"l": left, "r": right}, 1e-3, "").passed
    assert difference({"n": np.array(3)}, {"n": np.array(3, np.int32)}).error == 0


def test_a_failure_is_described_in_full():
    sides = {"jax": {"w": np.array([[1.0, 2.0]])}, "torch": {"w": np.array([[1.0, 2.5]])}}
    check = compare_tensors("layers", "conv1", sides, 1e-3, "because")
    assert not check.passed
    assert check.describe() == (
        "layers: conv1: jax against torch: relative error 0.2 > 0.001 at w[0, 1]: jax has 2, "
        "torch has 2.5"
    )


def test_not_a_number_passes_no_bound():
    for at_least in (False, True):
        assert not Check("g", "c", "l", "r", math.nan, 1.0, "", at_least=at_least).passed
    # The condition of what is not finite is infinite.
    assert not Check("g", "c", "l", "r", math.inf, math.inf, "").passed
    assert Check("g", "c", "l", "r", math.nan, None, "").passed
