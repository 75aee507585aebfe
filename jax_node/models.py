"""The five networks of the study: downsample, transform, classify.

They differ only in the transform: residual blocks, or a vector field integrated from t = 0 to t1.
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

from jax_node import blocks, conv
from jax_node.adjoint import Backward, Field
from jax_node.regularise import solve_penalised
from jax_node.solve import Solution

MODELS = ("resnet6", "resnet1", "rknet", "odenet")
SMALLEST = 8
Images = Float[Array, "batch height width channels"]
# (field, y0, ts, args, backward, norm) -> Solution: `solve.solve` with its options filled in.
Solver = Callable[..., Solution]


class Output(NamedTuple):
    """Logits, the solve behind them (None in a ResNet), and penalties if they were asked for."""

    logits: Float[Array, "batch classes"]
    solution: Solution | None
    penalties: dict[str, Float[Array, ""]] = {}


class ResNet(nnx.Module):
    """Downsample, `n_blocks` residual blocks, head."""

    def __init__(
        self,
        n_blocks: int,
        *,
        final_relu: bool,
        downsampling: str,
        norm: str,
        channels: int,
        classes: int,
        rngs: nnx.Rngs,
    ):
        self.downsample = DOWNSAMPLING[downsampling](channels=channels, norm=norm, rngs=rngs)
        self.blocks = nnx.List([blocks.Residual(norm=norm, rngs=rngs) for _ in range(n_blocks)])
        self.head = blocks.Head(final_relu=final_relu, classes=classes, norm=norm, rngs=rngs)

    def __call__(self, images: Images, backward: Backward | None = None) -> Output:
        """Classify images with values in [0, 1]."""
        del backward
        x = self.downsample(images.transpose(1, 2, 0, 3))
        for block in self.blocks:
            x = block(x)
        return Output(self.head(x), None)


class ODENet(nnx.Module):
    """Downsample, `y(t1)` of `dy/dt = field(t, y)` with `y(0)` the features, head."""

    def __init__(
        self,
        solver: Solver,
        *,
        t1: float,
        final_relu: bool,
        downsampling: str,
        norm: str,
        channels: int,
        classes: int,
        rngs: nnx.Rngs,
    ):
        self.solver = solver
        self.t1 = t1
        self.downsample = DOWNSAMPLING[downsampling](channels=channels, norm=norm, rngs=rngs)
        self.field = blocks.VectorField(norm=norm, rngs=rngs)
        self.head = blocks.Head(final_relu=final_relu, classes=classes, norm=norm, rngs=rngs)

    def __call__(
        self,
        images: Images,
        backward: Backward | None = None,
        *,
        penalise: bool = False,
        draw_probe: Callable[[Array], Array] | None = None,
    ) -> Output:
        """Classify images with values in [0, 1]; for `backward` see `solve.solve`.

        With `penalise`, integrate the penalties of `regularise.py` too; `draw_probe` makes a probe
        for the state it is given, and without it there is no Jacobian penalty.
        """
        y0 = self.downsample(images.transpose(1, 2, 0, 3))
        ts = jnp.array([0.0, self.t1], y0.dtype)
        field, weights = self._field()
        if not penalise:
            solution = self.solver(field, y0, ts, weights, backward=backward)
            return Output(self.head(solution.ys[-1]), solution)
        probe = draw_probe(y0) if draw_probe else None
        solution, penalties = solve_penalised(
            self.solver, field, y0, ts, weights, probe=probe, backward=backward
        )
        return Output(self.head(solution.ys[-1]), solution, penalties)

    def trajectory(
        self, images: Images, times: Float[Array, " times"]
    ) -> tuple[Solution, Float[Array, "times batch classes"]]:
        """The solve with the state at `times` (from 0, increasing), and the logits of each state.

        States in `ys` are `[times, height, width, batch, channels]`.
        """
        field, weights = self._field()
        y0 = self.downsample(images.transpose(1, 2, 0, 3))
        solution = self.solver(field, y0, times, weights)
        return solution, jnp.stack([self.head(y) for y in solution.ys])

    def _field(self) -> tuple[Field, nnx.State]:
        """The vector field as `solve.solve` takes it, and its weights."""
        graph, weights = nnx.split(self.field)
        return lambda t, y, weights: nnx.merge(graph, weights)(t, y), weights


DOWNSAMPLING = {"conv": blocks.ConvDownsample, "residual": blocks.ResidualDownsample}


def build(
    name: str,
    *,
    solver: Solver | None = None,
    t1: float = 1.0,
    final_relu: bool = True,
    downsampling: str = "conv",
    norm: str = "group",
    channels: int = 1,
    classes: int = 10,
    seed: int = 0,
    dtype: jax.typing.DTypeLike = jnp.float32,
    low_precision: bool = False,
) -> ResNet | ODENet:
    """Make a model by name: one of `MODELS`, or `resnet<N>` with any number of blocks.

    Args:
        name: which model.
        solver: `solve.solve` with its options filled in; needed by `odenet` and `rknet`.
        t1: end of the ODE's time, which starts at 0.
        final_relu: whether the head rectifies after its normalisation.
        downsampling: `conv` (the authors' example code) or `residual` (the paper's text).
        norm: one of `normalise.NORMS`; the field of an ODE model keeps `group` with `batch` (why:
            `blocks.VectorField`).
        channels: of the images, of `SMALLEST` pixels or more a side.
        classes: how many logits.
        seed: of the initial weights, which are drawn in float32 whatever `dtype` is.
        dtype: of weights and computation.
        low_precision: convolve in bfloat16, between layers and a solver's state of `dtype`.

    Raises:
        ValueError: unknown name, or an ODE model without a solver.

    A model with the norm `batch` begins in training: `eval()` makes it use the running statistics.
    """
    if downsampling not in DOWNSAMPLING:
        raise ValueError(f"unknown downsampling {downsampling!r}: choose conv or residual")
    options: dict[str, Any] = {
        "final_relu": final_relu,
        "downsampling": downsampling,
        "norm": norm,
        "channels": channels,
        "classes": classes,
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
        model = ODENet(solver, t1=t1, **options)
    if low_precision:
        for _, module in nnx.iter_modules(model):
            if isinstance(module, blocks.Conv | blocks.TimeConv):
                module.convolve = conv.in_bfloat16(module.convolve)
    nnx.update(model, jax.tree.map(lambda w: w.astype(dtype), nnx.state(model)))
    return model


def parameter_count(model: nnx.Module) -> int:
    """How many numbers training adjusts."""
    return sum(w.size for w in jax.tree.leaves(nnx.state(model, nnx.Param)))


def as_images(pixels: Num[Array, "batch height width channels"], dtype) -> Images:
    """Pixels 0...255 as floats in [0, 1]; ValueError for floats, which may be in [0, 1] already."""
    if jnp.issubdtype(pixels.dtype, jnp.inexact):
        raise ValueError(f"the pixels are {pixels.dtype}: give whole numbers from 0 to 255")
    return pixels.astype(dtype) / 255
