"""What a model looks like in all pictures of the study: its colour and its short name."""

from experiments.harness.figures import (
    BLUE,
    GREEN,
    GREY,
    LIGHT_BLUE,
    LIGHT_GREEN,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
)
from experiments.section3 import grid

# Implicit Adams is green, as in the work we follow up on.
COLORS = {
    "resnet6": ORANGE,
    "resnet1": YELLOW,
    "rknet": PURPLE,
    "odenet": BLUE,
    "odenet-adjoint": LIGHT_BLUE,
    "odenet-adams": GREEN,
    "odenet-adams-adam": LIGHT_GREEN,
    "torch-euler": GREY,
    "torch-odenet": RED,
}
SHORT = {
    "rknet": "RK-Net",
    "odenet": "ODE-Net, direct",
    "odenet-adjoint": "ODE-Net, adjoint",
    "odenet-adjoint-norelu": "ODE-Net, no final ReLU",
    "odenet-adams": "ODE-Net, implicit Adams",
    "odenet-adams-adam": "implicit Adams; Adam",
    "torch-euler": "Euler, handwritten (torch)",
    "torch-odenet": "ODE-Net (torch)",
}


def title(name: str) -> str:
    """A variant's title, or what is short for it."""
    return SHORT.get(name, grid.VARIANTS[name].title)
