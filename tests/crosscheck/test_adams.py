"""Our fixed-step Adams methods are torchdiffeq's; the full run has the MNIST field too."""

import pytest

from crosscheck import fields, jax_side, torch_side
from crosscheck.check import difference
from crosscheck.gradients import without_times
from crosscheck.problem import cotangent
from crosscheck.trajectories import control, time_scale

slow = pytest.mark.slow
FIELDS = (
    fields.lotka_volterra,
    pytest.param(fields.linear, marks=slow),
    pytest.param(fields.spiral, marks=slow),
    pytest.param(fields.mlp, marks=slow),
)


@pytest.mark.parametrize("solver", ["explicit_adams", "implicit_adams"])
@pytest.mark.parametrize("field", FIELDS)
def test_trajectories_and_direct_gradients_are_torchdiffeqs(field, solver):
    problem = field()
    ts = problem.ts * time_scale(solver)
    loss = cotangent(problem, ts)
    ours, theirs = (
        side.run(problem, solver, "direct", control(solver), ts=ts, cotangent=loss)
        for side in (jax_side, torch_side)
    )
    assert ours.accepted == theirs.accepted == 20
    assert difference({"ys": ours.ys}, {"ys": theirs.ys}).error < 1e-10
    gradients = (without_times(run.gradients) for run in (ours, theirs))
    assert difference(*gradients).error < 1e-9
