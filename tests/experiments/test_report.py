"""Tables come from run folders: those of a study made up here, and the one in docs/."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from experiments import collect as command
from experiments import report
from experiments.harness.errors import ConfigError
from experiments.harness.markdown import Table, page
from experiments.section3 import claims, compact, evidence, examined, findings, grid, tables
from experiments.section3.collect import collect, join, load, text
from experiments.section3.intervals import Interval, Verdict

DOCS = Path(__file__).parents[2] / "docs"
TRUE = "0123456789" * 10
DATA = {"title": "MNIST, embedded, 5 train + 100 test", "source": "embedded", "sha256": "ab"}


def write_run(folder, variant, seed, errors, fold=None, **summary):
    """A finished run that predicts the first `errors` of 100 test images wrongly."""
    path = folder / (f"{variant}-seed{seed}" + ("" if fold is None else f"-fold{fold}"))
    path.mkdir(parents=True)
    places = list(range(100 * (fold or 0), 100 * (fold or 0) + 100))
    losses = [2.0] * errors + [0.01] * (100 - errors)
    predicted = "".join("1" if t != "1" else "0" for t in TRUE[:errors]) + TRUE[errors:]
    rows = [
        {"epoch": e, "train_loss": 1 / e, "test_loss": 2 / e, "test_error": errors + 3 - e,
         "validation_loss": 3 / e, "nfe_forward": 19.0 + e, "nfe_backward": 9.0,
         "cpu_seconds_train": 5.0}
        for e in (1, 2, 3)
    ]  # fmt: skip
    default = {
        "test_error": float(errors), "parameters": 208266, "nfe_forward": 20.0,
        "nfe_backward": 18.0, "seconds_per_epoch": 9.0, "cpu_seconds_per_epoch": 8.0,
        "peak_memory_mib": 800.0, "epochs": 3, "validation_loss": 1.0,
    }  # fmt: skip
    config = {"git_commit": "f" * 40 + "-dirty", "device": "cpu", "data": DATA,
              "flags": {"training": {"lr": 0.1}}}  # fmt: skip
    for name, value in (
        ("summary", default | summary),
        ("config", config),
        ("predictions", {"predicted": predicted, "true": TRUE, "rows": places, "loss": losses}),
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


def by_hand(first):
    """Mean and interval of errors on the first 2, 3 and 4 of 100 images (or from `first` on).

    Two-way: images' means over repeats, plus repeats, minus the residual that both of them hold.
    """
    wrong = np.zeros((3, 100))
    for row, errors in zip(wrong, first, strict=True):
        row[:errors] = 100
    return evidence.mean([wrong]).interval(bounds=(0.0, 100.0))


def test_table_1_by_hand(folder):
    resnet, odenet = tables.table1(collect(folder)).rows
    assert resnet[:2] == ("ResNet-6", tables.shown(by_hand((4, 5, 6))))
    assert resnet[1].startswith("5.00 (0.")
    # of 100 images 5 cost 2 nats in the mean, the others 0.01
    assert resnet[2].startswith("0.1095 (")
    assert resnet[3:] == ("3", "0.1", "576,778", "-", "18.0", "8.0", "9.0", "800", "O(L)", "0.41",
                          "0.60 M", "0.45")  # fmt: skip
    assert odenet[:2] == ("ODE-Net (dopri5, direct)", tables.shown(by_hand((2, 3, 4))))
    assert odenet[3:] == ("3", "0.1", "208,266", "20.0", "18.0", "8.0", "9.0", "800", "O(steps)",
                          "", "", "")  # fmt: skip


def test_comparison_by_hand(folder):
    record = collect(folder)
    verdicts = evidence.compared(record)
    assert list(verdicts) == [("resnet6", "odenet")]  # rknet has no runs
    (row,) = tables.comparisons(record, verdicts, [("resnet6", "odenet"), ("rknet", "odenet")]).rows
    assert row[2].startswith("+2.00 (")
    assert row[3:5] == ("95.00%", "not decided")
    assert row[5].startswith("+0.0398 (")  # 2 of 100 images, 1.99 nats each


def test_solvers_and_images_by_hand(folder):
    record = collect(folder)
    rows = examined.changed_solvers(record, ["odenet"]).rows
    assert [row[1:5] for row in rows] == [
        ("dopri5, tolerance 1e-06", "60", "3.00", "+0.00 (+0.00 to +0.00)"),
        ("dopri5, tolerance 0.1", "14", "4.00", "+1.00 (+1.00 to +1.00)"),
        ("euler, step 1", "1", "12.00", "+9.00 (+9.00 to +9.00)"),
    ]
    rows = examined.robustness(record, ("odenet", "resnet6"), "resnet6").rows
    # t(0.975; 2) / sqrt(3) = 2.484 for a standard deviation of 1, and no error is below 0
    assert rows[1] == ("noise, 1 of white, Gaussian", "4.00 (1.52 to 6.48)",
                       "10.00 (5.03 to 14.97)", "-6.00 (-8.48 to -3.52)")  # fmt: skip


def test_two_trainings_of_a_model_disagree_on_the_diagonal(folder):
    rows = {row[0]: row[1:] for row in tables.disagreements(collect(folder), grid.TABLE1).rows}
    # 2, 3 and 4 errors on the first images: pairs differ on 1, 2 and 1 of 100.
    assert rows["ODE-Net (dopri5, direct)"][1] == "1.33"
    # 4, 5 and 6 errors against these: 2, 1, 0, 3, 2, 1, 4, 3 and 2.
    assert rows["ODE-Net (dopri5, direct)"][0] == rows["ResNet-6"][1] == "2.00"
    assert "on 1.33% of the test images, two models on 2.00%" in findings.base_rate(collect(folder))


def test_runs_without_results_are_named_with_their_reasons(folder):
    rows = dict((row[0], row[1:]) for row in tables.failures(collect(folder)).rows)
    assert rows["rknet, seed 0"] == ("failed", "the loss is not finite")
    assert rows["resnet1, seed 0"] == ("unfinished", "mnist.py: run is full")
    assert rows["torch-odenet"] == ("missing", "3 not begun")
    cells = grid.cells(grid.PRESETS["laptop"])
    begun = sum(c.variant.name in ("odenet", "resnet6") and c.seed < 3 for c in cells) + 2
    assert sum(int(row[1].split()[0]) for row in rows.values() if row[0] == "missing") == (
        len(cells) - begun
    )


@pytest.mark.parametrize("name", ["summary.json", "predictions.json", "metrics.jsonl"])
def test_a_damaged_run_is_an_unfinished_one(name, folder):
    (folder / "odenet-seed1" / name).write_text("{")
    record = collect(folder)
    assert {run["seed"] for run in evidence.done(record, "odenet")} == {0, 2}
    assert "odenet, seed 1" in [row[0] for row in tables.failures(record).rows]


def without(path, *keys):
    found = json.loads(path.read_text())
    inside = found
    for key in keys[:-1]:
        inside = inside[key]
    del inside[keys[-1]]
    path.write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("study.json", ["sessions"]),
        ("study.json", ["flags"]),
        ("odenet-seed1/config.json", ["git_commit"]),
        ("odenet-seed1/config.json", ["data", "title"]),
        ("odenet-seed1/config.json", ["flags", "training"]),
        ("odenet-seed1/predictions.json", ["true"]),
    ],
)
def test_files_without_what_they_had_are_named(name, keys, folder, capsys):
    without(folder / name, *keys)
    assert report.main([str(folder)]) == 2
    message = capsys.readouterr().err
    assert str((folder / name).parent) in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    "keys",
    [["sessions"], ["data", "sha256"], ["runs", 0, "status"], ["runs", 0, "rows"], ["runs", 0]],
)
def test_a_record_without_what_it_had_is_named(keys, folder, tmp_path, capsys):
    path = tmp_path / "record.json"
    path.write_text(text(collect(folder)))
    without(path, *keys)
    expected = 0 if keys == ["runs", 0] else 2  # a run less is no fault
    assert command.main([str(tmp_path / "new.json"), str(path)]) == expected
    assert ("record.json" in capsys.readouterr().err) == (expected == 2)


def test_report_from_folders_and_again_from_its_record(folder, tmp_path, capsys):
    assert command.main([str(tmp_path / "study.json"), str(folder)]) == 0
    assert "6 done, 1 failed, 1 unfinished, 85 missing" in capsys.readouterr().out
    assert report.main([str(folder), "--out", str(tmp_path / "a")]) == 0
    out = capsys.readouterr().out
    assert "6 of 93 finished" in out
    assert "rknet, seed 0" in out
    assert report.main([str(tmp_path / "study.json"), "--out", str(tmp_path / "b")]) == 0
    for name in ("results-laptop.md", "results-laptop.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    text = (tmp_path / "a/results-laptop.md").read_text()
    assert "ffffffffff-dirty" in text
    assert "nan" not in text
    html = (tmp_path / "a/results-laptop.html").read_text()
    assert html.count("data:image/png;base64,") == text.count("![") == 5
    assert 'src="http' not in html


def test_a_record_outlives_its_folders_and_grows(folder, tmp_path, capsys):
    path = tmp_path / "study.json"
    assert command.main([str(path), str(folder)]) == 0
    before = load(path)
    for run in folder.glob("*-seed0"):
        for file in run.glob("*.json"):
            file.unlink()
    write_run(folder, "resnet12", 0, 4)
    assert command.main([str(path), str(folder)]) == 0
    after = load(path)
    assert [run for run in after["runs"] if run["variant"] != "resnet12"] == [
        run for run in before["runs"] if run["variant"] != "resnet12"
    ]
    assert len(evidence.done(after, "resnet12")) == 1
    assert after["sessions"] == before["sessions"]
    bare = [{k: v for k, v in run.items() if k != "examined"} for run in after["runs"]]
    assert join([after | {"runs": bare}, after])["runs"] == after["runs"]  # what was examined stays
    with pytest.raises(ConfigError, match="flags of laptop are not those of laptop"):
        join([before, after | {"flags": ["--epochs", "4"]}])
    assert command.main(["study.json"]) == 2
    assert "expected RECORD.json STUDY" in capsys.readouterr().err


def folded(tmp_path, preset, wanted, errors, spread=0):
    """A study with 3 repeats of 2 of its 5 folds, the third without the second fold."""
    folder = tmp_path / preset
    folder.mkdir()
    flags = grid.PRESETS[preset].flags.split()
    session = {"jobs": 2, "cores": 2, "git_commit": "f" * 40}
    record = {"preset": preset, "flags": flags, "sessions": [session]}
    (folder / "study.json").write_text(json.dumps(record))
    for name in wanted:
        for seed, fold in ((1, 0), (1, 1), (2, 0), (2, 1), (3, 0)):
            path = write_run(folder, name, seed, errors[name] + spread * (seed % 2), fold)
            solvers = [solver_row("dopri5", 1e-3, None, 1.0, 20, 0.0)]
            (path / "examined.json").write_text(json.dumps({"solvers": solvers, "images": []}))
    return folder


def test_models_are_compared_on_the_folds_that_both_have(tmp_path):
    folder = folded(tmp_path, "converged", ("odenet", "resnet6"), {"odenet": 1, "resnet6": 3}, 1)
    record = collect(folder)
    a, b = evidence.by_image(record, ["resnet6", "odenet"])
    assert [of.shape for of in a] == [of.shape for of in b] == [(3, 100), (2, 100)]
    assert [of.sum(1).tolist() for of in a] == [[400, 300, 400], [400, 300]]
    assert record["tested"].keys() == {"0", "1"}
    assert compact.unpack(record["tested"]["1"]["rows"])[:2].tolist() == [100, 101]
    (loss,) = evidence.by_image(record, ["odenet"], "loss")
    assert loss[1].sum(1) == pytest.approx([2 * 2 + 98 * 0.01, 1 * 2 + 99 * 0.01])
    for run in record["runs"]:
        if run["variant"] == "resnet6" and run.get("fold") == 1:
            run["status"] = "missing"
    a, b = evidence.by_image(record, ["resnet6", "odenet"])
    assert [of.shape for of in a] == [of.shape for of in b] == [(3, 100)]


def test_claims_of_whatever_runs_there_are(tmp_path):
    names = ("odenet", "odenet-adjoint", "resnet6", "resnet1", "odenet-adjoint-norelu")
    errors = dict.fromkeys(names, 1) | {"resnet1": 40}
    folder = folded(tmp_path, "converged", names[:4], errors)
    record = join([collect(folder), collect(folded(tmp_path, "relu-norm", names[4:], errors))])
    assert record["preset"] == "converged+relu-norm"
    rows = claims.judged({"MNIST": record}).rows
    found = {row[0]: row for row in rows}
    assert found["ResNet-1 is worse than ResNet-6"][3] == "**reproduced**"
    assert found["ODE-Net is as good as ResNet-1, of as many parameters"][3] == "**not reproduced**"
    assert found["ODE-Net is as good as the ResNet"][3] == "**reproduced**"
    assert found["ODE-Net is worse than ResNet-6"][3] == "**not reproduced**"
    assert found["RK-Net is as good as the ResNet"][3] == "not run"
    assert found["NFE grows in training (3d)"][3] == "**reproduced**"  # 20, 21, 22
    assert found["NFE grows in training (3d)"][4].startswith("+2.00 ")
    assert "second on, a look after the runs, +1.00 " in found["NFE grows in training (3d)"][4]
    assert found["NFE backward is about half of NFE forward (3c)"][3] == "**reproduced**"
    assert found["Leaving out the last ReLU costs ODE-Net"][3] == "**refuted**"
    assert {row[3] for row in claims.judged({}).rows} == {"not run"}


@pytest.mark.parametrize(
    ("claim", "words", "mean", "half", "verdict"),
    [
        ("ODE-Net is worse than ResNet-6", "equal within the margin", 0.02, 0.21,
         "equal within 0.4 points; a difference as large as claimed is not excluded"),
        ("ODE-Net is worse than ResNet-6", "equal within the margin", 0.02, 0.17, claims.NOT),
        ("ODE-Net is worse than ResNet-6", "different", -0.5, 0.2, claims.NOT),
        ("ODE-Net is worse than ResNet-6", "different", 0.5, 0.2, claims.REPRODUCED),
        ("ODE-Net is worse than ResNet-6", "not decided", 0.1, 0.5, claims.OPEN),
        ("RK-Net is as good as the ResNet", "different", 0.3, 0.25,
         "different; a difference as small as claimed is not excluded"),
        ("RK-Net is as good as the ResNet", "different", 0.3, 0.2, claims.NOT),
    ],
)  # fmt: skip
def test_no_difference_in_our_interval_is_refuted(claim, words, mean, half, verdict):
    (one,) = (c for c in claims.CLAIMS if c.text == claim)
    found = Verdict(words, Interval(mean, half, 5))
    record = {"runs": [], "flags": []}
    verdicts = {("odenet-adjoint", "resnet6"): found, ("rknet", "resnet6"): found}
    assert one.found(record, verdicts).verdict == verdict


def test_the_claimed_size_is_that_of_the_two_errors():
    for claim in claims.CLAIMS:
        errors = [float(error) for error in re.findall(r"([\d.]+)%", claim.number)]
        if len(errors) != 2:
            assert claim.size is None
            continue
        turned = claim.text.startswith("ODE-Net is as good as ResNet-1")  # said of the second
        a, b = reversed(errors) if turned else errors
        assert claim.size == pytest.approx(a - b)


def test_error_falls_where_evaluations_are_more():
    def judge(*points):
        row = lambda nfe, error: {"solver": "dopri5", "tolerance": error, "step_size": None,
                                  "nfe_forward": nfe, "logit_error": error}  # fmt: skip
        solvers = [row(nfe, error) for nfe, error in points]
        run = {"variant": "odenet-adjoint", "status": "done", "examined": {"solvers": solvers}}
        return claims.error_falls({"runs": [run]}, {}).verdict

    assert judge((14, 0.3), (20, 0.1), (32, 0.01)) == claims.REPRODUCED
    assert judge((14, 0.3), (20, 0.1), (32, 0.2)) == claims.NOT
    assert judge((14, 0.3), (32, 0.2), (32, 0.0)) == claims.REPRODUCED  # the last is the reference
    # of two tolerances with one NFE neither has more
    assert judge((14, 0.3), (20, 0.1), (20, 0.2), (32, 0.01)) == claims.REPRODUCED
    assert judge((14, 0.15), (20, 0.1), (20, 0.2), (32, 0.01)) == claims.NOT


def test_a_coarsely_trained_net_and_its_solver(tmp_path):
    record = collect(
        folded(tmp_path, "coarsely-trained", grid.COARSE, dict.fromkeys(grid.COARSE, 6))
    )
    judge = claims.learnt_its_solver("odenet-euler1")
    # As trained it errs on 6 of 100, solved by dopri5 on 1: beyond the margin.
    assert judge(record, {}).verdict == claims.REPRODUCED
    assert judge(record, {}).number.startswith("-5.00")
    assert claims.is_a_flow(record, {}) is None


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "expected STUDY ..."),
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


def test_findings(folder, tmp_path):
    fill = lambda text, **records: findings.fill(text, records, folder)
    assert fill("a {{table1}}") == "a *Not run yet.*"
    assert fill("{{runs}}") == "- nothing yet"
    assert fill("{{claims}}").count("| not run |") == len(claims.CLAIMS)
    record = collect(folder)
    assert "| ODE-Net (dopri5, direct) | 3.00 (" in fill("{{table1}}", converged=record)
    assert fill("{{depth}}", laptop=record) == "*Not run yet.*"
    assert "6 of 93 runs, on MNIST" in fill("{{runs}}", converged=record)
    assert fill("{{runs}}", laptop=record) == "- nothing yet"
    for name in findings.BLOCKS:
        assert "nan" not in fill("{{" + name + "}}", converged=record)
    page = "<!-- a -->\n\n| RMSE | x | y |\n| --- | --- | --- |\n| b |  | 2 |\n<!-- end a -->\n"
    (folder / "page.md").write_text(page)
    assert fill("{{block:page.md:a}}\n") == page.partition("\n\n")[2].partition("<!--")[0]
    for missing in ("block:page.md:b", "nothing"):
        with pytest.raises(ConfigError, match=missing):
            fill("{{" + missing + "}}")


def test_document():
    table = str(Table(("a", "b"), [("1", "<2")]))
    assert table == "| a | b |\n| --- | --- |\n| 1 | <2 |\n"
    html = page(f"# A & B\n\n`x` **y** [z](w)\n\n{table}", Path())
    assert "<title>A &amp; B</title>" in html
    assert '<code>x</code> <strong>y</strong> <a href="w">z</a>' in html
    assert "&lt;2" in html


def test_committed_pages_are_what_their_records_give():
    records = report.joined(
        [load(path) for path in sorted((DOCS / "results").glob("study-*.json"))]
    )
    for name, record in records.items():
        pictures = {
            path.stem.removeprefix(f"study-{name}-"): path.name
            for path in (DOCS / "pictures").glob(f"study-{name}-*.png")
        }
        page_of_it = DOCS / f"results-{name}.md"
        if name in (findings.MAIN, *findings.FASHION, "laptop") or page_of_it.exists():
            assert page_of_it.read_text() == report.results(record, pictures)
    template = (DOCS / "findings.template.md").read_text()
    assert (DOCS / "findings.md").read_text() == findings.fill(template, records, DOCS)
