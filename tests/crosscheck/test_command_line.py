"""`python -m crosscheck`: exit codes, reports, messages."""

import json
import subprocess
import sys

import numpy as np
import pytest

from crosscheck import __main__ as command
from crosscheck import fields, gradients, report, suite, trajectories
from crosscheck.check import compare_tensors


@pytest.fixture(scope="module")
def solved():
    """What is drawn."""
    mlp = fields.mlp()
    pair = trajectories.solve_both(mlp, "rk4")
    return pair, gradients.square(mlp, "euler", 0.125, adjoints=("direct",))


def findings(solved, value):
    pair, square = solved
    found = suite.Findings(settings={"quick": True})
    found.pairs.append(pair)
    found.squares.append(square)
    sides = {"jax": {"w<1>": np.array([1.0])}, "torch": {"w<1>": np.array([value])}}
    found.checks.append(compare_tensors("layers", "conv1", sides, 1e-3, "because"))
    return found


@pytest.mark.parametrize(("value", "code"), [(1.0, 0), (2.0, 1), (np.nan, 1)])
def test_exit_code_and_reports(solved, monkeypatch, tmp_path, capsys, value, code):
    monkeypatch.setattr(suite, "run", lambda quick, say: findings(solved, value))
    assert command.main(["--quick", "--out", str(tmp_path / "a" / "b")]) == code
    out = capsys.readouterr().out
    strict = lambda text: pytest.fail(f"{text} is no JSON")
    text = (tmp_path / "a" / "b" / "report.json").read_text()
    content = json.loads(text, parse_constant=strict)
    assert content["passed"] == (code == 0)
    page = (tmp_path / "a" / "b" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page  # it needs nothing from elsewhere
    if code:
        assert "layers: conv1: jax against torch" in out
        assert "w<1>[0]" in out
        assert "w&lt;1&gt;[0]" in page
        assert content["checks"][0]["worst"]["index"] == [0]
    else:
        assert "all 1 checks are within their bounds" in out


def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["--fast"])
    with pytest.raises(SystemExit, match="2"):
        command.main(["convert", "runs", "--to", "keras"])
    (tmp_path / "file").write_text("")
    assert command.main(["--quick", "--out", str(tmp_path / "file")]) == 2
    assert command.main(["convert", str(tmp_path / "none"), "--to", "jax"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("crosscheck: ") for line in lines)


def test_help_shows_examples():
    done = subprocess.run(
        [sys.executable, "-m", "crosscheck", "--help"], capture_output=True, text=True, check=True
    )
    assert "examples:" in done.stdout
    assert "exit code" in done.stdout


def test_margin_orders_checks():
    sides = {"a": {"w": np.array([1.0])}, "b": {"w": np.array([1.1])}}
    near = compare_tensors("g", "near", sides, 0.1, "")
    far = compare_tensors("g", "far", sides, 1.0, "")
    assert max([far, near], key=report.margin) is near


@pytest.mark.slow
def test_the_quick_form_passes(tmp_path):
    assert command.main(["--quick", "--out", str(tmp_path)]) == 0
