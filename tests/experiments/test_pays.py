"""The comparison's protocol on made-up scores; the committed page from its records."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from experiments import pays
from experiments.flows import densities
from experiments.paying import density, fit, page, protocol, record
from experiments.paying.protocol import Data, Learnt, Task, Trivial, judge
from jax_node.cnf import discrete_log_density

DOCS = Path(__file__).parents[2] / "docs"


class Toy:
    """A learner that comes nearer to its best at every step, or fails at a high rate."""

    parameter_count = 7

    def __init__(self, least, floor):
        self.least, self.floor, self.state = least, floor, 1.0

    def train_step(self, batch, rate):
        sum(range(2000))  # costs time
        if rate > 0.009:
            raise fit.NonFiniteLossError("the loss is nan")
        self.state = max(self.floor, 0.99 * self.state) if rate else self.state


def toy(name, kind, floor):
    return Learnt(
        name, kind, lambda data, size, seed: Toy(size, floor + 0.001 * seed),
        lambda learner, data, part: learner.state,
    )  # fmt: skip


def make_task(relative=False):
    data = lambda seed: Data(None, None, None, lambda step: {})
    methods = {
        "ode": toy("a field", "Neural ODE", 0.2),
        "rnn": toy("an RNN", "baseline", 0.4),
        "mean": Trivial("the mean", lambda data, part: 1.0, lambda data: 1),
    }
    return Task("toy", "a toy", "error", 0.1, relative, 0.2, (0, 1, 2), data, methods)


SCORES = {
    "ode": {"validation": [1.0, 1.0, 1.0], "test": [0.5, 0.6, 0.7]},
    "rnn": {"validation": [2.0, 2.0, 2.0], "test": [0.9, 1.0, 1.1]},
    "mean": {"validation": [9.0, 9.0, 9.0], "test": [0.0, 0.0, 0.0]},
}


def test_the_rule_by_hand():
    task = make_task()
    found = judge(task, SCORES)
    # chosen by validation: "mean", the best on the test, is not looked at
    assert (found.words, found.ode, found.rival) == ("pays", "ode", "rnn")
    assert (found.gain.mean, found.gain.half) == pytest.approx((0.4, 0), abs=1e-12)
    worse = SCORES | {"ode": {"validation": [1.0] * 3, "test": [0.9, 1.0, 1.0]}}
    # gains 0, 0, 0.1: Student's t 4.303 times a standard error of 1/30 reaches beyond the margin
    found = judge(task, worse)
    assert found.words == "not decided"
    assert found.gain.half == pytest.approx(4.302653 / 30, rel=1e-6)
    equal = SCORES | {"ode": SCORES["rnn"]}
    assert judge(task, equal).words == "does not pay"
    assert judge(task, {"ode": SCORES["ode"]}) is None
    one = {name: {part: v[:1] for part, v in s.items()} for name, s in SCORES.items()}
    assert judge(task, one) is None


def test_relative_gains_are_of_the_rivals_error():
    task = make_task(relative=True)
    tenth = {"validation": [1.0] * 3, "test": [0.9 * s for s in SCORES["rnn"]["test"]]}
    found = judge(task, SCORES | {"ode": tenth})
    assert page.gain(task, found.gain) == "+10% (+10% to +10%)"
    better = {"validation": [1.0] * 3, "test": [0.89 * s for s in SCORES["rnn"]["test"]]}
    assert judge(task, SCORES | {"ode": better}).words == "pays"


def test_a_rate_rises_and_falls_with_the_budget():
    assert fit.share(0.0) == 0
    assert fit.share(protocol.WARM_UP) == pytest.approx(1, abs=0.01)
    assert fit.share(1.0) == fit.share(1.2) == pytest.approx(0, abs=1e-12)


def test_runs_are_made_once_and_all_methods_searched_alike(tmp_path, capsys, monkeypatch):
    task = make_task()
    monkeypatch.setattr(pays.tasks, "TASKS", (task,))
    path = tmp_path / "toy.json"
    assert pays.main(["--task", "toy", "--record", str(path)]) == 0
    assert "**pays**: a field against an RNN, gain +0.2" in capsys.readouterr().out
    runs = json.loads(path.read_text())["runs"]
    cells = len(protocol.RATES) * len(protocol.SIZES)
    for name in ("ode", "rnn"):
        mine = [run for run in runs if run["method"] == name]
        assert [run["search"] for run in mine] == [True] * cells + [False] * 3
        assert not any("test" in run for run in mine[:cells])
        # the budget, and at most the step that ends it
        assert all(r["budget"] <= r["cpu"] + 0.01 for r in mine if "stopped" not in r)
        assert {run["rate"] for run in mine[cells:]} <= {1e-3, 3e-3}  # the highest rate failed
    failed = [run for run in runs if "stopped" in run]
    assert {run["rate"] for run in failed} == {1e-2}
    before = path.read_text()
    assert pays.main(["--task", "toy", "--record", str(path)]) == 0
    assert path.read_text() == before
    # a record without its end is gone on with
    path.write_text(json.dumps({"task": "toy", "runs": runs[:-1]}))
    assert pays.main(["--task", "toy", "--record", str(path), "--minutes", "1e-9"]) == 0
    assert "not all runs made yet" in capsys.readouterr().out


def test_bad_flags(tmp_path, capsys):
    (tmp_path / "moons.json").write_text('{"task": "moons", "runs": [{}]}')
    (tmp_path / "wine.json").write_text('{"task": "wine", "runs": []}')
    for flags, complaint in (
        ([], "--task is missing; choose from moons, wine"),
        (["--task", "stars"], "--task stars is unknown"),
        (["--task", "moons", "--seconds", "0"], "--seconds is 0.0"),
        (["--task", "moons", "--record", str(tmp_path / "moons.json")], "is no record"),
        (["--task", "moons", "--record", str(tmp_path / "wine.json")], "has the runs of wine"),
    ):
        assert pays.main(flags) == 2
        assert complaint in capsys.readouterr().err


def test_a_kernel_estimate_and_all_flows_are_densities(monkeypatch):
    for name, count in (("KERNELS", 500), ("VALIDATION", 200), ("TEST", 500)):
        monkeypatch.setattr(density, name, count)
    task = density.task("moons", 0.02, 0.05, (0,))
    data = task.data(0)
    axis = np.linspace(-5, 5, 101)
    points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    grid = Data(data.train, data.validation, points, data.batch)
    area = (axis[1] - axis[0]) ** 2
    assert np.exp(density.kernel(grid, "test")).sum() * area == pytest.approx(1, abs=1e-3)
    # A spline's inverse image has all the mass too, in a network that is not near the identity.
    learner = task.methods["splines"].learner(data, 8, 0)
    weights = learner.apply(lambda model, x: discrete_log_density(model, x), x=points)
    # float32, and kinks of the density at knots: trapezoids of 0.1 are good to some thousandths
    assert np.exp(weights).sum() * area == pytest.approx(1, abs=5e-3)
    found = fit.fit(
        task.methods["splines"], data, rate=1e-2, size=8, seed=0, seconds=1.0, test=True
    )
    assert found["test"] < 1
    assert found["parameters"] == learner.parameter_count


def test_the_normal_distribution_is_scored_above_the_truth():
    task = density.task("gaussians", 0.02, 1, (0,))
    data = task.data(0)
    truth = densities.log_density("gaussians", data.test).mean()
    normal = densities.gaussian(data.train, data.test).mean()
    assert task.methods["normal"].score(data, "test") == pytest.approx(truth - normal)
    assert task.methods["normal"].parameters(data) == 5


def test_the_committed_page_is_what_its_records_give(tmp_path):
    name = "where_it_pays.md"
    shutil.copyfile(DOCS / name, tmp_path / name)
    (tmp_path / "results").symlink_to(DOCS / "results")
    (tmp_path / "pictures").mkdir()
    page.write(tmp_path / name)
    text = (DOCS / name).read_text()
    assert (tmp_path / name).read_text() == text
    made = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert made == {path.name for path in (DOCS / "pictures").glob("where_it_pays-*")}
    assert all(f"(pictures/{found})" in text for found in made)
    for found in page.load(DOCS / "results").values():
        assert all(math.isfinite(run["validation"] or 0) for run in found.runs)
        assert len({record.Job(**{k: r[k] for k in record.KEY}) for r in found.runs}) == len(
            found.runs
        )
