"""Pictures in a folder a class: sizes, colours, which are for testing, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from experiments import mnist, predict
from experiments.harness.errors import DataError
from experiments.images import class_folders, image_file, sources

from ..conftest import idx_bytes


def write(folder, counts, shape=(9, 12), seed=0):
    """Noise around a brightness of its own for each class."""
    generator = np.random.default_rng(seed)
    for level, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            noise = generator.integers(0, 60, shape, np.uint8)
            Image.fromarray(noise + np.uint8(90 * level)).save(folder / name / f"{k:02d}.png")
    return folder


@pytest.mark.parametrize(("shape", "channels"), [((9, 12), 1), ((9, 12, 3), 3)])
def test_a_fifth_of_every_class_is_for_testing(tmp_path, shape, channels):
    write(tmp_path / "pets", {"cat": 10, "dog": 20}, shape)
    (tmp_path / "pets" / "notes.txt").write_text("not a picture")
    dataset = sources.load("mnist", data_dir=tmp_path / "pets", tfds_dir=tmp_path)
    assert dataset.title == "pets, idx, 24 train + 6 test"
    assert dataset.classes == ("cat", "dog")
    assert dataset.shape == (9, 12, channels)
    assert np.bincount(dataset.test_labels).tolist() == [2, 4]
    assert np.bincount(dataset.train_labels[:6]).tolist() == [2, 4]
    for images, labels in (
        (dataset.train_images, dataset.train_labels), (dataset.test_images, dataset.test_labels)
    ):  # fmt: skip
        assert (images.mean((1, 2, 3)) // 90 == labels).all()
    again = sources.load("mnist", data_dir=tmp_path / "pets", tfds_dir=tmp_path)
    assert again.checksum == dataset.checksum


def test_folders_train_and_test_say_which(tmp_path):
    write(tmp_path / "train", {"a": 3, "b": 4})
    write(tmp_path / "test", {"a": 1, "b": 2}, seed=1)
    splits, classes = class_folders.read(tmp_path)
    assert classes == ("a", "b")
    assert np.bincount(splits["train"][1]).tolist() == [3, 4]
    assert np.bincount(splits["test"][1]).tolist() == [1, 2]


def test_one_picture_in_colour_makes_all_rgb(tmp_path):
    write(tmp_path, {"a": 3, "b": 3})
    Image.new("RGB", (12, 9), "red").save(tmp_path / "a" / "red.png")
    splits, _ = class_folders.read(tmp_path)
    assert splits["train"][0].shape[1:] == (9, 12, 3)


def test_pictures_are_upright_and_on_white_paper_in_training_as_in_predict(tmp_path):
    write(tmp_path, {"a": 3, "b": 3})
    ink = np.zeros((9, 12), np.uint8)
    ink[2:5, 1:4] = 200
    exif = Image.Exif()
    exif[image_file.ORIENTATION] = 3  # upside down
    Image.fromarray(ink[::-1, ::-1]).save(tmp_path / "a" / "turned.png", exif=exif)
    clear = Image.merge("LA", [Image.new("L", (12, 9)), Image.fromarray(ink)])
    clear.save(tmp_path / "b" / "clear.png")
    splits, _ = class_folders.read(tmp_path)
    images = np.concatenate([split[0] for split in splits.values()])
    assert images.shape == (8, 9, 12, 1)
    for path, expected in (("a/turned.png", ink), ("b/clear.png", 255 - ink)):
        assert (images == expected[..., None]).all((1, 2, 3)).any()
        asked, done = image_file.resized(tmp_path / path, (9, 12, 1))
        np.testing.assert_array_equal(asked[..., 0], expected)
        assert done == ("turned as its EXIF says" if "turned" in path else "as it is")
    Image.fromarray(ink.astype(np.uint16) * 257).save(tmp_path / "a" / "deep.png")
    with pytest.raises(DataError, match="deep.png has more than 8 bits"):
        class_folders.read(tmp_path)


def test_what_cannot_be_used_is_named(tmp_path):
    write(tmp_path / "one", {"only": 6})
    with pytest.raises(DataError, match=r"one has 1 folder\(s\) of pictures; 2 to 256"):
        class_folders.read(tmp_path / "one")
    write(tmp_path / "few", {"a": 1, "b": 2})
    with pytest.raises(DataError, match="few has 3 pictures; at least 5"):
        class_folders.read(tmp_path / "few")
    write(tmp_path / "sizes", {"a": 3, "b": 3})
    Image.new("L", (5, 5)).save(tmp_path / "sizes" / "b" / "odd.png")
    with pytest.raises(DataError, match=r"odd.png has 5x5 pixels and .*00.png 12x9"):
        class_folders.read(tmp_path / "sizes")
    (tmp_path / "sizes" / "b" / "odd.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="odd.png is no image that can be read"):
        class_folders.read(tmp_path / "sizes")
    write(tmp_path / "both" / "train", {"a": 3, "b": 3})
    (tmp_path / "both" / "test").mkdir()
    with pytest.raises(DataError, match="test has no pictures of a, b"):
        class_folders.read(tmp_path / "both")


def write_idx(folder, shape, classes):
    folder.mkdir()
    for prefix, count in (("train", 24), ("t10k", 12)):
        labels = (np.arange(count) % classes).astype(np.uint8)
        images = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            (folder / f"{prefix}-{name}-ubyte").write_bytes(idx_bytes(array))
    return folder


def test_idx_files_of_another_size_and_more_classes(tmp_path):
    folder = write_idx(tmp_path / "letters", (9, 12), 12)
    dataset = sources.load("mnist", data_dir=folder, tfds_dir=tmp_path)
    assert (dataset.shape, len(dataset.classes), dataset.name) == ((9, 12, 1), 12, "letters")


def test_images_too_small_are_refused(tmp_path, capsys):
    folder = write_idx(tmp_path / "dots", (4, 9), 3)
    flags = ["--framework", "torch", "--data-dir", str(folder), "--batch-size", "8"]
    assert mnist.main([*flags, "--out", str(tmp_path / "run")]) == 2
    assert "4x9 pixels; at least 8x8 expected" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("framework", ["jax", "torch"])
def test_a_run_on_ones_own_pictures_is_trained_resumed_and_asked(tmp_path, capsys, framework):
    pets = write(tmp_path / "pets", {"cat": 15, "dog": 15, "hen": 15}, (9, 12, 3))
    run = tmp_path / "run"
    flags = ["--framework", framework, "--data-dir", str(pets), "--batch-size", "12"]
    flags += ["--solver", "euler", "--step-size", "1", "--lr", "0.03", "--devices", "1"]
    assert mnist.main([*flags, "--epochs", "1", "--out", str(run)]) == 0
    assert mnist.main(["--resume", str(run), "--epochs", "2", "--devices", "1"]) == 0
    assert mnist.main(["--evaluate", str(run), "--devices", "1"]) == 0
    capsys.readouterr()
    picture = pets / "hen" / "00.png"
    with Image.open(picture) as image:
        image.resize((24, 18)).save(tmp_path / "large.png")
    movie = tmp_path / "movie.gif"
    assert predict.main([str(run), str(picture), str(tmp_path / "large.png")]) == 0
    out = capsys.readouterr().out
    assert "trained on pets" in out
    assert "(as it is)" in out
    assert "(resized from 24x18)" in out
    assert any(f": {name}, probability" in out for name in ("cat", "dog", "hen"))
    assert predict.main([str(run), "--test", "1", "--animate", str(movie)]) == 0
    assert movie.read_bytes()[:3] == b"GIF"
