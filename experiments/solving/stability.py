"""Why was training with implicit Adams unstable? Train ODE-Net by one method after another.

For each method the learning rate rises until training fails. On the way the field and the gradient
are looked at, always on the same images: how steep the field is (its Lipschitz constant L, by power
iteration), whether the corrector converges, and how far the gradient that training follows is from
the true one (of dopri5 at `TIGHT`).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array

from experiments.images.dataset import Dataset
from experiments.solving.cases import Case, batch_stream, failed, gradient, model
from jax_node import models
from jax_node.adams import Adams, AdamsController, ImplicitAdams, statistics
from jax_node.gradient_check import gradient_error, lipschitz_constant
from jax_node.learner import State, full_precision, updated
from jax_node.solve import solve
from jax_node.step_size import FixedStep

RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
FIRST_RATE = 0.1  # that of the paper's code
TIGHT = 1e-5
MAX_STEPS = 64
LAST = 20  # training steps over which the loss is averaged to judge a run
TRAINED = 1.0  # a mean loss below this; guessing has log(10) = 2.3
STEPS, ITERATIONS = (0.25, 0.1, 0.05), (4, 16)  # at which the corrector's convergence is counted


class Trainer:
    """Trains by one case; compiled once for all seeds and learning rates."""

    def __init__(self, case: Case, batch_size: int, look: Look):
        self.case, self.batch_size, self.look = case, batch_size, look
        self.solve = functools.partial(
            solve, solver=case.solver, adjoint=case.adjoint, step_size=case.step_size,
            max_steps=MAX_STEPS,
        )  # fmt: skip
        self.optimizer = optax.chain(
            optax.clip_by_global_norm(case.clip) if case.clip else optax.identity(),
            optax.scale_by_adam() if case.adam else optax.trace(case.momentum),
        )
        self.gradient = jax.jit(functools.partial(gradient, case, self.solve))
        self._updated = jax.jit(functools.partial(updated, self.optimizer))

    def __call__(
        self, dataset: Dataset, lr: float, seed: int, steps: int, every: int
    ) -> dict[str, Any]:
        """Train for `steps` steps; returns losses, NFE, the end, and looks.

        At `FIRST_RATE` there is a look every `every` steps, else one at the end, which is where the
        run failed if it did.
        """
        weights = nnx.state(model(self.case, self.solve, seed), nnx.Param)
        state = State(weights, self.optimizer.init(weights), jnp.zeros((), jnp.int32))
        rate = jnp.float32(lr / 100 if self.case.adam else lr)
        looks: list[dict[str, float | None]] = []
        losses: list[float] = []
        nfe: list[tuple[float, float]] = []
        failure = ""
        batches = batch_stream(dataset, seed, self.batch_size)
        while len(losses) < steps:
            if lr == FIRST_RATE and len(losses) % every == 0:
                looks.append({"step": len(losses), **self.look(self, state.weights)})
            images, labels = next(batches)
            result, slope = self.gradient(
                state.weights, models.as_images(jnp.asarray(images), jnp.float32), labels
            )
            failure = failed(result, slope)
            if failure:
                break
            state = self._updated(state, slope, rate)
            losses.append(round(float(result.loss), 4))
            nfe.append((float(result.solution.nfe), float(result.backward.nfe)))
        if not looks or looks[-1]["step"] != len(losses):
            looks.append({"step": len(losses), **self.look(self, state.weights)})
        end = float(np.mean(losses[-LAST:])) if losses else None
        return {
            "case": dataclasses.asdict(self.case),
            "lr": lr,
            "seed": seed,
            "looks": looks,
            "losses": losses,
            "nfe": np.mean(nfe, axis=0).tolist() if nfe else None,
            "failure": failure,
            "loss": end,
            "trained": not failure and end is not None and end < TRAINED,
        }


def search(run: Callable[[float], dict[str, Any]]) -> list[dict[str, Any]]:
    """Raise the rate from `FIRST_RATE` until training fails; lower it while it has not trained.

    Returns the runs in the order of their rates.
    """
    first = RATES.index(FIRST_RATE)
    runs = {FIRST_RATE: run(FIRST_RATE)}
    trained = runs[FIRST_RATE]["trained"]
    for rate in RATES[first + 1 :] if trained else reversed(RATES[:first]):
        runs[rate] = run(rate)
        if runs[rate]["trained"] != trained:
            break
    return [runs[rate] for rate in sorted(runs)]


class Look:
    """Looks at the field and the gradient of some weights, on one batch that never changes."""

    def __init__(self, dataset: Dataset, batch_size: int):
        images, labels = next(batch_stream(dataset, 1, batch_size))
        self.images = models.as_images(jnp.asarray(images), jnp.float32)
        self.labels = jnp.asarray(labels)
        tight = functools.partial(
            solve, solver="dopri5", adjoint="direct", rtol=TIGHT, atol=TIGHT, max_steps=256
        )
        # Cases of the same model share these.
        self._true = jax.jit(lambda like, *batch: gradient(like, tight, *batch), static_argnums=0)
        self._field = jax.jit(look_at_field, static_argnums=0)

    def __call__(self, trainer: Trainer, weights: nnx.State) -> dict[str, float | None]:
        """Measure; None where a solve fails."""
        case = trainer.case
        like = Case("", "", "", final_relu=case.final_relu, downsampling=case.downsampling)
        result, true = self._true(like, weights, self.images, self.labels)
        exact = result.solution.ys
        found, slope = trainer.gradient(weights, self.images, self.labels)
        error, cosine = gradient_error(slope, true)
        way = jnp.linalg.norm(exact[-1] - exact[0])
        measured = {
            "gradient_error": error,
            "gradient_cosine": cosine,
            "gradient_norm": optax.tree.norm(slope),
            "true_norm": optax.tree.norm(true),
            "state_error": jnp.linalg.norm(found.solution.ys[-1] - exact[-1]) / way,
            "steps": found.solution.accepted,
            **self._field(like, weights, exact),
        }
        finite = {k: float(f"{float(v):.4g}") for k, v in measured.items()}
        return {k: v if math.isfinite(v) else None for k, v in finite.items()}


def look_at_field(like: Case, weights: nnx.State, exact: Array) -> dict[str, Any]:
    """How steep the field is at both ends, and what Adams methods make of it."""
    with full_precision():
        graph, _ = nnx.split(model(like, solve, 0), nnx.Param)
        field = nnx.merge(graph, weights).field
        lipschitz = jax.lax.map(
            lambda at: lipschitz_constant(
                functools.partial(field, at[0]), at[1], jax.random.key(0)
            ),
            (jnp.array([0, 1], jnp.float32), exact),
        )
        run = functools.partial(_solve_by_adams, field, exact[0])
        adaptive = statistics(run(Adams(), AdamsController(1e-3, 1e-3), None))
        stuck: dict[str, Array] = {}
        for n in ITERATIONS:
            corrector = ImplicitAdams(max_iters=n, rtol=1e-3, atol=1e-3)
            count = lambda h, corrector=corrector: statistics(run(corrector, FixedStep(), h))
            counts = jax.lax.map(count, jnp.array(STEPS, jnp.float32))["non_converged"]
            stuck |= {f"nonconverged_{h:g}_{n}": c for h, c in zip(STEPS, counts, strict=True)}
    return {
        "lipschitz": jnp.max(lipschitz),
        "adams_nfe": adaptive["nfe"],
        "adams_order": adaptive["highest_order"],
        "adams_contraction": adaptive["contraction"],
        **stuck,
    }


def _solve_by_adams(field, y0, solver, controller, step) -> diffrax.Solution:
    return diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: field(t, y)),
        solver,
        jnp.float32(0),
        jnp.float32(1),
        step,
        y0,
        saveat=diffrax.SaveAt(t1=True, solver_state=True, controller_state=True),
        stepsize_controller=controller,
        max_steps=256,
        throw=False,
    )
