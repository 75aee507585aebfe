"""Why was training with implicit Adams unstable? Trains ODE-Net with one method after another.

Every few steps the field and the gradient are looked at on the same batch: how steep the field is
(its Lipschitz constant, by power iteration), whether the corrector would converge (step size times
that constant), and how far the gradient that training follows is from the true one (dopri5 at
1e-6). There is no command yet that runs all cases: call `train` with each of `CASES`.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.data import Dataset
from experiments.resolve import learner_options
from jax_node import models, probe
from jax_node.solve import SolveError, solve
from jax_node.train import Learner, NonFiniteLossError


@dataclasses.dataclass(frozen=True)
class Case:
    """A way to train: the solver in both directions, and the optimiser."""

    name: str
    solver: str
    step_size: float | None = None
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    adjoint: str = "adjoint"


# torchdiffeq's implicit_adams without a step size takes one step over [0, 1], and since it has no
# history yet, that is one step of its Runge-Kutta start-up: rk4 with step 1.
CASES = (
    Case("dopri5 1e-3, SGD", "dopri5"),
    Case("implicit Adams as torchdiffeq has it (one rk4 step), SGD", "rk4", 1.0),
    Case("the same, Adam", "rk4", 1.0, "adam", 1e-3, 0.0),
    Case("the same, SGD, learning rate 0.01", "rk4", 1.0, lr=0.01),
    Case("the same, SGD, no momentum", "rk4", 1.0, momentum=0.0),
    Case("the same, SGD, gradient of the discretisation", "rk4", 1.0, adjoint="direct"),
    Case("implicit Adams, step 0.25, SGD", "implicit_adams", 0.25),
    Case("implicit Adams, step 0.1, SGD", "implicit_adams", 0.1),
    Case("adaptive Adams 1e-3, SGD", "adams"),
)


def train(
    case: Case, dataset: Dataset, *, steps: int, every: int, batch_size: int
) -> dict[str, Any]:
    """Train by `case` for `steps` steps; returns its rows, one each `every` steps, and its end."""
    options = learner_options(["--solver", case.solver, "--max-steps", "256", "--device", "cpu"])
    options |= {name: getattr(case, name) for name in ("adjoint", "step_size", "momentum")}
    learner = Learner(**options | {"optimizer": case.optimizer})
    measure = Measurement(case, dataset, batch_size)
    rows, losses, nfe = [], [], []
    batches = batch_stream(dataset, batch_size)
    end = "trained"
    for step in range(steps):
        if step % every == 0:
            rows.append({"step": step, **measure(learner.state.weights)})
        try:
            images, labels = next(batches)
            metrics = learner.train_step(images, labels, case.lr)
        except (SolveError, NonFiniteLossError) as error:
            end = f"stopped at step {step}: {error}"
            break
        losses.append(metrics["loss"])
        nfe.append((metrics["nfe_forward"], metrics["nfe_backward"]))
    return {
        "case": dataclasses.asdict(case),
        "rows": rows,
        "losses": losses,
        "nfe": np.mean(nfe, axis=0).tolist() if nfe else None,
        "end": end,
    }


def batch_stream(dataset: Dataset, batch_size: int):
    """Batches for ever, the same for every case."""
    epoch = 0
    while True:
        yield from dataset.epoch_batches(0, epoch, batch_size, False)
        epoch += 1


class Measurement:
    """Looks at the field and the gradient of some weights, on one batch."""

    def __init__(self, case: Case, dataset: Dataset, batch_size: int):
        images, labels = next(iter(dataset.epoch_batches(1, 0, batch_size, False)))
        self.images = models.as_images(jnp.asarray(images), jnp.float32)
        self.labels = jnp.asarray(labels)
        ours = functools.partial(
            solve, solver=case.solver, adjoint=case.adjoint, step_size=case.step_size, max_steps=256
        )
        tight = functools.partial(
            solve, solver="dopri5", adjoint="direct", rtol=1e-6, atol=1e-6, max_steps=256
        )
        self.look = jax.jit(functools.partial(self._look, ours, tight))

    def __call__(self, weights: nnx.State) -> dict[str, float]:
        """Measure; a value that cannot be had (a solve that fails) is not a number."""
        return {name: float(value) for name, value in self.look(weights).items()}

    def _look(self, ours, tight, weights):
        def loss(weights, solver):
            output = self._model(solver, weights)(self.images)
            losses = optax.softmax_cross_entropy_with_integer_labels(output.logits, self.labels)
            return losses.mean(), output.solution

        gradient, solution = jax.grad(loss, has_aux=True)(weights, ours)
        reference, exact = jax.grad(loss, has_aux=True)(weights, tight)
        error, cosine = probe.gradient_error(gradient, reference)
        model = self._model(ours, weights)
        y0 = exact.ys[0]
        steepness = [
            probe.lipschitz(functools.partial(model.field, jnp.float32(t)), y, jax.random.key(0))
            for t, y in ((0.0, y0), (1.0, exact.ys[-1]))
        ]
        difference = jnp.linalg.norm(solution.ys[-1] - exact.ys[-1])
        return {
            "gradient_error": error,
            "gradient_cosine": cosine,
            "state_error": difference / jnp.linalg.norm(exact.ys[-1] - y0),
            "lipschitz": jnp.maximum(*steepness),
            "nonconverged": solution.nonconverged,
            "exact_steps": exact.accepted,
        }

    def _model(self, solver, weights) -> models.ODENet:
        graph, _ = nnx.split(models.build("odenet", solver=solver), nnx.Param)
        model = nnx.merge(graph, weights)
        assert isinstance(model, models.ODENet)
        return model
