"""The notebook runs from beginning to end, and the committed one shows what a run shows."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import pytest
from matplotlib import pyplot

import experiments

TOUR = Path(experiments.__file__).parent / "tour.ipynb"


@pytest.fixture
def x64_as_it_was():
    """The tour switches to float64."""
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


# Step 4 passes a compiled tolerance, an array, where the annotation is a float.
@pytest.mark.usefixtures("_no_type_checks")
def test_the_tour_runs_in_its_smoke_form(monkeypatch, x64_as_it_was):
    monkeypatch.setenv("TOUR_SMOKE", "1")
    pyplot.close("all")
    code = [cell for cell in json.loads(TOUR.read_text())["cells"] if cell["cell_type"] == "code"]
    names: dict = {"__name__": "__main__"}
    for number, cell in enumerate(code, 1):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    outputs = [output for cell in code for output in cell["outputs"]]
    assert sum(output["output_type"] == "display_data" for output in outputs) == 3
    assert len(pyplot.get_fignums()) == 3
    pyplot.close("all")
    assert names["SMOKE"]
    assert names["path"].states.shape == (5, 20, 6, 6, 64)


def test_the_committed_tour_is_small():
    assert TOUR.stat().st_size < 500_000
