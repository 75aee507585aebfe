"""The notebook runs from beginning to end, and its runner says where one does not."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jax
import pytest

from experiments import notebook

TOUR = Path(notebook.__file__).parent / "tour.ipynb"


@pytest.fixture
def x64_as_it_was():
    """The tour switches to float64."""
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture
def without_type_checks():
    """Step 4 passes a compiled tolerance, an array, where the annotation is a float."""
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_the_tour_runs_in_its_smoke_form(monkeypatch, x64_as_it_was, without_type_checks):
    monkeypatch.setenv("TOUR_SMOKE", "1")
    tour = json.loads(TOUR.read_text())
    committed = copy.deepcopy(tour)
    names = notebook.execute(tour)
    pictures = [
        sum(output["output_type"] == "display_data" for cell in code(book) for output in cell)
        for book in (tour, committed)
    ]
    assert pictures == [3, 3]  # the committed one shows what a run shows
    assert names["SMOKE"]
    assert names["path"].states.shape == (5, 20, 6, 6, 64)


def code(book):
    return [cell["outputs"] for cell in book["cells"] if cell["cell_type"] == "code"]


def test_the_committed_tour_is_small():
    assert TOUR.stat().st_size < 500_000


def cells(*sources):
    return {"cells": [{"cell_type": "code", "source": [source]} for source in sources]}


def test_a_cell_that_fails_is_named_and_the_file_left_alone(tmp_path, capsys):
    path = tmp_path / "bad.ipynb"
    path.write_text(json.dumps(cells("a = 1", "print(a)\na / 0")))
    before = path.read_text()
    assert notebook.main([str(path)]) == 1
    assert "cell 2 failed: ZeroDivisionError" in capsys.readouterr().err
    assert path.read_text() == before


def test_outputs_are_kept(tmp_path):
    path = tmp_path / "good.ipynb"
    path.write_text(
        json.dumps(cells("import matplotlib.pyplot as plt", "print(7)\nplt.figure()\nplt.show()"))
    )
    assert notebook.main([str(path)]) == 0
    first, second = code(json.loads(path.read_text()))
    assert first == []
    assert second[0]["text"] == ["7\n"]
    assert second[1]["data"]["image/png"].startswith("iVBOR")


@pytest.mark.parametrize("arguments", [[], ["nowhere.ipynb"]])
def test_bad_input_is_one_sentence(arguments, capsys):
    assert notebook.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
