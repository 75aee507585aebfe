"""What a run is: every flag of `experiments/mnist.py`, its default, and what is allowed.

A flag whose default depends on others is None until `classify.resolve` settles it; the settled
configuration is printed, saved with the run, and all that the run reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Suppress, arg

from experiments.harness import flags

EXAMPLES = """examples:
  python experiments/mnist.py --framework jax
      ODE-Net on the MNIST images at hand, a few minutes on two cores
  python experiments/mnist.py --epochs 160 --batch-size 128 --lr-schedule steps --augment
      the paper's training, on full MNIST where it is there or can be downloaded
  python experiments/mnist.py --resume runs/mnist-odenet-jax-seed0-20250131-120000
      go on with a run that was stopped
"""


@dataclass(frozen=True)
class Model:
    """What is trained, and on what."""

    framework: Literal["jax", "torch"] = "jax"
    """Flax and diffrax, or PyTorch and torchdiffeq."""
    name: Annotated[str, arg(name="model", metavar="NAME")] = "odenet"
    """odenet, rknet, resnet6, resnet1 (or resnet with any number of blocks)."""
    final_relu: bool = True
    """Keep the ReLU before the average pool."""
    downsampling: Literal["conv", "residual"] = "conv"
    """Three convolutions (the paper's code), or residual blocks (the paper's text)."""
    norm: Annotated[
        Literal["group", "group1", "group64", "batch"],
        arg(
            help="Normalisation: in 32 groups of channels, in 1 (layer normalisation), in 64 "
            "(instance normalisation), or over the batch. The vector field of odenet and rknet "
            "keeps group with batch: normalised over the batch, it would depend on the other "
            "images and on the calls before, and be no function of t and y."
        ),
    ] = "group"
    precision: Literal["float32", "float64", "bfloat16"] = "float32"
    """Type of weights, activations and solver state; bfloat16 (jax) of the convolutions only."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""
    devices: Annotated[
        int | None,
        arg(
            metavar="N",
            help_behavior_hint="(default: on a CPU its free cores, as far as each gets 16 images "
            "and the gradient gains by it; otherwise 1)",
        ),
    ] = None
    """Devices that share a batch, jax only; on a CPU they are its cores."""


@dataclass(frozen=True)
class Solver:
    """How the ODE of odenet and rknet is solved from t = 0 to t1, and its gradient taken."""

    solver: Annotated[
        str | None,
        arg(
            metavar="NAME",
            help="Method, e.g. dopri5, euler, midpoint, rk4, implicit_adams; an unknown one is "
            "answered with the list.",
            help_behavior_hint="(default: dopri5 for odenet, rk4 for rknet)",
        ),
    ] = None
    adjoint: Annotated[
        str | None,
        arg(
            metavar="NAME",
            help="Gradient: direct (backpropagate through the solver's steps), checkpoint (the "
            "same with less memory, jax only), adjoint (solve the adjoint ODE backwards), "
            "handwritten (our own adjoint with Euler steps, torch only).",
            help_behavior_hint="(default: in jax direct, with adams checkpoint; in torch "
            "adjoint for odenet, direct for rknet)",
        ),
    ] = None
    rtol: Annotated[float, arg(metavar="TOL")] = 1e-3
    """Relative tolerance of an adaptive method."""
    atol: Annotated[float, arg(metavar="TOL")] = 1e-3
    """Absolute tolerance of an adaptive method."""
    step_size: Annotated[
        float | None,
        flags.named("H", "t1 / 4 for rknet's rk4, which is 4 steps"),
    ] = None
    """Step of a fixed-step method, which needs one."""
    t1: Annotated[float, arg(metavar="T")] = 1.0
    """End of the ODE's time, which starts at 0."""
    max_steps: Annotated[int, arg(metavar="N")] = 128
    """Steps after which a solve counts as failed; direct in jax keeps room for as many states."""


@dataclass(frozen=True)
class Training:
    """How it is trained."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    """Gradient descent with momentum, or Adam."""
    momentum: Annotated[float | None, flags.named("M", "0.9 for sgd")] = None
    """Momentum of sgd."""
    epochs: Annotated[int, arg(metavar="N")] = 5
    """Passes over the training images; the paper has 160."""
    batch_size: Annotated[int, arg(metavar="N")] = 32
    """Images per step; an epoch's incomplete last batch is left out. The paper has 128."""
    lr: Annotated[
        float | None,
        flags.named("RATE", "0.1 for sgd, 1e-3 for adam"),
    ] = None
    """Learning rate at the start."""
    warmup: Annotated[float, arg(metavar="EPOCHS")] = 0.0
    """Over so many epochs the rate first rises to what the schedule says, linearly from 0."""
    lr_schedule: Annotated[
        Literal["cosine", "steps", "plateau", "constant"],
        arg(
            help="cosine falls to 0 over the run; steps is the paper's code: times 0.1 after 60, "
            "100 and 140 of 160 epochs, in proportion for another number; plateau halves the rate "
            "after 7 epochs without a better training loss; constant stays."
        ),
    ] = "cosine"
    select: Annotated[
        Literal["last", "train_loss", "validation"] | None,
        arg(
            help="The epoch whose weights are tested and kept as the run's result: the last, or "
            "that of least mean training loss, or of least validation loss. No test image has a "
            "say.",
            help_behavior_hint="(default: validation if there are images for it, else last)",
        ),
    ] = None
    start_from: Annotated[Path | None, flags.named("RUN", "new weights")] = None
    """Begin with the weights of this run's result."""
    check_gradient: Annotated[int | None, flags.named("N", "never")] = None
    """Every N steps, compare the gradient with that of the computed loss and of the ODE (jax)."""
    augment: bool = False
    """Crop at random after padding by 4 pixels, as the paper's code does."""
    kinetic_weight: Annotated[
        float,
        arg(
            metavar="W",
            help="Add to the training loss W times the kinetic energy of the ODE's state: the mean "
            "over the batch of the integral over t of |f|^2 / n, n being the size of the state "
            "(Finlay et al. 2020). Not for resnets.",
        ),
    ] = 0.0
    jacobian_weight: Annotated[
        float,
        arg(
            metavar="W",
            help="The same with |e^T df/dy|^2 / n, where e is random signs, new in each step: on "
            "average the squared Frobenius norm of the Jacobian. Takes about twice as long.",
        ),
    ] = 0.0
    seed: Annotated[int, arg(metavar="N")] = 0
    """Seed of the initial weights, the data order, the crops and the random signs."""


@dataclass(frozen=True)
class Data:
    """Which images."""

    dataset: Annotated[str, arg(metavar="NAME")] = "mnist"
    """mnist, fashion_mnist, or labelled images that TFDS has prepared in --tfds-dir."""
    source: Annotated[
        Literal["auto", "tfds", "idx", "embedded"],
        arg(
            help="tfds: the official 60,000 + 10,000 images, downloaded once. idx: the files in "
            "--data-dir. embedded: 4,000 + 1,000 MNIST images, installed already. auto: idx if "
            "--data-dir is given, else tfds if it is there or can be reached, else embedded."
        ),
    ] = "auto"
    data_dir: Annotated[Path | None, flags.named("FOLDER", "none")] = None
    """Your own images: IDX files (train-images-idx3-ubyte and its three companions, gzipped or
    not), or a folder of pictures for each class, perhaps within folders train and test."""
    tfds_dir: Annotated[
        Path | None,
        flags.named("FOLDER", "$TFDS_DATA_DIR or ~/tensorflow_datasets"),
    ] = None
    """Folder in which prepared images are kept."""
    limit_train: Annotated[int | None, flags.named("N", "all")] = None
    """Use only the first N training images."""
    limit_test: Annotated[int | None, flags.named("N", "all")] = None
    """Use only the first N test images."""
    validation: Annotated[int, flags.named("N", "none")] = 0
    """Set N of the training images aside, of all classes alike, to choose by (see --select)."""
    folds: Annotated[
        int | None,
        arg(
            metavar="K",
            help="Divide all images, the set's training and test images alike, into K parts, the "
            "same for every run; test on one of them (--fold) and train on the rest.",
            help_behavior_hint="(default: the set's own test images)",
        ),
    ] = None
    fold: Annotated[int | None, flags.named("k", "none")] = None
    """Which of --folds to test on: 0 to K - 1."""
    channels: Suppress[int] = 1
    """Of an image, as found in the data."""
    classes: Suppress[int] = 10
    """How many, as found in the data."""


@dataclass(frozen=True)
class Run:
    """Where results go, and going on from earlier ones."""

    out: Annotated[
        Path | None,
        flags.named("FOLDER", "runs/DATASET-MODEL-FRAMEWORK-..."),
    ] = None
    """New folder for this run."""
    resume: Annotated[
        Path | None,
        arg(
            metavar="RUN",
            help="Go on with the run in this folder, with its flags. --epochs may be larger: the "
            "schedule is then the one for the new number, from here on.",
            help_behavior_hint="(default: none)",
        ),
    ] = None
    evaluate: Annotated[Path | None, flags.named("RUN", "none")] = None
    """Only evaluate the best checkpoint of the run in this folder."""


@dataclass(frozen=True)
class Config:
    """Train ResNet, RK-Net or ODE-Net on MNIST, as in section 3 of Neural ODEs (Chen et al., 2018).

    Writes a run folder with config.json, metrics.jsonl, checkpoints, summary.json and curves.png.
    """

    model: Model = Model()
    solver: Solver = Solver()
    training: Training = Training()
    data: Data = Data()
    run: Run = Run()


def parse(arguments: Sequence[str], default: Config | None = None) -> Config:
    """Flags to `Config`; flags not given come from `default`.

    Raises `ConfigError` for a flag or value that does not parse; `--help` prints and exits.
    """
    return flags.parse("mnist.py", EXAMPLES, arguments, default or Config())


def describe(config: Config) -> str:
    """Resolved model, solver and training in one line, as printed first and in titles."""
    model, solver, training = config.model, config.solver, config.training
    parts = [f"{model.name} in {model.framework}"]
    if model.norm != "group":
        parts.append(f"norm {model.norm}")
    if solver.solver is not None:
        step = f" step {solver.step_size:g}" if solver.step_size else f" rtol {solver.rtol:g}"
        end = f" to t1 {solver.t1:g}" if solver.t1 != 1 else ""
        parts.append(f"{solver.solver}{step}{end}, gradient {solver.adjoint}")
        weights = {"kinetic": training.kinetic_weight, "jacobian": training.jacobian_weight}
        parts += [f"{name} weight {weight:g}" for name, weight in weights.items() if weight]
    parts.append(
        f"{training.optimizer} lr {training.lr:g} {training.lr_schedule}"
        + (f" after a warm-up of {training.warmup:g}" if training.warmup else "")
        + f", {training.epochs} epochs of batch {training.batch_size}"
    )
    return "; ".join([*parts, f"seed {training.seed}"])


def from_json(saved: dict[str, Any]) -> Config:
    """Inverse of `flags.to_json`. Raises `ConfigError` for what another version wrote."""
    return flags.from_json(Config, saved)
