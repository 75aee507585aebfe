"""Faults planted in one framework: each is caught, and the report names the right place."""

import inspect
import re
import types

import jax
import pytest

import jax_node.adjoint
import jax_node.blocks
import jax_node.conv
import jax_node.normalise
import jax_node.solve
import torch_node.adjoint
import torch_node.solve
import torch_node.step_size
from crosscheck import __main__ as command
from crosscheck import (
    fields,
    gradient_checks,
    gradients,
    jax_side,
    layers,
    suite,
    trained,
    trajectories,
)


def mutated(module, old, new):
    """The module with one piece of its source replaced."""
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{old!r} is not in {module.__name__} once: adapt the test"
    copy = types.ModuleType(module.__name__)
    exec(compile(source.replace(old, new), module.__file__, "exec"), copy.__dict__)
    return copy


def mutated_adjoint(old, new):
    """That of JAX, with the types that its callers know."""
    copy = mutated(jax_node.adjoint, old, new)
    copy.Augmented, copy.Backward = jax_node.adjoint.Augmented, jax_node.adjoint.Backward
    return copy


@pytest.fixture(autouse=True)
def _no_compiled_leftovers():
    _forget_compiled()
    yield
    _forget_compiled()


def _forget_compiled():
    jax_side._compiled.cache_clear()
    jax.clear_caches()


def failing(checks):
    return [check for check in checks if not check.passed]


def layer_checks():
    return layers.layer_checks("odenet", None, trained.batch(0, 1)["images"])


def failing_layers(checks):
    return {check.case.rpartition(", ")[2]: check for check in failing(checks)}


def euler_gradients():
    """The square of gradients with Euler's method, which has all three adjoints."""
    adjoints = ("direct", "adjoint", "handwritten")
    square = gradients.square(fields.mlp(), "euler", 0.125, adjoints=adjoints)
    return failing(gradient_checks.checks(square))


def sides(checks):
    return {frozenset((check.left, check.right)) for check in checks}


def test_transposed_kernel(monkeypatch):
    convolve = jax_node.conv.same3x3
    transposed = lambda x, kernel: convolve(x, kernel.swapaxes(0, 1))
    monkeypatch.setattr(jax_node.conv, "same3x3", transposed)
    found = failing_layers(layer_checks())
    assert set(found) == {"field.conv1", "field.conv2", "field"}
    check = found["field.conv1"]
    assert check.worst.tensor == "field.conv1"
    assert len(check.worst.index) == 4
    assert f"jax has {check.worst.left:.17g}, torch has {check.worst.right:.17g}" in (
        check.describe()
    )


def test_dropped_time_channel(monkeypatch):
    fault = mutated(jax_node.blocks, "(t * time + ", "(0 * time + ")
    monkeypatch.setattr(jax_node.blocks.TimeConv, "__call__", fault.TimeConv.__call__)
    found = failing_layers(layer_checks())
    assert set(found) == {"field.conv1", "field.conv2", "field"}
    assert found["field.conv1"].value > 1e-3


def test_dropped_time_channel_in_the_field_alone(monkeypatch):
    fault = mutated(jax_node.blocks, "(t * time + ", "(0 * time + ")
    monkeypatch.setattr(jax_node.blocks.TimeConv, "__call__", fault.TimeConv.__call__)
    params = trained.model_weights(0)
    conv = fields.conv(*layers.features("odenet", params, trained.batch(0, 1)["images"]))
    found = failing(layers.field_checks(conv))
    # numpy, the third opinion, says which side is wrong.
    assert sides(found) == {frozenset(("jax", "torch")), frozenset(("jax", "numpy"))}
    assert all(check.worst.tensor in ("t=0.3", "t=1") for check in found)


def test_epsilon_of_group_normalisation(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(jax_node.normalise.GroupNorm, "epsilon", 1e-6)
    found = suite.Findings(settings={"quick": True})
    found.checks = layer_checks()
    norms = {"downsample.norm1", "downsample.norm2", "head.norm"}
    norms |= {f"field.norm{i}" for i in (1, 2, 3)}
    assert set(failing_layers(found.checks)) == norms | {"downsample", "field", "head"}

    # The command names layer, index and both values.
    monkeypatch.setattr(suite, "run", lambda quick, say: found)
    assert command.main(["--quick", "--out", str(tmp_path)]) == 1
    place = r"downsample\.norm1\[0, \d+, \d+, \d+\]: jax has -?\d.*, torch has -?\d"
    assert re.search(
        rf"FAIL layers: odenet, float64, downsample\.norm1: .* at {place}",
        (capsys.readouterr().out),
    )


def test_one_step_too_many(monkeypatch):
    count = torch_node.step_size.step_count
    monkeypatch.setattr(torch_node.step_size, "step_count", lambda *a: count(*a) + 1)
    pair = trajectories.solve_both(fields.mlp(), "midpoint")
    states, steps = failing(trajectories.checks(pair))
    assert states.worst.tensor == "ys"
    assert (steps.worst.tensor, steps.worst.left, steps.worst.right) == ("accepted", 20, 40)


def test_wrong_sign_in_the_handwritten_adjoint(monkeypatch):
    fault = mutated(torch_node.adjoint, "grad_outputs=-a,", "grad_outputs=a,")
    monkeypatch.setattr(torch_node.solve, "by_hand", fault)
    found = euler_gradients()
    assert found
    assert all("torch handwritten" in pair for pair in sides(found))


def test_wrong_sign_in_the_jax_adjoint(monkeypatch):
    old = "da, dp = jax.tree.map(jnp.negative, pull(state.a))"
    fault = mutated_adjoint(old, "da, dp = pull(state.a)")
    monkeypatch.setattr(jax_node.solve, "solve_by_adjoint", fault.solve_by_adjoint)
    found = euler_gradients()
    assert sides(found) == {
        frozenset(("jax adjoint", "torch adjoint")),
        frozenset(("jax adjoint", "torch handwritten")),
    }


@pytest.mark.parametrize("side", ["jax", "torch"])
def test_missing_gradient_of_the_times(monkeypatch, side):
    if side == "jax":
        fault = mutated_adjoint("if times_wanted is not None:", "if False:")
        monkeypatch.setattr(jax_node.solve, "solve_by_adjoint", fault.solve_by_adjoint)
    else:
        fault = mutated(torch_node.adjoint, "dL_dts[i] = dL_dt", "pass")
        monkeypatch.setattr(torch_node.solve, "by_hand", fault)
    (check,) = euler_gradients()
    pair = {
        "jax": ("jax adjoint", "torch adjoint"),
        "torch": ("torch adjoint", "torch handwritten"),
    }
    assert (check.left, check.right) == pair[side]
    assert check.worst.tensor.startswith("ts")
    assert 0 in ((check.worst.left, check.worst.right))
