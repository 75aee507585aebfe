"""A study's run folders as one small JSON record, from which every table and picture is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments.harness.errors import ConfigError, RunError
from experiments.section3 import grid
from experiments.section3.cells import Cell

# Of the rows of metrics.jsonl, what is drawn.
ROW = ("epoch", "train_loss", "test_loss", "test_error", "nfe_forward", "nfe_backward", "kinetic",
       "jacobian", "reconstruction", "gradient_checks")  # fmt: skip
SUMMARY = ("test_error", "test_loss", "selected_epoch", "parameters", "nfe_forward",
           "nfe_backward", "seconds_per_epoch", "cpu_seconds_per_epoch", "peak_memory_mib",
           "epochs", "reconstruction")  # fmt: skip


def collect(folder: Path) -> dict[str, Any]:
    """The record of a study: what it was, and of each run its results or why it has none.

    Raises `RunError` if `folder` holds no study.
    """
    study = _json(folder / "study.json")
    if not isinstance(study, dict) or study.get("preset") not in grid.PRESETS:
        raise RunError(f"{folder} holds no study (no readable study.json); run study.py first.")
    runs, data, true = [], None, None
    for cell in grid.cells(grid.PRESETS[study["preset"]]):
        run, its_data, its_true = _run(folder, cell)
        runs.append(run)
        if its_data is None:
            continue
        if data is not None and its_data["sha256"] != data["sha256"]:
            raise RunError(f"{folder / cell.name} was made with other images than the rest.")
        data, true = its_data, its_true
    if data is None:
        raise RunError(f"no run in {folder} has finished yet.")
    return {**study, "data": data, "true": true, "runs": runs}


def load(path: Path) -> dict[str, Any]:
    """A record from a study's folder, or from the JSON file that report.py wrote of one."""
    if path.is_dir():
        return collect(path)
    record = _json(path)
    if not isinstance(record, dict) or not {"preset", "runs", "data"} <= record.keys():
        raise ConfigError(f"{path} is neither a study's folder nor a record of one.")
    return record


def _run(folder: Path, cell: Cell) -> tuple[dict[str, Any], dict[str, Any] | None, str | None]:
    """One run of the record; the data it was trained on and the true classes, if it is done."""
    path = folder / cell.name
    run: dict[str, Any] = {"variant": cell.variant.name, "seed": cell.seed}
    summary, config = _json(path / "summary.json"), _json(path / "config.json")
    predictions, rows = _json(path / "predictions.json"), _rows(path / "metrics.jsonl")
    whole = isinstance(summary, dict) and "test_error" in summary and config and predictions
    if not whole or rows is None:
        return run | _why(folder, cell, summary), None, None
    assert isinstance(summary, dict)
    run |= {
        "status": "done",
        "commit": config["git_commit"],
        "device": config["device"],
        "summary": {key: rounded(summary.get(key)) for key in SUMMARY},
        "rows": [{key: rounded(row[key]) for key in ROW if key in row} for row in rows],
        "predicted": predictions["predicted"],
    }
    if examined := _json(path / "examined.json"):
        run["examined"] = rounded(examined)
    elif cell.examined:
        run["examination"] = _last_line(folder / "logs" / f"{cell.name}.log")
    return run, config["data"], predictions["true"]


def _why(folder: Path, cell: Cell, summary: Any) -> dict[str, str]:
    if isinstance(summary, dict) and summary.get("failed"):
        return {"status": "failed", "reason": _without_paths(summary["failed"])}
    if not (folder / cell.name).exists():
        return {"status": "missing", "reason": "not begun"}
    return {"status": "failed", "reason": _last_line(folder / "logs" / f"{cell.name}.log")}


def rounded(value: Any) -> Any:
    """Numbers with six significant digits, in lists and dictionaries too."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _last_line(log: Path) -> str:
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    except OSError:
        lines = []
    written = [line for line in lines if line]
    return _without_paths(written[-1]) if written else "it left no word"


def _without_paths(text: str) -> str:
    """Absolute paths shortened to their last part: a record is read elsewhere."""
    return " ".join(
        word.rstrip("/").rsplit("/", 1)[-1] if word.startswith("/") else word
        for word in text.split()
    )


def _rows(path: Path) -> list[dict[str, Any]] | None:
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError):
        return None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
