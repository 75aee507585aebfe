"""Run a notebook and keep what it shows: `python experiments/notebook.py experiments/tour.ipynb`.

The cells run here, one after another, without a Jupyter kernel. What a cell prints and the figures
it leaves open become its outputs, so the file can be read where nothing can be run.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402

from experiments.harness.run_folder import write_atomic  # noqa: E402


class CellError(RuntimeError):
    """A cell that failed; says which and why."""


def execute(notebook: dict[str, Any]) -> dict[str, Any]:
    """Run every code cell in one namespace and set its outputs; returns that namespace."""
    names: dict[str, Any] = {"__name__": "__main__"}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for count, cell in enumerate(code, 1):
        source, printed = "".join(cell["source"]), io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(source, f"cell {count}", "exec"), names)
        except Exception as error:
            raise CellError(f"cell {count} failed: {type(error).__name__}: {error}") from error
        cell["execution_count"] = count
        cell["outputs"] = _text(printed.getvalue()) + _figures()
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 for a cell that failed, 2 for bad input."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        (name,) = given
        path = Path(name)
        notebook = json.loads(path.read_text())
        execute(notebook)
        write_atomic(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    except CellError as error:
        print(f"notebook.py: {error}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"notebook.py: one notebook expected: {error}", file=sys.stderr)
        return 2
    return 0


def _text(printed: str) -> list[dict[str, Any]]:
    lines = printed.splitlines(keepends=True)
    return [{"output_type": "stream", "name": "stdout", "text": lines}] if lines else []


def _figures() -> list[dict[str, Any]]:
    outputs = []
    for number in pyplot.get_fignums():
        picture = io.BytesIO()
        pyplot.figure(number).savefig(picture, format="png", dpi=80)
        encoded = base64.b64encode(picture.getvalue()).decode() + "\n"
        data = {"image/png": encoded, "text/plain": ["<Figure>"]}
        outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
    pyplot.close("all")
    return outputs


if __name__ == "__main__":
    sys.exit(main())
