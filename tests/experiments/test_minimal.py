import re

import numpy as np
import pytest

from experiments import minimal


def test_it_learns(capsys, monkeypatch):
    train, test = minimal.load()
    monkeypatch.setattr(minimal, "load", lambda: (train, tuple(part[::10] for part in test)))
    error = minimal.main(epochs=3, batch_size=16, seed=0, limit=256)
    line = re.compile(r"epoch (\d)  loss ([\d.]+)  NFE [\d.]+  test error ([\d.]+) %")
    found = [line.match(text).groups() for text in capsys.readouterr().out.splitlines()]
    assert [epoch for epoch, _, _ in found] == ["1", "2", "3"]
    losses = [float(loss) for _, loss, _ in found]
    # Guessing costs log(10) = 2.30.
    assert losses[2] < losses[1] < losses[0]
    assert losses[2] < 2.3
    assert found[2][2] == f"{error:.2f}"


@pytest.mark.parametrize(("epochs", "batch_size"), [(0, 16), (1, 0), (1, 65)])
def test_nothing_to_train_is_refused(epochs, batch_size):
    with pytest.raises(SystemExit, match="no epoch, or no batch of"):
        minimal.main(epochs=epochs, batch_size=batch_size, seed=0, limit=64)


def test_no_image_is_in_both_parts():
    (images, labels), (test_images, test_labels) = minimal.load()
    assert (len(labels), len(test_labels)) == (4000, 1000)
    assert np.all(np.bincount(test_labels) == 100)
    digests = lambda images: {image.tobytes() for image in images}
    assert not digests(images) & digests(test_images)
