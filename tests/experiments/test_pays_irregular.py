"""Forecasts at irregular times: what a free-running RNN sees, strides, trivial predictors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.latent.windows import Observed, Questions, pack, problem
from experiments.paying import attention, irregular, recurrent
from experiments.paying.attention import Transformer
from experiments.paying.irregular import Held
from experiments.paying.learners import learner
from experiments.paying.protocol import Data
from experiments.paying.recurrent import Recurrent
from jax_node.latent import LatentODE

COUNT, CHANNELS = 6, 2
EPS = 20 * float(np.finfo(np.float32).eps)  # of sums of some ten numbers below 1


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(0)
    times = np.sort(generator.uniform(0, 3, (4, COUNT)), axis=1)
    values = generator.normal(size=(4, COUNT, CHANNELS))
    return times, values, np.ones_like(values)


@pytest.mark.parametrize("decay", [False, True])
def test_a_free_running_network_reads_itself_and_nothing_else(rows, decay):
    times, values, mask = (jnp.asarray(a, jnp.float32) for a in rows)
    model = Recurrent(CHANNELS, 8, decay, rngs=nnx.Rngs(0))
    free = jnp.zeros_like(times).at[:, 3:].set(1.0)
    found = model(times, values, mask, free)
    # what it may not read may be anything
    assert (model(times, values.at[:, 3:].set(9.0), mask, free) == found).all()
    assert not (model(times, values.at[:, 2].set(9.0), mask, free) == found).all()
    # feeding it its own expectations as observations is the same
    own = values.at[:, 3:].set(found[:, 2:])
    same = model(times, own, mask, jnp.zeros_like(free))
    assert same == pytest.approx(found, abs=EPS)
    # and so is the forecast from the first three
    later = recurrent.forecast(model, times[:, :3], values[:, :3], mask[:, :3], times[:, 3:])
    assert later == pytest.approx(found[:, 2:], abs=EPS)


def test_padding_in_front_changes_nothing(rows):
    times, values, mask = (jnp.asarray(a, jnp.float32) for a in rows)
    model = Recurrent(CHANNELS, 8, True, rngs=nnx.Rngs(0))
    ask = times[:, -1:] + jnp.array([0.5, 1.0], jnp.float32)
    front = lambda a: jnp.pad(a, [(0, 0), (2, 0), *[(0, 0)] * (a.ndim - 2)])
    plain = recurrent.forecast(model, times, values, mask, ask)
    padded = recurrent.forecast(model, front(times), front(values), front(mask), ask)
    assert padded == pytest.approx(plain, abs=EPS)


def test_a_state_decays_to_the_bias_in_a_long_gap(rows):
    times, values, mask = (jnp.asarray(a, jnp.float32) for a in rows)
    model = Recurrent(CHANNELS, 8, True, rngs=nnx.Rngs(0))
    model.rate.kernel[...] = jnp.ones_like(model.rate.kernel[...])
    found = recurrent.forecast(model, times, values, mask, times[:, -1:] + 1e4)
    assert found[:, 0] == pytest.approx(np.tile(model.leave.bias[...], (4, 1)), abs=1e-6)


def test_a_transformer_reads_what_was_observed_and_answers_each_question_by_itself(rows):
    times, values, mask = (jnp.asarray(a, jnp.float32) for a in rows)
    model = Transformer(CHANNELS, 8, 3.0, rngs=nnx.Rngs(0))
    free = jnp.zeros_like(times).at[:, 3:].set(1.0)
    found = model(times, values, mask, free)
    assert (model(times, values.at[:, 3:].set(9.0), mask, free) == found).all()
    assert not (model(times, values.at[:, 2].set(9.0), mask, free) == found).all()
    seen = times[:, :3], values[:, :3], mask[:, :3]
    later = attention.forecast(model, *seen, times[:, 3:])
    assert later == pytest.approx(found[:, 3:], abs=EPS)
    assert attention.forecast(model, *seen, times[:, 4:5]) == pytest.approx(later[:, 1:2], abs=EPS)
    # the error is that of the free entries
    batch = {"times": times, "values": values, "mask": mask, "free": free}
    error = float(((later - values[:, 3:]) ** 2).mean())
    assert attention.loss(model, batch) == pytest.approx(error, rel=EPS)
    # a masked entry, as padding is, might not be there
    front = lambda a: jnp.pad(a, [(0, 0), (2, 0), *[(0, 0)] * (a.ndim - 2)])
    padded = attention.forecast(model, *map(front, seen), times[:, 3:])
    assert padded == pytest.approx(later, abs=EPS)


def made(times, values, ask, truth):
    """Data of windows that are validation and test at once, in the data's own units."""
    part = lambda t, v: Observed(t, v, np.ones_like(v))
    beyond = part(ask, truth)
    test = Questions(part(times, values), beyond, beyond, beyond, noisy=False)
    whole = problem(
        "made", ("x", "y"), pack(list(zip(times, values, strict=True))), test, 1.0, "", 1.0
    )
    scaled = Held(whole, whole.test)
    return Data(whole.train, scaled, scaled, lambda step: {})


def test_chains_reach_every_asked_time_in_order(rows):
    times, values, _ = rows
    gap = np.diff(times).mean()
    ask = times[:, -1:] + gap / 4 * np.arange(1, 9)
    data = made(times, values, ask, np.zeros((4, 8, 2)))
    assert irregular.stride(data.train, ask) == 4
    asked, deviation, mean = [], data.test.problem.deviation, data.test.problem.mean

    class Clock:
        def apply(self, method, ask, **observed):
            asked.append(ask)
            return np.repeat(ask[:, :, None], 2, axis=2)

    score = irregular.scored(None, strides=True)(Clock(), data, "test")
    error = ask[:, :, None] * deviation + mean  # the truth is 0
    assert score == pytest.approx(np.sqrt((error**2).mean()))
    assert [a.shape[1] for a in asked] == [2] * 4
    assert np.diff(asked[0]) == pytest.approx(np.full((4, 1), gap))


def test_a_latent_ode_crosses_the_window_in_short_steps(rows):
    """In one step of rk4 from 0 to the first time asked for it would land elsewhere."""
    times, values, mask = rows
    ask = times[:, -1:] + np.array([[0.1, 0.2]])
    model = LatentODE(CHANNELS, 2, 8, 8, False, rngs=nnx.Rngs(0))
    for layer in model.field.layers:
        layer.kernel[...] *= 3.0
    empty = made(times, values, ask, np.zeros((4, 2, CHANNELS))).test
    seen = jax.tree.map(jnp.asarray, empty.test.observed.arrays())
    mean, _ = model.encoder(**seen)
    exact = model.decode(mean, jnp.asarray(ask), solver="rk4", substeps=500)
    once = model.decode(mean, jnp.asarray(ask), solver="rk4")
    truth = exact * empty.problem.deviation + empty.problem.mean
    trained = learner(model, lambda model, batch: jnp.zeros(()))
    score = irregular.carried(trained, made(times, values, ask, np.asarray(truth)), "test")
    assert score < 1e-4 * empty.problem.deviation.max()
    assert abs(once - exact).max() > 1e-2


def test_trivial_predictors_by_hand(rows):
    times, values, _ = rows
    ask = times[:, -1:] + np.array([[1.0, 2.0]])
    truth = np.repeat(values[:, -1:], 2, axis=1)
    data = made(times, values, ask, truth)
    last, mean = (irregular.constant(f)(data, "test") for f in (irregular.last, irregular.mean))
    assert last == pytest.approx(0, abs=1e-12)
    expected = np.sqrt(((values.mean(1) - values[:, -1]) ** 2).mean())
    assert mean == pytest.approx(expected)
    masked = np.array([[[1.0], [2.0], [0.0]]])
    assert irregular.last(masked, np.array([[[1.0], [1.0], [0.0]]])) == 2.0
    assert irregular.mean(masked, np.array([[[1.0], [1.0], [0.0]]])) == 1.5


def test_the_data_of_a_seed(rows):
    data = irregular.spiral_data(10, 20)(0)
    batch = data.batch(3)
    count = batch["times"].shape[1]
    assert count == 10
    # free from somewhere on, and never before a quarter has been read
    assert (np.diff(batch["free"]) >= 0).all()
    assert not batch["free"][:, : count // 4].any()
    assert np.array_equal(batch["times"], data.batch(3)["times"])
    starts = [part.test.observed.times[:, 0] for part in (data.validation, data.test)]
    assert not np.isin(*starts).all()
    assert irregular.TASKS[-1].methods["periodic"].score(irregular.co2(0), "test") < 2
