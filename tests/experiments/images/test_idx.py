import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from experiments.harness.errors import DataError
from experiments.images.idx import read_idx, read_split

from ..conftest import idx_bytes

uint8_arrays = array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6).flatmap(
    lambda shape: arrays(np.uint8, shape)
)


@settings(max_examples=60, deadline=None)
@given(array=uint8_arrays, compress=st.booleans())
def test_reads_what_was_written(tmp_path_factory, array, compress):
    path = tmp_path_factory.mktemp("idx") / "file"
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content) if compress else content)
    read = read_idx(path, array.ndim)
    assert read.shape == array.shape
    assert (read == array).all()


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0, 1, exclude_max=True), compress=st.booleans())
def test_every_truncation_is_one_sentence(tmp_path_factory, cut, compress):
    path = tmp_path_factory.mktemp("idx") / "file"
    content = idx_bytes(np.arange(200, dtype=np.uint8).reshape(2, 10, 10))
    content = gzip.compress(content) if compress else content
    path.write_bytes(content[: int(cut * len(content))])
    with pytest.raises(DataError) as error:
        read_idx(path, 3)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "dimensions", "complaint"),
    [
        (idx_bytes(np.zeros(5, np.uint8)) + b"x", 1, "too long"),
        # A header that asks for terabytes allocates nothing.
        (bytes([0, 0, 8, 3]) + b"\xff" * 12 + b"x", 3, "truncated"),
        (idx_bytes(np.zeros(5, np.uint8)), 3, "00000801, 00000803 was expected"),
    ],
)
def test_what_the_header_does_not_say_is_refused(tmp_path, content, dimensions, complaint):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        read_idx(tmp_path / "file", dimensions)


def test_damaged_gzip(tmp_path):
    path = tmp_path / "file.gz"
    content = bytearray(gzip.compress(idx_bytes(np.arange(250, dtype=np.uint8))))
    content[-6] ^= 0xFF  # within the CRC
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        read_idx(path, 1)


def test_missing_file_and_folder_in_its_place(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_idx(tmp_path / "file", 1)
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path, 1)


@pytest.mark.parametrize(
    ("images", "labels", "complaint"),
    [
        (np.zeros((3, 28, 28)), np.zeros(2), "3 images .* 2 labels"),
        (np.zeros((0, 28, 28)), np.zeros(0), "no images"),
    ],
)
def test_files_that_do_not_belong_together(tmp_path, images, labels, complaint):
    (tmp_path / "images").write_bytes(idx_bytes(images.astype(np.uint8)))
    (tmp_path / "labels").write_bytes(idx_bytes(labels.astype(np.uint8)))
    with pytest.raises(DataError, match=complaint):
        read_split(tmp_path / "images", tmp_path / "labels")
