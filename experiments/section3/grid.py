"""Which runs the study is made of: variants of the training, and three sizes of the whole.

The titles are those of the tables; a variant's name is that of its run folders.
"""

from __future__ import annotations

from collections.abc import Sequence

from experiments.section3 import coarse_adjoint
from experiments.section3.cells import Cell, Preset, Variant

VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("resnet6", "ResNet-6", "--model resnet6", True),
        Variant("resnet1", "ResNet-1", "--model resnet1", True),
        Variant("rknet", "RK-Net (rk4, 4 steps)", "--model rknet", True),
        Variant("odenet", "ODE-Net (dopri5, direct)", "--model odenet", True),
        Variant("odenet-adjoint", "ODE-Net (dopri5, adjoint)", "--adjoint adjoint", True),
        Variant(
            "odenet-adams",
            "ODE-Net (implicit Adams, step 0.25)",
            "--solver implicit_adams --step-size 0.25",
        ),
        Variant(
            "odenet-adams-adam",
            "ODE-Net (implicit Adams, step 0.25; Adam)",
            "--solver implicit_adams --step-size 0.25 --optimizer adam",
        ),
        Variant(
            "torch-euler",
            "ODE-Net in torch (Euler, step 0.1, handwritten adjoint)",
            "--framework torch --solver euler --step-size 0.1 --adjoint handwritten",
        ),
        Variant("torch-odenet", "ODE-Net in torch (dopri5, adjoint)", "--framework torch"),
        *(
            Variant(f"resnet{blocks}", f"ResNet-{blocks}", f"--model resnet{blocks}")
            for blocks in (2, 4, 12)
        ),
        *(
            Variant(f"{name}-norelu", f"{title}, no final ReLU", f"--model {name} --no-final-relu")
            for name, title in (
                ("resnet6", "ResNet-6"),
                ("resnet1", "ResNet-1"),
                ("rknet", "RK-Net (rk4, 4 steps)"),
                ("odenet", "ODE-Net (dopri5, direct)"),
            )
        ),
        *(
            Variant(
                f"odenet-tol{tol}", f"ODE-Net, rtol = atol = {tol}", f"--rtol {tol} --atol {tol}"
            )
            for tol in ("1e-1", "1e-5")
        ),
        *(Variant(f"odenet-t1-{t1}", f"ODE-Net, t1 = {t1}", f"--t1 {t1}") for t1 in ("0.25", "4")),
        *(
            Variant(
                f"odenet-kinetic{weight}",
                f"ODE-Net, kinetic weight {weight}",
                f"--kinetic-weight {weight}",
            )
            for weight in ("0.1", "1")
        ),
        Variant("odenet-jacobian0.1", "ODE-Net, Jacobian weight 0.1", "--jacobian-weight 0.1"),
        *coarse_adjoint.VARIANTS,
    )
}

MAIN = ("resnet6", "resnet1", "rknet", "odenet")
TABLE1 = (*MAIN, "odenet-adjoint", "odenet-adams", "odenet-adams-adam", "torch-euler",
          "torch-odenet")  # fmt: skip
DEPTH = ("resnet1", "resnet2", "resnet4", "resnet6", "resnet12", "odenet")
TOLERANCE = ("odenet-tol1e-1", "odenet", "odenet-tol1e-5")
T1 = ("odenet-t1-0.25", "odenet", "odenet-t1-4")
REGULARISED = ("odenet", "odenet-kinetic0.1", "odenet-kinetic1", "odenet-jacobian0.1")
RELU = tuple((name, f"{name}-norelu") for name in MAIN)

# What the four questions rest on: with three seeds Student's t alone makes an interval wide.
_MORE_SEEDS = (*MAIN, *(name for _, name in RELU), "resnet4", "resnet12", *T1[::2])
_ELSEWHERE = {*TABLE1, *(variant.name for variant in coarse_adjoint.VARIANTS)}
_OTHERS = tuple(name for name in VARIANTS if name not in _ELSEWHERE)

PRESETS = {
    "paper": Preset(
        flags="--epochs 160 --batch-size 128 --lr-schedule steps --augment",
        blocks=((TABLE1, (0, 1, 2)), (_OTHERS, (0, 1, 2)), (MAIN, (3, 4))),
        examined_seeds=(0, 1, 2),
        jobs=1,
        minutes=float("inf"),
    ),
    "laptop": Preset(
        flags="--epochs 3 --batch-size 32 --device cpu",
        blocks=((TABLE1, (0, 1, 2)), (_OTHERS, (0, 1, 2)), (_MORE_SEEDS, (3, 4))),
        examined_seeds=(0, 1, 2),
        jobs=None,
        minutes=85,
    ),
    "smoke": Preset(
        flags="--epochs 1 --batch-size 16 --limit-train 32 --limit-test 16 --device cpu",
        blocks=(
            (("resnet1", "odenet", "resnet1-norelu", "odenet-adjoint", "torch-odenet"), (0,)),
            (("resnet1", "odenet"), (1,)),
        ),
        examined_seeds=(0,),
        jobs=None,
        minutes=10,
    ),
    **coarse_adjoint.PRESETS,
}


def cells(preset: Preset, only: Sequence[str] = ()) -> list[Cell]:
    """The runs of a preset in running order; `only` keeps the variants of these names."""
    return [
        Cell(VARIANTS[name], seed, VARIANTS[name].examined and seed in preset.examined_seeds)
        for names, seeds in preset.blocks
        for seed in seeds
        for name in names
        if not only or name in only
    ]
