"""Stands in for mnist.py: makes a run folder in a moment, and fails as STUB_FAULTS says.

STUB_FAULTS is JSON: the name of a run to `crash`, `diverge`, `kill`, `hang`, `disk` or `nothing`.
"""

import errno
import json
import os
import signal
import sys
import time
from pathlib import Path

from experiments.harness import run_folder
from experiments.harness.errors import RunError
from experiments.harness.run_folder import RunFolder


def save(path):
    path.mkdir()
    (path / "state").write_text("state")


def full(*arguments, **keywords):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def main():
    given = sys.argv[1:]
    if "--resume" in given:
        folder = RunFolder.open(Path(given[given.index("--resume") + 1]))
    else:
        folder = RunFolder.create(Path(given[given.index("--out") + 1]), {"commands": [given]})
    with (folder.path.parent / "calls").open("a") as calls:
        calls.write(f"{folder.path.name} {'resume' if '--resume' in given else 'new'}\n")
    fault = json.loads(os.environ.get("STUB_FAULTS", "{}")).get(folder.path.name)
    rows = folder.rewind()
    if folder.last is not None and not (folder.last / "state").exists():
        raise RunError(f"{folder.last} does not fit this run: state is missing")
    for epoch in range(folder.epoch + 1, 3):
        if fault == "disk":
            run_folder.write_atomic = full
        row = {"epoch": epoch, "test_error": 10.0 / epoch}
        rows.append(row)
        folder.commit_epoch(row, save)
        if fault == "crash":
            raise ZeroDivisionError("an error nobody foresaw")
        if fault == "diverge":
            folder.write_json("summary.json", {"failed": "the loss is not finite", "epochs": 1})
            print("mnist.py: the loss is not finite", file=sys.stderr)
            sys.exit(1)
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "hang":
            time.sleep(60)
    if fault != "nothing":
        folder.write_json("summary.json", {"test_error": rows[-1]["test_error"], "epochs": 2})


if __name__ == "__main__":
    try:
        main()
    except RunError as error:
        print(f"mnist.py: {error}", file=sys.stderr)
        sys.exit(2)
