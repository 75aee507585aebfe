"""The solver study: its command in the smoke form, its counts, and its arithmetic."""

import json

import numpy as np
import pytest

from experiments import solvers
from experiments.solving import clock, precision, reference
from experiments.solving.problems import problems

PROBLEMS = {problem.name: problem for problem in problems()}


def test_precision_keeps_cells_and_writes_tables_and_pictures(tmp_path, capsys):
    command = ["precision", "--smoke", "--out", str(tmp_path)]
    assert solvers.main(command) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert {cell["method"] for cell in results["cells"]} == set(precision.METHODS)
    for cell in results["cells"]:
        assert all(error is not None and error < 1 for error in cell["errors"]), cell
    text = (tmp_path / "summary.md").read_text()
    assert "| jax adams |" in text
    assert "scipy vode in the median" in text
    for name in ("work-precision.png", "nfe-ratio.png"):
        assert (tmp_path / name).read_bytes()[1:4] == b"PNG"

    # A finished cell is read, not made again; one that is missing is made.
    kept, lost = (
        tmp_path / "cells" / "scipy-vode-A1.json",
        tmp_path / "cells" / "scipy-lsoda-A1.json",
    )
    cell = json.loads(kept.read_text())
    kept.write_text(json.dumps(cell | {"nfe": [7] * len(cell["nfe"])}))
    before = lost.read_text()
    lost.unlink()
    assert solvers.main([*command, "--methods", "scipy vode", "scipy lsoda"]) == 0
    assert json.loads(kept.read_text())["nfe"][0] == 7
    assert lost.read_text() == before
    capsys.readouterr()
    assert solvers.main([*command, "--decimals", "6"]) == 2
    assert "choose another --out" in capsys.readouterr().err
    kept.write_text("{")
    assert solvers.main(command) == 2
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "expected a part, precision, clock or stability, but was given nothing"),
        (["figure"], "was given figure"),
        (["precision", "--only", "Z9"], "--only Z9 is unknown"),
        (["precision", "--methods", "jax euler"], "--methods 'jax euler' is unknown"),
        (["precision", "--decimals", "99"], "--decimals is 99; 4 to 14 expected"),
        (["clock", "--decimals", "13"], "--decimals is 13; 4 to 12 expected"),
        (["clock", "--most", "0"], "--most is 0"),
        (["stability", "--steps", "0"], "--steps is 0"),
        (["stability", "--stesp", "0"], "see --help"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(arguments, complaint, capsys, tmp_path):
    assert solvers.main([*arguments, *(["--out", str(tmp_path)] if arguments else [])]) == 2
    said = capsys.readouterr().err
    assert said.startswith("solvers.py: ")
    assert complaint in said
    assert said.count("\n") == 1


def test_the_clock_writes_times_beside_evaluations(tmp_path):
    assert solvers.main(["clock", "--smoke", "--out", str(tmp_path)]) == 0
    (cell,) = json.loads((tmp_path / "results.json").read_text())["cells"]
    for found in cell["solvers"].values():
        assert np.all(np.array(found["errors"]) < 0.1)
        assert np.all(np.isfinite(found["seconds"]))
    assert cell["solvers"]["adams"]["nfe"][1] < cell["solvers"]["dopri5"]["nfe"][1]
    text = (tmp_path / "summary.md").read_text()
    assert "| Lotka-Volterra (2) | time, 10 us |" in text


def test_the_clock_compares_at_equal_error():
    """Twice the evaluations and half the time of every other, from a cost of 10 us on."""
    slow = {"errors": [1e-2, 1e-4], "nfe": [10, 20], "seconds": [[1, 2], [4, 8]], "compile": 1.0}
    ours = {"errors": [1e-2, 1e-4], "nfe": [20, 40], "seconds": [[2, 4], [2, 4]], "compile": 3.0}
    cell = {
        "problem": "P",
        "size": 1,
        "tolerances": [1e-3, 1e-5],
        "microseconds": [0, 10],
        "solvers": {name: ours if name == "adams" else slow for name in clock.SOLVERS},
    }
    text = clock.report([cell])
    for row in ("evaluations | 2 | 2", "time, 0 us | 2", "time, 10 us | 0.5", "compiling | 3"):
        assert row in text
    assert "tsit5: 10 us" in text


@pytest.mark.parametrize("method", ["jax dopri5", "torch dopri5", "scipy dop853"])
def test_padding_changes_nothing(method):
    """A small problem compiled together with one of 51 components takes the steps it takes alone.

    The error is then the same but for rounding, magnified by no more than the tolerance's decimals.
    """
    small, large = PROBLEMS["B2"], PROBLEMS["C4"]
    exact = reference.solve(small)
    alone, together = (
        precision.cell(small, exact, method, [1e-4, 1e-6], among)
        for among in ((small,), (small, large))
    )
    assert alone["nfe"] == together["nfe"]
    np.testing.assert_allclose(alone["errors"], together["errors"], rtol=1e-8)


def test_ratio_at_equal_error():
    """Twice the evaluations for every error; theirs fall tenfold where NFE doubles."""
    theirs = {"errors": [1e-2, 1e-3, None, 1e-4], "nfe": [10, 20, None, 40]}
    ours = {
        "tolerances": [1e-1, 1e-2, 1e-3, 1e-4],
        "errors": [1.0, 10**-2.5, 1e-4, None],
        "nfe": [9, 2 * 10 * 2**0.5, 80, None],
    }
    np.testing.assert_allclose(precision.ratios(ours, theirs), [2, 2])  # 1.0 is outside theirs
    np.testing.assert_allclose(precision.ratios(ours, theirs, within=(0, 1e-3)), [2])
    assert precision.ratios(ours, {"errors": [None], "nfe": [None]}) == []


def test_slope_is_the_exponent():
    tolerances = [1e-3, 1e-4, 1e-5, 1e-6]
    cell = {"tolerances": tolerances, "errors": [5 * t**0.8 for t in tolerances]}
    assert precision.slope(cell) == pytest.approx(0.8)
    assert np.isnan(precision.slope({"tolerances": tolerances, "errors": [None] * 4}))
