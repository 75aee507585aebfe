import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.harness.errors import DataError
from experiments.images import parts, sources
from experiments.images.dataset import Dataset

# The first places in fold 0 of 5 of the embedded images.
FIRST = [9, 12, 20, 21, 23, 24, 36, 39]


def numbered(train, test, classes=3):
    """Images that hold their own place in the set, two bytes."""
    rows = np.arange(train + test)
    images = np.zeros((len(rows), 28, 28, 1), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = rows // 256, rows % 256
    labels = (rows % classes).astype(np.int32)
    return Dataset(
        images[:train], labels[:train], images[train:], labels[train:],
        source="idx", checksum="", name="mnist", test_rows=rows[train:],
    )  # fmt: skip


def places(images):
    return (images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 1, 0]).tolist()


def test_folds_of_the_embedded_images_test_each_once(tfds_dir):
    load = lambda fold: sources.load(
        "mnist", "embedded", tfds_dir=tfds_dir, validation=400, folds=5, fold=fold
    )
    whole = sources.load("mnist", "embedded", tfds_dir=tfds_dir)
    pool = np.concatenate([whole.train_images, whole.test_images])
    labels = np.concatenate([whole.train_labels, whole.test_labels])
    tested = []
    for fold in range(5):
        found = load(fold)
        tested += found.test_rows.tolist()
        assert (found.test_images == pool[found.test_rows]).all()
        assert (found.test_labels == labels[found.test_rows]).all()
        for of, count in (
            (found.train_labels, 360),
            (found.validation_labels, 40),
            (found.test_labels, 100),
        ):
            assert np.bincount(of).tolist() == [count] * 10
        assert found.checksum == whole.checksum
    assert sorted(tested) == list(range(5000))
    assert found.title == (
        "MNIST, embedded, 3,600 train + 400 validation + 1,000 test (fold 4 of 5)"
    )
    # What runs on other machines and in other years are to have in common.
    assert load(0).test_rows[:8].tolist() == FIRST


@settings(max_examples=20, deadline=None)
@given(train=st.integers(20, 300), test=st.integers(1, 100), folds=st.integers(2, 7),
       share=st.floats(0.05, 0.9))  # fmt: skip
def test_parts_are_disjoint_and_complete(train, test, folds, share):
    dataset = numbered(train, test)
    tested = []
    for index in range(folds):
        found = parts.fold(dataset, folds, index)
        found = parts.validation(found, max(1, int(share * len(found.train_labels))))
        split = [
            places(images)
            for images in (found.train_images, found.validation_images, found.test_images)
        ]
        assert sorted(sum(split, [])) == list(range(train + test))
        assert split[2] == found.test_rows.tolist()
        assert (found.validation_labels == np.array(split[1]) % 3).all()
        tested += split[2]
    assert sorted(tested) == list(range(train + test))


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=200), seed=st.integers(0, 9))
def test_every_stretch_has_each_class_in_proportion(labels, seed):
    labels = np.array(labels)
    order = parts.stratified(labels, seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    for stop in range(1, len(labels) + 1, 7):
        for label in np.unique(labels):
            share = (labels == label).mean() * stop
            # A class's images lie at the middles of equal parts of the order; others may tie.
            assert abs((labels[order[:stop]] == label).sum() - share) < 1 + 5 / 2


def test_a_limit_counts_before_validation_and_after_folds(image_folder, tfds_dir):
    found = sources.load("mnist", data_dir=image_folder, tfds_dir=tfds_dir, limit_train=30,
                         limit_test=7, validation=10, folds=4, fold=1)  # fmt: skip
    assert [len(found.train_labels), len(found.validation_labels)] == [20, 10]
    assert len(found.test_labels) == len(found.test_rows) == 7


@pytest.mark.parametrize(
    ("asked", "part"),
    [({"validation": 96}, "96 images for validation leave none of the 96"),
     ({"folds": 137, "fold": 0}, "136 images cannot make 137 folds")],
)  # fmt: skip
def test_parts_that_cannot_be(asked, part, image_folder, tfds_dir):
    with pytest.raises(DataError, match=part):
        sources.load("mnist", data_dir=image_folder, tfds_dir=tfds_dir, **asked)
