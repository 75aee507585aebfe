"""Flags of a command as nested dataclasses: parsing, saving, comparing; the same for every job.

A configuration is a frozen dataclass of groups, each a frozen dataclass of flags. A flag of type
`Path` is saved as text and read back as a path.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import math
import re
import sys
import typing
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from experiments.harness.errors import ConfigError

Flags = TypeVar("Flags")


def parse(prog: str, examples: str, arguments: Sequence[str], default: Flags) -> Flags:
    """Flags to a configuration of `default`'s type; flags not given come from `default`.

    Raises `ConfigError` for a flag or value that does not parse; `--help` prints and exits.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                type(default),
                prog=prog,
                args=list(arguments),
                default=default,
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as exit_:
        if exit_.code in (0, None):
            print(examples, flush=True)
            sys.exit(0)
    raise ConfigError(_first_sentence(errors.getvalue()))


def named(metavar: str, default: str) -> Any:
    """What `--help` shows of a flag: what it takes, and its default in words."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


def to_json(config: Any) -> dict[str, Any]:
    """Nested dictionary of JSON values; `from_json` is the inverse."""
    return {
        group: {key: str(v) if isinstance(v, Path) else v for key, v in values.items()}
        for group, values in dataclasses.asdict(config).items()
    }


def from_json(kind: type[Flags], saved: dict[str, Any]) -> Flags:
    """Inverse of `to_json`. Raises `ConfigError` for what another version wrote."""
    try:
        groups = {}
        for field in dataclasses.fields(kind):  # type: ignore[arg-type]
            group = typing.cast(type, type(field.default))
            values = dict(saved[field.name])
            for key, annotation in typing.get_type_hints(group).items():
                of_path = Path in (annotation, *typing.get_args(annotation))
                if of_path and values.get(key) is not None:
                    values[key] = Path(values[key])
            groups[field.name] = group(**values)
        return kind(**groups)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"the saved configuration was written by another version: {error}."
        ) from None


def contradictions(saved: Any, given: Any, free: Collection[str]) -> list[str]:
    """Flags in which `given` departs from `saved` and which are not `free` to change.

    The group `run` (where results go) is not compared.
    """
    found = []
    for group in dataclasses.fields(saved):
        if group.name == "run":
            continue
        before, after = getattr(saved, group.name), getattr(given, group.name)
        for field in dataclasses.fields(before):
            old, new = getattr(before, field.name), getattr(after, field.name)
            if field.name not in free and old != new:
                flag = "model" if field.name == "name" else field.name.replace("_", "-")
                found.append(f"--{flag} {new} (the run has {old})")
    return found


@contextlib.contextmanager
def complaints() -> Iterator[None]:
    """A ValueError about a flag's value, such as a framework raises, as `ConfigError`."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{error}.") from None


def check_resumed(saved: Any, given: Any, free: Collection[str]) -> None:
    """Raise `ConfigError` if a run with `saved` flags cannot go on with the `given` ones."""
    clashes = contradictions(saved, given, free)
    if clashes:
        raise ConfigError(
            f"a run keeps its flags, but {', '.join(clashes)} differs; start a new run instead."
        )
    if given.training.epochs < saved.training.epochs:
        raise ConfigError(
            f"--epochs {given.training.epochs} is less than the run's {saved.training.epochs}; "
            "it may only grow."
        )


def positive(flag: str, value: float | None) -> None:
    """Raise `ConfigError` unless `value` is a finite number above 0."""
    if value is None or not (value > 0 and math.isfinite(value)):
        raise ConfigError(f"{flag} is {value}; a number above 0 expected.")


def at_least_zero(flag: str, value: float) -> None:
    """Raise `ConfigError` unless `value` is a finite number of at least 0."""
    if not (value >= 0 and math.isfinite(value)):
        raise ConfigError(f"{flag} is {value}; a number of at least 0 expected.")


def at_least(flag: str, value: int | None, least: int = 1) -> None:
    """Raise `ConfigError` if there is a `value` and it is below `least`."""
    if value is not None and value < least:
        raise ConfigError(f"{flag} is {value}; a whole number of at least {least} expected.")


def counts(group: Any, *names: str, least: int = 1) -> None:
    """`at_least` for the flags of these names in a group."""
    for name in names:
        at_least(f"--{name.replace('_', '-')}", getattr(group, name), least)


def fraction(flag: str, value: float) -> None:
    """Raise `ConfigError` unless `value` is at least 0 and below 1."""
    if not 0 <= value < 1:
        raise ConfigError(f"{flag} is {value}; at least 0 and below 1 expected.")


def check_warmup(epochs_of_warmup: float, epochs: int) -> None:
    """Raise `ConfigError` for a warm-up that does not end before the run does."""
    if not 0 <= epochs_of_warmup < epochs:
        raise ConfigError(
            f"--warmup is {epochs_of_warmup:g}; at least 0 and below --epochs ({epochs}) expected."
        )


def check_seed(seed: int) -> None:
    """Raise `ConfigError` unless `seed` is what both frameworks take."""
    if not 0 <= seed < 2**32:
        raise ConfigError(f"--seed is {seed}; 0 to {2**32 - 1} expected.")


def _first_sentence(box: str) -> str:
    """The first paragraph in tyro's error box, below its title; of what is missing, the names.

    Where the terminal has no box characters, a rule of hyphens is under the title.
    """
    lines = [line[2:].rstrip("│ ") for line in box.splitlines() if line[:1] not in ("╭", "╰")]
    if "╭" not in box:
        lines = lines[2:]
    message = list(itertools.takewhile(lambda line: set(line) - set("─-"), lines))
    if message and message[0].startswith("Missing from"):
        names = [line.strip() for line in message if re.match(r" {4}\S", line)]
        return f"required: {', '.join(names)}; see --help."
    sentence = " ".join(line.strip() for line in message) or "the flags cannot be read"
    return sentence.rstrip(".") + "; see --help."
