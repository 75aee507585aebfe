"""No accelerator here: at least the programs can be lowered for them."""

import jax
import jax.numpy as jnp
import pytest

from jax_node.classify import learner as make

BATCH = {"images": jnp.zeros((2, 28, 28, 1), "uint8"), "labels": jnp.zeros(2, jnp.int32)}


@pytest.mark.parametrize(
    ("model", "solver", "adjoint", "precision"),
    [
        ("resnet1", None, None, "float32"),
        ("odenet", "dopri5", "direct", "bfloat16"),
        ("odenet", "dopri5", "adjoint", "float32"),
        ("odenet", "adams", "checkpoint", "float32"),
    ],
)
def test_a_training_step_is_lowered_for_gpu_and_tpu(model, solver, adjoint, precision):
    options = {"final_relu": True, "downsampling": "conv", "device": "cpu", "precision": precision}
    learner = make(
        model=model, solver=solver, adjoint=adjoint, step_size=None, rtol=1e-3, atol=1e-3,
        max_steps=16, optimizer="sgd", momentum=0.9, seed=0, **options,
    )  # fmt: skip
    step = jax.export.export(learner._train_step, platforms=["cuda", "tpu"])
    found = step(learner.state, BATCH, jnp.float32(0.1))
    assert found.platforms == ("cuda", "tpu")
    assert found.nr_devices == 1
