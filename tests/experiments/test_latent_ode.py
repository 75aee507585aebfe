"""The latent ODE command on series of one's own, good and bad."""

import json

import numpy as np
import pytest

from experiments import latent_ode


def test_torch_and_a_series_of_ones_own_with_gaps(tmp_path):
    generator, path = np.random.default_rng(0), tmp_path / "series.csv"
    times = np.sort(generator.uniform(0, 60, 150))
    lines = [f"{t},{np.sin(t)},{np.cos(t) if t % 1 < 0.7 else ''}" for t in times]
    path.write_text("\n".join(["t,a,b", *lines]))
    flags = ["--framework", "torch", "--data", "csv", "--csv", str(path), "--stretch", "6"]
    assert latent_ode.main(["--smoke", *flags, "--ahead", "2", "--out", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert np.isfinite(summary["rmse"]["RNN"]["beyond"])


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("0,1\n2,2\n1,3", "time 2 is followed by 1"),
        ("0,1\n2,2\n2,3", "time 2 is there twice"),
        ("0,1", "1 observation"),
        ("0,\n1,nan\n2,", "never observed"),
        ("0,1\n1,inf\n2,3", "infinite at time 1"),
    ],
)
def test_bad_series(lines, complaint, capsys, tmp_path):
    path = tmp_path / "series.csv"
    path.write_text(f"t,a\n{lines}\n")
    assert latent_ode.main(["--data", "csv", "--csv", str(path)]) == 2
    assert complaint in capsys.readouterr().err
