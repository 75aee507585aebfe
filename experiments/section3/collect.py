"""A study's run folders as one small JSON record, from which every table and picture is made.

A record has a study's `preset`, `flags` and `sessions`; `data`, what the runs were made with;
`tested`, by fold, the places and true classes of the test images; and `runs`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness.errors import ConfigError, RunError
from experiments.harness.files import last_line
from experiments.section3 import compact, grid
from experiments.section3.cells import Cell
from experiments.section3.soundness import STATES, check

Record = dict[str, Any]

# Of the rows of metrics.jsonl, what is drawn.
ROW = ("epoch", "train_loss", "validation_loss", "validation_error", "test_loss", "test_error",
       "nfe_forward", "nfe_backward", "kinetic", "jacobian", "reconstruction",
       "gradient_checks")  # fmt: skip
SUMMARY = ("test_error", "test_loss", "validation_error", "validation_loss", "selected_epoch",
           "parameters", "nfe_forward", "nfe_backward", "seconds_per_epoch",
           "cpu_seconds_per_epoch", "peak_memory_mib", "epochs", "reconstruction")  # fmt: skip


def collect(folder: Path) -> Record:
    """The record of a study: what it was, and of each run its results or why it has none.

    Raises `RunError` if `folder` holds no study.
    """
    study = _json(folder / "study.json")
    if not isinstance(study, dict) or study.get("preset") not in grid.PRESETS:
        raise RunError(f"{folder} holds no study (no readable study.json); run study.py first.")
    runs: list[Record] = []
    tested: Record = {}
    data = None
    for cell in grid.cells(grid.PRESETS[study["preset"]]):
        try:
            run, its_data, its_images = _run(folder, cell)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise RunError(f"{folder / cell.name} has damaged files ({error!r}).") from None
        runs.append(run)
        if its_data is None or its_images is None:
            continue
        if data is not None and its_data.get("sha256") != data.get("sha256"):
            raise RunError(f"{folder / cell.name} was made with other images than the rest.")
        data = data or its_data
        known = tested.setdefault(fold_of(run), its_images)
        # Runs from before their places were written tell the true classes only.
        if any(known[key] != its_images[key] for key in known.keys() & its_images.keys()):
            raise RunError(f"{folder / cell.name} was tested on other images than the rest.")
        tested[fold_of(run)] = known | its_images
    if data is None:
        raise RunError(f"no run in {folder} has finished yet.")
    return {**study, "data": data, "tested": tested, "runs": runs}


def load(path: Path) -> Record:
    """A record from a study's folder, or from a JSON file that was made of one."""
    record = collect(path) if path.is_dir() else _json(path)
    if not isinstance(record, dict) or not {"preset", "runs", "data", "tested"} <= record.keys():
        raise ConfigError(f"{path} is neither a study's folder nor a record of one.")
    check(record, path)
    return record


def join(records: Sequence[Record]) -> Record:
    """One record of the runs of several, made alike: with the same flags and data.

    Of a run that several have the best state counts, one that was examined before one that was
    not, and the first of equals. Raises `ConfigError`
    for records that were not made alike.
    """
    first = records[0]
    for record in records[1:]:
        for what, mine, its in (
            ("flags", " ".join(first["flags"]), " ".join(record["flags"])),
            ("data", first["data"]["sha256"], record["data"]["sha256"]),
        ):
            if mine != its:
                raise ConfigError(
                    f"the {what} of {record['preset']} are not those of {first['preset']} "
                    f"({its} and {mine}): they cannot be joined."
                )
    rank = lambda run: (STATES.index(run["status"]), "examined" not in run)
    runs: dict[tuple, Record] = {}
    for run in (run for record in records for run in record["runs"]):
        known = runs.setdefault(key_of(run), run)
        if rank(run) < rank(known):
            runs[key_of(run)] = run
    sessions = [session for record in records for session in record["sessions"]]
    presets = dict.fromkeys(name for one in records for name in one["preset"].split("+"))
    return {
        **first,
        "preset": "+".join(presets),
        "sessions": [s for i, s in enumerate(sessions) if s not in sessions[:i]],
        "tested": {k: v for record in reversed(records) for k, v in record["tested"].items()},
        "runs": list(runs.values()),
    }


def text(record: Record) -> str:
    """The record as JSON, a line a run: small, and readable as a diff."""
    head = {key: value for key, value in record.items() if key != "runs"}
    lines = ",\n".join(json.dumps(run, separators=(",", ":")) for run in record["runs"])
    return json.dumps(head, indent=1)[:-2] + f',\n "runs": [\n{lines}\n]}}\n'


def states(record: Record) -> dict[str, int]:
    """How many runs there are of each state, those with a second name counted once."""
    found = dict.fromkeys(STATES, 0)
    for run in record["runs"]:
        found[run["status"]] += not run.get("again")
    return found


def key_of(run: Record) -> tuple[str, int, int | None]:
    """What tells a run from the others of a record: variant, seed and fold."""
    return run["variant"], run["seed"], run.get("fold")


def fold_of(run: Record) -> str:
    """The key of a run's test images in `tested`."""
    fold = run.get("fold")
    return "all" if fold is None else str(fold)


def _run(folder: Path, cell: Cell) -> tuple[Record, Record | None, Record | None]:
    """One run of the record; the data it was trained on and its test images, if it is done."""
    path = folder / cell.name
    run: Record = {"variant": cell.variant.name, "seed": cell.seed}
    if cell.fold is not None:
        run["fold"] = cell.fold
    summary, config = summary_of(path), _json(path / "config.json")
    predictions, rows = _json(path / "predictions.json"), _rows(path / "metrics.jsonl")
    if "test_error" not in summary or not config or not predictions or rows is None:
        return run | _why(folder, cell, summary), None, None
    run |= {
        "status": "done",
        "commit": config["git_commit"],
        "device": config["device"],
        "summary": {key: rounded(summary[key]) for key in SUMMARY if key in summary},
        "rows": [{key: rounded(row[key], 5) for key in ROW if key in row} for row in rows],
        "wrong": compact.mistakes(predictions["predicted"], predictions["true"]),
    }
    if "loss" in predictions:
        run["loss"] = compact.pack_losses(np.array(predictions["loss"]))
    if "flags" in config:
        run["rate"] = config["flags"]["training"]["lr"]
    if examined := _json(path / "examined.json"):
        run["examined"] = rounded(examined)
    elif cell.examined:
        run["examination"] = _last_line(folder / "logs" / f"{cell.name}.log")
    images = {"true": predictions["true"]}
    if "rows" in predictions:
        images["rows"] = compact.pack(np.array(predictions["rows"]))
    data = config["data"] | {"title": config["data"]["title"].partition(" (fold ")[0]}
    return run, data, images


def _why(folder: Path, cell: Cell, summary: dict[str, Any]) -> dict[str, str]:
    if summary.get("failed"):
        return {"status": "failed", "reason": _without_paths(summary["failed"])}
    if not (folder / cell.name).exists():
        return {"status": "missing", "reason": "not begun"}
    return {"status": "unfinished", "reason": _last_line(folder / "logs" / f"{cell.name}.log")}


def rounded(value: Any, digits: int = 6) -> Any:
    """Numbers with so many significant digits, in lists and dictionaries too."""
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item, digits) for item in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def _last_line(log: Path) -> str:
    return _without_paths(last_line(log)) or "it left no word"


def _without_paths(text: str) -> str:
    """Absolute paths shortened to their last part: a record is read elsewhere."""
    return " ".join(
        word.rstrip("/").rsplit("/", 1)[-1] if word.startswith("/") else word
        for word in text.split()
    )


def summary_of(run: Path) -> dict[str, Any]:
    """What a run's summary.json says; nothing if there is none that can be read."""
    found = _json(run / "summary.json")
    return found if isinstance(found, dict) else {}


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
