"""The example of `experiments.latent.forecast.fit`, run on a CSV file, and what it refuses."""

import inspect
import re
import textwrap

import numpy as np
import pytest
import torch

from experiments.harness.errors import DataError, RunError
from experiments.latent import forecast, predictions
from experiments.series.mauna_loa import mauna_loa

FEW = {"stretch": 1.5, "ahead": 1.0, "steps": 3, "observations": 12}


@pytest.fixture(scope="module")
def series():
    whole = mauna_loa()
    part = whole.times >= whole.times[-1] - 12
    return type(whole)(whole.times[part], whole.values[part], whole.names)


def test_the_example_of_the_docstring_runs(series, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = ["time,co2", *(f"{t},{'' if np.isnan(v) else v}" for t, v in
                           zip(series.times, series.values[:, 0], strict=True))]  # fmt: skip
    (tmp_path / "series.csv").write_text("\n".join(lines))
    indented = re.search(r"\n\n((?:        .*\n)+)", inspect.getsource(forecast.fit))
    example = textwrap.dedent(indented[1])
    assert len(example.splitlines()) == 5
    names = {}
    exec(example.replace("ahead=1.0", "ahead=1.0, steps=3, observations=12"), names)
    assert "'in the band'" in capsys.readouterr().out
    # what was saved forecasts the same
    again = names["model"].forecast([2002.1, 2002.5])
    assert all(np.array_equal(a, b) for a, b in zip(again, again, strict=True))
    mean, low, high = again
    assert mean == pytest.approx(names["mean"], rel=1e-6)
    assert (low < mean).all()
    assert (mean < high).all()
    assert mean.shape == (2, 1)
    # in the data's units, about its level: a window's mean and not 0
    assert abs(mean - 370).max() < 30
    with pytest.raises(RunError, match="is there already"):
        names["model"].save("model")


def test_what_is_refused(series, tmp_path):
    with pytest.raises(ValueError, match="`steps` is 0"):
        forecast.fit(series, **FEW | {"steps": 0})
    for name, value in (("steps", 2.5), ("latent", "6"), ("seed", -1), ("rate", "1e-2")):
        with pytest.raises(ValueError, match=f"`{name}` is {value!r}; a .*number"):
            forecast.fit(series, **FEW | {name: value})
    with pytest.raises(ValueError, match="`stretch` is -1"):
        forecast.fit(series, **FEW | {"stretch": -1})
    with pytest.raises(DataError, match="no window to learn from"):
        forecast.fit(series, **FEW | {"stretch": 100.0})
    with pytest.raises(DataError, match=r"there.csv cannot be read"):
        forecast.fit(tmp_path / "there.csv", **FEW)
    with pytest.raises(RunError, match="holds no model"):
        forecast.load(tmp_path)
    numpys = {"steps": np.int64(3), "ahead": np.float32(1.0)}
    model = forecast.fit(series, **FEW | numpys, framework="torch")  # compiles nothing
    model.save(tmp_path / "numpys")  # JSON knows no number of numpy's
    assert forecast.load(tmp_path / "numpys").options == model.options
    end = series.times[-1]
    assert model.last.times[-1] == end
    assert len(model.last.times) == FEW["observations"]
    for times in ([end], [end + 1, end + 0.5], [], [np.nan]):
        with pytest.raises(DataError, match="`times` must increase"):
            model.forecast(times)
    with pytest.raises(DataError, match="is more than 1,000 times `stretch` after"):
        model.forecast([end + 1501.0])
    assert set(model.validation) == {"latent ODE", "RNN", "mean", "in the band"}


def test_what_else_is_asked_moves_no_forecast(series):
    model = forecast.fit(series, **FEW, framework="torch")
    with torch.no_grad():  # a field that bends, as trained ones do
        for weight in model.trained.learner.model.ode_rnn.field.parameters():
            weight *= 4
    end = series.times[-1]
    alone = model.forecast([end + 1.0]).mean[-1]
    # Steps of rk4 are 0.1 at most: some of 0.1^5 each.
    among = model.forecast(np.linspace(end + 0.01, end + 1.0, 30)).mean[-1]
    assert alone == pytest.approx(among, abs=1e-3 * model.trained.problem.deviation.item())


def test_gaps_are_short_and_what_was_asked_is_kept():
    ask = np.array([[0.0, 0.1, 1.3], [0.0, 0.5, 0.6], [0.0, 0.0, -0.7]])
    times, asked = predictions.with_short_gaps(ask)
    assert (times[:, asked] == ask).all()
    gaps = np.diff(times, axis=1, prepend=0)
    assert np.abs(gaps).max() <= predictions.GAP * (1 + 1e-12)
    assert times.shape[1] == 1 + 3 + 6
