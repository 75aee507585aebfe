"""What a record of a study has to hold, for one that was cut or written by hand to be refused."""

from __future__ import annotations

from numbers import Real
from typing import Any

from experiments.harness.errors import RunError
from experiments.harness.files import require

# `failed` of itself, as it would again; `unfinished` while it is under way, or was stopped.
STATES = ("done", "failed", "unfinished", "missing")
RECORD = {"preset": str, "flags": list, "sessions": list, "data.sha256": str, "data.title": str,
          "tested": dict, "runs": list}  # fmt: skip
SESSION = {"jobs": int, "cores": int}
RUN = {"variant": str, "seed": int, "status": str}
DONE = {"commit": object, "device": str, "summary.test_error": Real, "rows": list, "wrong": str}
EXAMINED = {
    "images": {"kind": str, "amount": object, "test_error": Real},
    "solvers": {"solver": str, "tolerance": object, "step_size": object, "nfe_forward": Real,
                "test_error": Real, "logit_error": Real},
}  # fmt: skip


def check(record: Any, where: Any) -> None:
    """Raise `RunError`, naming `where` and what is missing, unless `record` is sound."""
    require(record, RECORD, where)
    if not record["sessions"]:
        raise RunError(f"{where} is damaged: it has no session.")
    for session in record["sessions"]:
        require(session, SESSION, f"a session in {where}")
    for number, run in enumerate(record["runs"], start=1):
        name = f"run {number} in {where}"
        require(run, RUN, name)
        if run["status"] not in STATES:
            raise RunError(f"{name} is damaged: its status is {run['status']!r}.")
        if run["status"] != "done":
            continue
        require(run, DONE, name)
        fold = run.get("fold")
        require(record["tested"], {f"{'all' if fold is None else fold}.true": str}, where)
        for part, kinds in EXAMINED.items():
            if "examined" in run:
                require(run, {f"examined.{part}": list}, name)
                for row in run["examined"][part]:
                    require(row, kinds, f"{part} examined of {name}")
