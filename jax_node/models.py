"""The five networks of the study: downsample, transform, classify.

They differ only in the transform: residual blocks, or a vector field integrated from t = 0 to 1.
RK-Net and ODE-Net are the same network; RK-Net is differentiated through its fixed-step
Runge-Kutta integrator, ODE-Net by whichever gradient is chosen (the paper: adjoint).

Flax's `nnx` and not `linen`: it is what Flax develops and teaches now (linen is in maintenance),
its modules are plain Python objects that read like the torch twin, and since a module is a PyTree
the vector field goes into diffrax without a wrapper.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num

from jax_node import blocks
from jax_node.solve import Solution

MODELS = ("resnet6", "resnet1", "rknet", "odenet")
Images = Float[Array, "batch height width channels"]
# (field, y0, ts, args, backward) -> Solution: `solve.solve` with its options filled in.
Solver = Callable[..., Solution]


class Output(NamedTuple):
    """Logits, and the solve behind them (None in a ResNet)."""

    logits: Float[Array, "batch 10"]
    solution: Solution | None


class ResNet(nnx.Module):
    """Downsample, `n_blocks` residual blocks, head."""

    def __init__(self, n_blocks: int, *, final_relu: bool, downsampling: str, rngs: nnx.Rngs):
        self.downsample = DOWNSAMPLING[downsampling](rngs=rngs)
        self.blocks = nnx.List([blocks.Residual(rngs=rngs) for _ in range(n_blocks)])
        self.head = blocks.Head(final_relu=final_relu, rngs=rngs)

    def __call__(self, images: Images, backward: Float[Array, "2"] | None = None) -> Output:
        """Classify images with values in [0, 1]."""
        del backward
        x = self.downsample(images.transpose(1, 2, 0, 3))
        for block in self.blocks:
            x = block(x)
        return Output(self.head(x), None)


class ODENet(nnx.Module):
    """Downsample, `y(1)` of `dy/dt = field(t, y)` with `y(0)` the features, head."""

    def __init__(self, solver: Solver, *, final_relu: bool, downsampling: str, rngs: nnx.Rngs):
        self.solver = solver
        self.downsample = DOWNSAMPLING[downsampling](rngs=rngs)
        self.field = blocks.VectorField(rngs=rngs)
        self.head = blocks.Head(final_relu=final_relu, rngs=rngs)

    def __call__(self, images: Images, backward: Float[Array, "2"] | None = None) -> Output:
        """Classify images with values in [0, 1]; for `backward` see `solve.solve`."""
        y0 = self.downsample(images.transpose(1, 2, 0, 3))
        graph, weights = nnx.split(self.field)
        field = lambda t, y, weights: nnx.merge(graph, weights)(t, y)
        ts = jnp.array([0.0, 1.0], y0.dtype)
        solution = self.solver(field, y0, ts, weights, backward=backward)
        return Output(self.head(solution.ys[-1]), solution)


DOWNSAMPLING = {"conv": blocks.ConvDownsample, "residual": blocks.ResidualDownsample}


def build(
    name: str,
    *,
    solver: Solver | None = None,
    final_relu: bool = True,
    downsampling: str = "conv",
    seed: int = 0,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> ResNet | ODENet:
    """Make a model by name: one of `MODELS`, or `resnet<N>` with any number of blocks.

    Args:
        name: which model.
        solver: `solve.solve` with its options filled in; needed by `odenet` and `rknet`.
        final_relu: whether the head rectifies after its normalisation.
        downsampling: `conv` (the authors' example code) or `residual` (the paper's text).
        seed: of the initial weights, which are drawn in float32 whatever `dtype` is.
        dtype: of weights and computation.

    Raises:
        ValueError: unknown name, or an ODE model without a solver.
    """
    if downsampling not in DOWNSAMPLING:
        raise ValueError(f"unknown downsampling {downsampling!r}: choose conv or residual")
    options: dict[str, Any] = {
        "final_relu": final_relu,
        "downsampling": downsampling,
        "rngs": nnx.Rngs(seed),
    }
    model: ResNet | ODENet
    if match := re.fullmatch(r"resnet([1-9]\d*)", name):
        model = ResNet(int(match[1]), **options)
    elif name not in ("odenet", "rknet"):
        raise ValueError(f"unknown model {name!r}: choose one of {', '.join(MODELS)}")
    elif solver is None:
        raise ValueError(f"{name} integrates a vector field: pass a solver")
    else:
        model = ODENet(solver, **options)
    nnx.update(model, jax.tree.map(lambda w: w.astype(dtype), nnx.state(model, nnx.Param)))
    return model


def parameter_count(model: nnx.Module) -> int:
    """How many numbers training adjusts."""
    return sum(w.size for w in jax.tree.leaves(nnx.state(model, nnx.Param)))


def as_images(pixels: Num[Array, "batch height width channels"], dtype) -> Images:
    """Pixels 0...255 as floats in [0, 1]."""
    return pixels.astype(dtype) / 255
