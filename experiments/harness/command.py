"""What every command does around its job: compiled programs kept, errors as one sentence."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from experiments.harness import malloc
from experiments.harness.errors import ConfigError, DataError, RunError, RunFailedError

Main = Callable[..., int]

# Parameters of the libraries that are flags here.
FLAGS = {"learning_rate": "lr"} | {
    name: name.replace("_", "-")
    for name in (
        "solver", "adjoint", "rtol", "atol", "step_size", "max_steps", "optimizer", "precision",
        "device",
    )
}  # fmt: skip


def in_flags(message: str) -> str:
    """A library's message with its parameters, in backticks, as this command's flags."""

    def flag(found: re.Match) -> str:
        value = "" if found[2] is None else f" {found[2]}"
        return f"--{FLAGS[found[1]]}{value}"

    return re.sub(rf"`({'|'.join(FLAGS)})(?:='?([^`']*)'?)?`", flag, message)


def command(
    prog: str,
    run: Callable[[list[str], Console], None],
    *,
    usage: str | None = None,
    interrupted: str = "--resume goes on from the last finished epoch",
    keep_programs: bool = True,
) -> Main:
    """The `main` of a command: runs the command line, or its `arguments`.

    It returns the exit code: 0, 1 for a failed run, 2 for bad input. `usage` is what `--help`
    prints where no parser of flags does. With `keep_programs` only the first run on a machine waits
    for JAX to compile.
    """

    def main(arguments: Sequence[str] | None = None) -> int:
        if arguments is None:
            malloc.restart_with_kept_memory()
        given = list(sys.argv[1:] if arguments is None else arguments)
        if keep_programs:
            cache = Path.home() / ".cache" / "neural-ode" / "jax"
            os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
        console = Console(width=None if sys.stdout.isatty() else 120)
        try:
            if usage and {"-h", "--help"} & set(given):
                print(usage)
            else:
                run(given, console)
            sys.stdout.flush()
        except BrokenPipeError:  # who read this, say head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        except (ConfigError, DataError, RunError, RunFailedError) as error:
            print(f"{prog}: {in_flags(str(error))}", file=sys.stderr)
            return 1 if isinstance(error, RunFailedError) else 2
        except KeyboardInterrupt:
            print(f"{prog}: interrupted; {interrupted}.", file=sys.stderr)
            return 130
        return 0

    return main


def say(console: Console, topic: str, text: str) -> None:
    """Print one line of the header."""
    show(console, f"{topic:9s} {text}")


def show(console: Console, text: str) -> None:
    """Print text as it is."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)
