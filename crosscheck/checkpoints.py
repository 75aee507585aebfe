"""A checkpoint trained in one framework, converted, predicts the same in the other."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from crosscheck import jax_side, trained
from crosscheck.check import Check, compare_tensors
from crosscheck.convert import convert
from jax_node import classify as jax_classify
from torch_node import classify as torch_classify

LEARNERS: dict[str, Any] = {"jax": jax_classify.learner, "torch": torch_classify.learner}
BOUND, REASON = 1e-10, "the same layers and steps in float64"
SOLVERS: dict[str, dict[str, Any]] = {
    "resnet1": {"solver": None, "adjoint": None, "step_size": None},
    "resnet6": {"solver": None, "adjoint": None, "step_size": None, "norm": "batch"},
    "rknet": {},
    "odenet": {"solver": "dopri5", "step_size": None},
}


def checks() -> list[Check]:
    """Every model, after two steps of training in either framework, predicts in the other."""
    found = []
    images = trained.batch(100, 32)["images"]
    for model, options in SOLVERS.items():
        for start, end in (("jax", "torch"), ("torch", "jax")):
            settings = trained.LEARNER | options | {"model": model, "precision": "float64"}
            with jax_side.precision("float64"), tempfile.TemporaryDirectory() as folder:
                ours = LEARNERS[start](**settings)
                for step in range(2):
                    ours.train_step(trained.batch(step, 8), 0.05)
                ours.save(Path(folder) / "trained")
                theirs = LEARNERS[end](**settings | {"seed": 1})
                theirs.load(convert(Path(folder) / "trained", end))
                sides = {
                    start: {"logits": ours.predict(images)},
                    f"{end}, converted": {"logits": theirs.predict(images)},
                }
            norm = f", norm {settings['norm']}" if "norm" in settings else ""
            case = f"{model}{norm} trained in {start}, float64"
            found.append(compare_tensors("checkpoints", case, sides, BOUND, REASON))
    return found
