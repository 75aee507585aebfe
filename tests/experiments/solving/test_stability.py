"""The stability study: what it calls stable, its search, and what one coarse step is."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torchdiffeq

from experiments import solvers
from experiments.solving import cases, stability
from jax_node.solve import solve


@pytest.mark.parametrize(
    ("limit", "tried"),
    [(0.5, [0.1, 0.3, 1.0]), (99, [0.1, 0.3, 1.0, 3.0, 10.0]), (0.02, [0.01, 0.03, 0.1])],
)
def test_search_stops_either_side_of_the_limit(limit, tried):
    runs = stability.search(lambda rate: {"lr": rate, "trained": rate < limit})
    assert [run["lr"] for run in runs] == tried


def test_no_step_size_means_one_rk4_step():
    """torchdiffeq's implicit_adams over [0, 1] without a step size, and `ONE_STEP` of the study."""
    y0, calls = np.array([0.3, -1.2]), 0

    def field(t, y):
        nonlocal calls
        calls += 1
        return torch.sin(3 * y) * torch.cos(t)

    theirs = torchdiffeq.odeint(
        field,
        torch.tensor(y0),
        torch.tensor([0.0, 1.0], dtype=torch.float64),
        method="implicit_adams",
    )
    case = cases.ONE_STEP
    ours = solve(
        lambda t, y, args: jnp.sin(3 * y) * jnp.cos(t),
        jnp.asarray(y0),
        jnp.array([0.0, 1.0]),
        solver=case.solver,
        step_size=case.step_size,
    )
    assert calls == ours.nfe == 4
    np.testing.assert_allclose(ours.ys[-1], theirs[-1].numpy(), rtol=1e-14)


@pytest.mark.slow
def test_the_command_in_its_smoke_form(tmp_path):
    assert solvers.main(["stability", "--smoke", "--out", str(tmp_path)]) == 0
    cells = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert {cell["lr"] for cell in cells} == {0.1, 0.03, 0.01}  # three steps train nothing
    look = next(cell for cell in cells if cell["lr"] == 0.1)["looks"][0]
    assert look["lipschitz"] > 0
    assert 0 < look["gradient_cosine"] <= 1 + 1e-6
    assert "one rk4 step" in (tmp_path / "summary.md").read_text()
    assert (tmp_path / "stability.png").read_bytes()[1:4] == b"PNG"
