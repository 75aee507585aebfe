"""`python experiments/x.py` puts `experiments/` first on the path of imports."""

import importlib.metadata
import sys
from pathlib import Path

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
ROOMS = {path.parent.name for path in EXPERIMENTS.glob("*/__init__.py")}
COMMANDS = {path.stem for path in EXPERIMENTS.glob("*.py")}


def test_no_name_in_experiments_hides_a_module():
    elsewhere = set(importlib.metadata.packages_distributions()) | set(sys.stdlib_module_names)
    assert not (ROOMS | COMMANDS) & elsewhere
    assert not ROOMS & COMMANDS
    assert {"harness", "images"} <= ROOMS
