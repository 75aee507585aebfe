import pytest

from experiments import mnist
from experiments.classify.trust import LIMIT, warning


def rows(*values):
    return [{"epoch": i} if v is None else {"reconstruction": v} for i, v in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "warns"),
    [
        ([LIMIT / 2], False),
        ([LIMIT / 2, 2 * LIMIT], True),
        ([2 * LIMIT, 2 * LIMIT], False),  # once is enough
        ([2 * LIMIT, LIMIT / 2], False),
        ([2 * LIMIT, LIMIT / 2, 2 * LIMIT], False),
        ([None], False),  # no adjoint
        ([None, 2 * LIMIT], True),  # an epoch from before there was this number
    ],
)
def test_it_warns_once(values, warns):
    assert bool(warning(rows(*values))) == warns


@pytest.mark.slow
@pytest.mark.parametrize(("solver", "warns"), [("rk4 --step-size 1", True), ("dopri5", False)])
def test_the_adjoint_of_a_coarse_step_is_flagged_before_it_stalls(tmp_path, capsys, solver, warns):
    """Seed 0 of the runs behind docs/implicit_adams.md: flagged in epoch 3, and slow."""
    theirs = "--momentum 0 --lr-schedule plateau --no-final-relu --source embedded --devices 1"
    flags = f"--adjoint adjoint --epochs 5 {theirs} --solver {solver} --out {tmp_path / 'run'}"
    assert mnist.main(flags.split()) == 0
    out = capsys.readouterr().out
    assert ("its gradient is not that of this loss" in out) == warns
