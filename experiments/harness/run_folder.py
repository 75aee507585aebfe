"""The run folder: configuration, metrics, checkpoints and summary, whole at every moment.

`checkpoints/index.json` is the one point of commitment. An epoch is first written beside what is
there (a new checkpoint folder, a longer metrics.jsonl) and exists once the index names it; what
the index does not name is removed when the run is next opened. Each file is replaced as a whole.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import AcquireReturnProxy

from experiments.harness.errors import RunError
from experiments.harness.files import lock_folder, read_object, require, sync_tree, write_atomic
from experiments.harness.provenance import keep_changes

# What the index has once an epoch is saved.
SAVED = {"last": str, "best": str, "best_epoch": int}


class RunFolder:
    """One run's folder, locked against other processes while it is open."""

    def __init__(self, path: Path, lock: AcquireReturnProxy, index: dict[str, Any]):
        self.path = path
        self._lock = lock
        self._index = index

    @classmethod
    def create(cls, path: Path, config: dict[str, Any]) -> RunFolder:
        """Make a new folder with its config.json; `RunError` if it is not empty or not writable.

        A `git_commit` in `config` that is dirty is kept with its changes.diff.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            if (path / "config.json").exists():
                raise RunError(
                    f"{path} already holds a run; continue it with --resume or choose another "
                    "--out."
                )
            if any(path.iterdir()):
                raise RunError(f"{path} is not empty; choose another folder with --out.")
            run = cls(path, lock_folder(path), {})
            run.write_json("config.json", config)
            keep_changes(path, config.get("git_commit"))
            (path / "checkpoints").mkdir()
        except OSError as error:
            raise RunError(
                f"the run folder {path} cannot be written ({error.strerror}); choose another with "
                "--out."
            ) from None
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open a folder that `create` made, as its last committed epoch left it."""
        if not (path / "config.json").is_file():
            raise RunError(f"{path} holds no run (it has no config.json).")
        try:
            run = cls(path, lock_folder(path), {})
            (path / "checkpoints").mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(f"the run folder {path} cannot be written ({error.strerror}).") from None
        if (path / "checkpoints" / "index.json").exists():
            run._index = run.read_json("checkpoints/index.json", {"epoch": int})
            if run.epoch:
                require(run._index, SAVED, path / "checkpoints" / "index.json")
        return run

    def resume(self, config: dict[str, Any]) -> None:
        """Replace config.json by that of a run that goes on, which adds to the `commands` in it.

        The code it goes on with is kept as `create` keeps it, if it is dirty.
        """
        commands = self.read_json("config.json", {"commands": list})["commands"]
        commands = commands + config["commands"]
        self.write_json("config.json", config | {"commands": commands})
        keep_changes(self.path, config.get("git_commit"), f"changes-epoch-{self.epoch:04d}.diff")

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock."""
        self._lock.lock.release()

    @property
    def epoch(self) -> int:
        """Number of epochs that are finished and saved."""
        return self._index.get("epoch", 0)

    @property
    def last(self) -> Path | None:
        """Checkpoint after the last saved epoch."""
        return self._checkpoint("last")

    @property
    def best(self) -> Path | None:
        """Checkpoint of the epoch that was selected, the run's result (see `commit_epoch`)."""
        return self._checkpoint("best")

    @property
    def best_epoch(self) -> int | None:
        """The epoch of `best`."""
        return self._index.get("best_epoch")

    def finished(self, epochs: int) -> bool:
        """Whether all `epochs` are saved and summarised."""
        try:
            summary = self.read_json("summary.json")
        except RunError:  # not there yet, or damaged: it is written again
            return False
        return self.epoch == epochs == summary.get("epochs")

    def rewind(self) -> list[dict[str, Any]]:
        """Drop what was written after the last committed epoch; return that run's metrics."""
        rows = self._rows()[: self.epoch]
        if [row.get("epoch") for row in rows] != list(range(1, self.epoch + 1)):
            raise RunError(
                f"{self.path / 'metrics.jsonl'} is damaged: a line of each epoch from 1 to "
                f"{self.epoch} expected."
            )
        self._write_rows(rows)
        self._index.pop("stopped", None)
        self._remove_unreferenced()
        return rows

    def commit_epoch(
        self, row: dict[str, Any], save: Callable[[Path], None], score: str | None = None
    ) -> None:
        """Add an epoch: its metrics (with `epoch` and `score`) and the state `save` writes.

        `score` names the metric whose lowest value selects an epoch, the earliest of equals;
        without one the last is selected.
        """
        name = f"epoch-{row['epoch']:04d}"
        rows = [*self._rows(), row]
        self._save(name, save)
        self._write_rows(rows)
        best = min(rows, key=lambda r: (_or_infinity(r.get(score)), r["epoch"])) if score else row
        self._index = {
            "last": name,
            "best": f"epoch-{best['epoch']:04d}",
            "epoch": row["epoch"],
            "best_epoch": best["epoch"],
        }
        self.write_json("checkpoints/index.json", self._index)
        self._remove_unreferenced()

    def save_stopped(self, epoch: int, step: int, save: Callable[[Path], None]) -> Path:
        """Keep the state of a run that failed inside an epoch, beside its best and last."""
        name = f"stopped-epoch-{epoch:04d}-step-{step:04d}"
        path = self._save(name, save)
        self._index = {"epoch": self.epoch, **self._index, "stopped": name}
        self.write_json("checkpoints/index.json", self._index)
        return path

    def read_json(self, name: str, kinds: Mapping[str, type] | None = None) -> dict[str, Any]:
        """A JSON object of the run, with what `kinds` names; see `files.read_object`."""
        return read_object(self.path / name, kinds)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the run, replacing it as a whole."""
        with self._writing():
            write_atomic(self.path / name, json.dumps(_finite(value), indent=2) + "\n")

    def _checkpoint(self, key: str) -> Path | None:
        name = self._index.get(key)
        return self.path / "checkpoints" / name if name else None

    def _save(self, name: str, save: Callable[[Path], None]) -> Path:
        path = (self.path / "checkpoints" / name).absolute()
        shutil.rmtree(path, ignore_errors=True)
        with self._writing():
            save(path)
            sync_tree(path)
        return path

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn a full disk or a folder that is gone or read-only into a `RunError`."""
        try:
            yield
        except OSError as error:
            raise RunError(
                f"the run folder {self.path} cannot be written ({error.strerror or error}); what "
                "was saved before is kept, and --resume goes on from there."
            ) from error

    def _rows(self) -> list[dict[str, Any]]:
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        try:
            rows = [json.loads(line) for line in path.read_text().splitlines()]
        except ValueError as error:
            raise RunError(f"{path} cannot be read: {error}.") from None
        if not all(isinstance(row, dict) for row in rows):
            raise RunError(f"{path} is damaged: JSON objects expected.")
        return rows

    def _write_rows(self, rows: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(_finite(row)) + "\n" for row in rows)
        with self._writing():
            write_atomic(self.path / "metrics.jsonl", lines)

    def _remove_unreferenced(self) -> None:
        kept = {self._index.get(key) for key in ("last", "best", "stopped")} | {"index.json"}
        for path in (self.path / "checkpoints").iterdir():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def selected_checkpoint(path: Path) -> Path:
    """Weights that are the result of the run in `path`, which may be in use; `RunError` if none."""
    index = path / "checkpoints" / "index.json"
    if not index.exists():
        raise RunError(f"{path} holds no run with a checkpoint.")
    return index.parent / read_object(index, {"best": str})["best"]


def default_folder(dataset: str, model: str, framework: str, seed: int) -> Path:
    """`runs/mnist-odenet-jax-seed0-20250131-120000` in the current folder."""
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{dataset.replace('_', '-')}-{model}-{framework}-seed{seed}-{time}"


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity: they become null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def nan_for_null(value: Any) -> Any:
    """What `RunFolder.write_json` wrote and JSON gives back, with NaN for null."""
    if isinstance(value, dict):
        return {key: nan_for_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [nan_for_null(item) for item in value]
    return math.nan if value is None else value


def _or_infinity(value: float | None) -> float:
    return math.inf if value is None or math.isnan(value) else value
