"""One application's learner in both frameworks: made with the same weights, and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from crosscheck.check import difference
from crosscheck.weights import into_torch, of_jax, to_torch


def weights_of(learner):
    """Those of JAX, named and laid out as torch has them."""
    return to_torch(of_jax(nnx.merge(learner._graph, learner.state.weights)))


def learners(in_jax, in_torch, shape, **options):
    """Of both modules, in float64."""
    options |= {"seed": 0, "precision": "float64", "device": "cpu"}
    ours, theirs = in_jax.learner(shape, **options), in_torch.learner(shape, **options)
    into_torch(theirs.model, weights_of(ours))
    return ours, theirs


def check_gradients(modules, pair, batch, also=(), **options):
    """Of the loss in all weights, and in the arrays `also` of the batch.

    But for float64 rounding through tens of stages; no iteration, no tolerance.
    """
    (in_jax, in_torch), (ours, theirs) = modules, pair
    arrays = {name: jnp.asarray(a) for name, a in batch.items()}

    @jax.jit
    def of_jax_s(weights, some):
        loss = lambda w, some: in_jax.loss(nnx.merge(ours._graph, w), arrays | some, **options)[0]
        return jax.value_and_grad(loss, argnums=(0, 1))(weights, some)

    value, (gradient, in_batch) = of_jax_s(
        ours.state.weights, {name: arrays[name] for name in also}
    )
    tensors = {name: torch.from_numpy(a).requires_grad_(name in also) for name, a in batch.items()}
    loss, _ = in_torch.loss(theirs.model, tensors, **options)
    loss.backward()
    assert float(value) == pytest.approx(loss.item(), rel=1e-10)
    left = to_torch(of_jax(nnx.merge(ours._graph, gradient)))
    left |= {name: np.asarray(a) for name, a in in_batch.items()}
    right = {name: p.grad.numpy() for name, p in theirs.model.named_parameters()}
    right |= {name: tensors[name].grad.numpy() for name in also}
    assert difference(left, right).error < 1e-10
    return left
