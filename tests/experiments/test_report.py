"""Tables come from run folders: those of a study made up here, and the one in docs/."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments import report
from experiments.harness.errors import ConfigError
from experiments.harness.markdown import Heading, Picture, Table, Text, markdown, page
from experiments.section3 import findings, grid, tables
from experiments.section3.collect import collect, load

DOCS = Path(__file__).parents[2] / "docs"
COMMITTED = DOCS / "results" / "study-laptop.json"
TRUE = "0123456789" * 10
DATA = {"title": "MNIST, embedded, 5 train + 100 test", "source": "embedded", "sha256": "ab"}


def write_run(folder, variant, seed, errors, **summary):
    """A finished run that predicts the first `errors` of 100 test images wrongly."""
    path = folder / f"{variant}-seed{seed}"
    path.mkdir(parents=True)
    predicted = "".join("1" if t != "1" else "0" for t in TRUE[:errors]) + TRUE[errors:]
    rows = [
        {"epoch": e, "train_loss": 1 / e, "test_loss": 2 / e, "test_error": errors + 3 - e,
         "nfe_forward": 20.0, "nfe_backward": 18.0, "cpu_seconds_train": 5.0}
        for e in (1, 2, 3)
    ]  # fmt: skip
    default = {
        "test_error": float(errors), "parameters": 208266, "nfe_forward": 20.0,
        "nfe_backward": 18.0, "seconds_per_epoch": 9.0, "cpu_seconds_per_epoch": 8.0,
        "peak_memory_mib": 800.0, "epochs": 3,
    }  # fmt: skip
    config = {"git_commit": "f" * 40 + "-dirty", "device": "cpu", "data": DATA}
    for name, value in (
        ("summary", default | summary),
        ("config", config),
        ("predictions", {"predicted": predicted, "true": TRUE}),
    ):
        (path / f"{name}.json").write_text(json.dumps(value))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def solver_row(solver, tolerance, step, error, nfe, inexact):
    return {"solver": solver, "tolerance": tolerance, "step_size": step, "test_error": error,
            "nfe_forward": nfe, "logit_error": inexact, "seconds_per_batch": 0.1,
            "step_nfe_forward": nfe, "step_nfe_backward": nfe, "seconds_per_step": 0.2}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    session = {"jobs": 2, "cores": 2, "git_commit": "f" * 40}
    record = {"preset": "laptop", "flags": ["--epochs", "3"], "sessions": [session]}
    (folder / "study.json").write_text(json.dumps(record))
    for seed, errors in enumerate((2, 3, 4)):
        path = write_run(folder, "odenet", seed, errors)
        solvers = [
            solver_row("dopri5", 1e-6, None, errors, 60, 0.0),
            solver_row("dopri5", 0.1, None, errors + 1, 14, 0.05),
            solver_row("euler", None, 1.0, errors + 9, 1, 0.5),
        ]
        images = [{"kind": k, "amount": a, "test_error": errors + a} for k, amounts in
                  (("none", [0]), ("noise", [1]), ("shift", [2])) for a in amounts]  # fmt: skip
        (path / "examined.json").write_text(json.dumps({"solvers": solvers, "images": images}))
        resnet = write_run(folder, "resnet6", seed, errors + 2, nfe_forward=0.0, parameters=576778)
        images = [row | {"test_error": row["test_error"] + 5 + seed} for row in images]
        (resnet / "examined.json").write_text(json.dumps({"solvers": [], "images": images}))
    (folder / "rknet-seed0").mkdir()
    (folder / "rknet-seed0" / "summary.json").write_text('{"failed": "the loss is not finite"}')
    (folder / "resnet1-seed0").mkdir()
    (folder / "logs").mkdir()
    (folder / "logs" / "resnet1-seed0.log").write_text("a\nmnist.py: /home/me/x/run is full\n\n")
    return folder


def test_table_1_by_hand(folder):
    table = tables.table1(collect(folder))
    # t(0.975; 2) / sqrt(3) = 2.484 for a standard deviation of 1
    assert table.rows == [
        ("ResNet-6", "5.00 ± 2.48", "3", "576,778", "-", "18.0", "8.0", "9.0", "800", "O(L)",
         "0.41", "0.60 M"),
        ("ODE-Net (dopri5, direct)", "3.00 ± 2.48", "3", "208,266", "20.0", "18.0", "8.0", "9.0",
         "800", "O(steps)", "", ""),
    ]  # fmt: skip


def test_comparison_by_hand(folder):
    table = tables.comparisons(collect(folder), [("resnet6", "odenet"), ("rknet", "odenet")])
    (row,) = table.rows
    assert row[2:5] == ("3", "+2.00", "0.00")
    # Of 100 images five differ: two of three seeds, one of them, or all (of 2 errors a seed).
    per_image = np.zeros(100)
    for first in (2, 3, 4):
        per_image[first : first + 2] += 100 / 3
    half = 1.984217 * per_image.std(ddof=1) / 10
    assert row[5] == f"{half:.2f}"
    assert row[6] == f"no difference larger than {2 + half:.2f} points"


def test_solvers_and_images_by_hand(folder):
    record = collect(folder)
    rows = tables.changed_solvers(record, ["odenet"]).rows
    assert [row[1:5] for row in rows] == [
        ("dopri5, tolerance 1e-06", "60", "3.00 ± 2.48", "+0.00 ± 0.00"),
        ("dopri5, tolerance 0.1", "14", "4.00 ± 2.48", "+1.00 ± 0.00"),
        ("euler, step 1", "1", "12.00 ± 2.48", "+9.00 ± 0.00"),
    ]
    rows = tables.robustness(record, ("odenet", "resnet6"), "resnet6").rows
    assert rows[1] == ("noise, 1 of white, Gaussian", "4.00 ± 2.48", "10.00 ± 4.97",
                       "-6.00 ± 2.48")  # fmt: skip


def test_runs_without_results_are_named_with_their_reasons(folder):
    rows = dict((row[0], row[1:]) for row in tables.failures(collect(folder)).rows)
    assert rows["rknet, seed 0"] == ("failed", "the loss is not finite")
    assert rows["resnet1, seed 0"] == ("failed", "mnist.py: run is full")
    assert rows["torch-odenet, seed 0"] == ("missing", "not begun")
    done = {"odenet", "resnet6"}
    expected = [c for c in grid.cells(grid.PRESETS["laptop"])
                if c.variant.name not in done or c.seed > 2]  # fmt: skip
    assert len(rows) == len(expected)


@pytest.mark.parametrize("name", ["summary.json", "predictions.json", "metrics.jsonl"])
def test_a_damaged_run_is_a_failed_one(name, folder):
    (folder / "odenet-seed1" / name).write_text("{")
    record = collect(folder)
    assert set(tables.done(record, "odenet")) == {0, 2}
    assert "odenet, seed 1" in [row[0] for row in tables.failures(record).rows]


def test_report_from_folders_and_again_from_its_record(folder, tmp_path, capsys):
    assert report.main([str(folder), "--out", str(tmp_path / "a")]) == 0
    out = capsys.readouterr().out
    assert "6 of 93 finished" in out.replace("\n", " ")
    assert "rknet-seed0" in out
    assert (
        report.main([str(tmp_path / "a/results/study-laptop.json"), "--out", str(tmp_path / "b")])
        == 0
    )
    for name in ("results.md", "results.html", "results/study-laptop.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    text = (tmp_path / "a/results.md").read_text()
    assert "5.00 ± 2.48" in text
    assert "ffffffffff-dirty" in text
    assert "nan" not in text
    html = (tmp_path / "a/results.html").read_text()
    assert html.count("data:image/png;base64,") == text.count("![") == 5
    assert 'src="http' not in html


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "expected STUDY"),
        (["nowhere"], "nowhere is not there"),
        (["."], "holds no study"),
        (["x.json"], "neither a study's folder nor a record"),
        ([".", "--out"], "--out needs a folder"),
        (["--fast", "."], "expected STUDY"),
    ],
)
def test_bad_arguments(arguments, part, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.json").write_text("[]")
    assert report.main(arguments) == 2
    err = capsys.readouterr().err
    assert part in err
    assert err.count("\n") == 1


def test_a_study_without_finished_runs(folder, capsys):
    for path in folder.glob("*/predictions.json"):
        path.unlink()
    assert report.main([str(folder)]) == 2
    assert "no run" in capsys.readouterr().err


def test_findings(folder):
    record = collect(folder)
    fill = lambda name: findings.fill("{{" + name + "}}", record, folder)
    assert fill("error:odenet") == "3.00 ± 2.48%"
    assert fill("statement:resnet6:odenet").startswith("no difference larger than")
    assert fill("parameters:resnet6") == "576,778"
    assert fill("nfe_forward:odenet") == "20.0"
    assert fill("solver:odenet:euler:1") == "12.00 ± 2.48%"
    assert fill("solver-nfe:odenet:dopri5:0.1") == "14"
    assert fill("images-difference:odenet:resnet6:noise:1") == "-6.00 ± 2.48"
    page = "<!-- a -->\n\n| RMSE | x | y |\n| --- | --- | --- |\n| b |  | 2 |\n<!-- end a -->\n"
    (folder / "page.md").write_text(page)
    assert fill("table:page.md:a:b:y") == "2"
    for missing in ("error:rknet", "solver:odenet:rk4:1", "nothing", "statement:rknet:odenet"):
        with pytest.raises(ConfigError, match=missing):
            fill(missing)


def test_findings_in_a_table_may_be_missing(folder):
    template = "a {{error:odenet}}\n| b | {{error:rknet}} | {{n:odenet}} |\n"
    filled = findings.fill(template, collect(folder), folder)
    assert filled == "a 3.00 ± 2.48%\n| b | not run | 3 |\n"


def test_document():
    blocks = [Heading("A & B", 1), Text("`x` **y** [z](w)"), Table(("a", "b"), [("1", "<2")]),
              Picture("p.png", "P")]  # fmt: skip
    assert markdown(blocks) == (
        "# A & B\n\n`x` **y** [z](w)\n\n| a | b |\n| --- | --- |\n| 1 | <2 |\n\n"
        "![P](pictures/p.png)\n"
    )
    html = page(blocks[:3], Path())
    assert '<code>x</code> <strong>y</strong> <a href="w">z</a>' in html
    assert "&lt;2" in html


@pytest.mark.skipif(not COMMITTED.exists(), reason="no study is committed")
def test_committed_page_is_what_its_record_gives():
    record = load(COMMITTED)
    pictures = {
        path.stem.removeprefix("study-laptop-"): path.name
        for path in (DOCS / "pictures").glob("study-laptop-*.png")
    }
    assert (DOCS / "results.md").read_text() == markdown(report.results(record, pictures))
    template = (DOCS / "findings.template.md").read_text()
    assert (DOCS / "findings.md").read_text() == findings.fill(template, record, DOCS)
