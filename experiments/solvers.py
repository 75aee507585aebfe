"""Which solver, and why was implicit Adams unstable? `python experiments/solvers.py --help`."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from rich.console import Console
from tyro.conf import arg

from experiments.harness import flags
from experiments.harness.command import command, say
from experiments.harness.errors import ConfigError, RunError
from experiments.harness.files import read_object, write_atomic, writing
from experiments.harness.provenance import environment, short

PROG = "solvers.py"
USAGE = """usage: solvers.py PART [flags]

  precision   work and precision of ten solvers on 28 initial value problems
  clock       time beside evaluations, by the cost of one evaluation
  stability   the largest learning rate at which ODE-Net trains, solver by solver

`solvers.py PART --help` lists the flags. A folder keeps every finished cell of a part: the same
command goes on where it was stopped. `python experiments/pages.py docs/solvers.md PART=FOLDER` puts
tables and pictures into the page."""


@dataclasses.dataclass(frozen=True)
class Precision:
    """Global error and evaluations of the vector field, tolerance by tolerance, in float64."""

    decimals: Annotated[int, arg(metavar="N")] = 12
    """Tolerances from 1e-3 to 1e-N."""
    only: Annotated[tuple[str, ...], arg(metavar="NAME")] = ()
    """Only these problems (A1 ... E5, Pleiades, Arenstorf, Lotka-Volterra)."""
    methods: Annotated[tuple[str, ...], arg(metavar="NAME")] = ()
    """Only these methods, e.g. 'jax adams' 'scipy vode'; the tables are over all in the folder."""
    out: Annotated[Path, arg(metavar="FOLDER")] = Path("runs/solvers-precision")
    """Where cells, tables and pictures go."""
    smoke: bool = False
    """Two problems at three tolerances."""


@dataclasses.dataclass(frozen=True)
class Clock:
    """Seconds of a solve, by the cost of one evaluation of the field; for an idle machine."""

    decimals: Annotated[int, arg(metavar="N")] = 9
    """Tolerances 1e-3, 1e-5, ... to 1e-N."""
    most: Annotated[int, arg(metavar="MICROSECONDS")] = 10_000
    """The dearest field."""
    out: Annotated[Path, arg(metavar="FOLDER")] = Path("runs/solvers-clock")
    """Where cells and tables go."""
    smoke: bool = False
    """One problem, two tolerances, fields of up to 10 microseconds."""


@dataclasses.dataclass(frozen=True)
class Stability:
    """Train ODE-Net on 4,000 MNIST images with SGD at rising learning rates, method by method."""

    steps: Annotated[int, arg(metavar="N")] = 300
    """Training steps of a run."""
    batch_size: Annotated[int, arg(metavar="N")] = 32
    """Images per step."""
    every: Annotated[int, arg(metavar="N")] = 100
    """Training steps between two looks at field and gradient."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """Of weights and data order; the tables are over all seeds in the folder."""
    out: Annotated[Path, arg(metavar="FOLDER")] = Path("runs/solvers-stability")
    """Where runs, tables and pictures go."""
    smoke: bool = False
    """One method, three steps."""


SMOKE = {
    "precision": Precision(decimals=5, only=("A1", "Lotka-Volterra")),
    "clock": Clock(decimals=5, most=10),
    "stability": Stability(steps=3, batch_size=4, every=3),
}


class Cells:
    """Finished cells of a part, one JSON file each, all made with the same settings."""

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self.folder, self.settings = folder / "cells", settings
        with writing(folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        for cell in self.all():
            if cell["settings"] != settings:
                raise ConfigError(
                    f"{folder} holds results with {cell['settings']}, not {settings}; choose "
                    "another --out."
                )

    def get(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The cell of that name: read, or made and kept."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            text = json.dumps({"name": name, "settings": self.settings, **make()})
            write_atomic(path, text + "\n")
        return self._read(path)

    def all(self) -> list[dict[str, Any]]:
        """Every cell, by name."""
        return [self._read(path) for path in sorted(self.folder.glob("*.json"))]

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            return read_object(path, {"settings": dict})
        except RunError as error:
            raise RunError(f"{str(error).rstrip('.')}; delete it.") from None


def run(arguments: list[str], console: Console) -> None:
    """Everything `main` does, with errors as exceptions."""
    part = arguments[0] if arguments else "nothing"
    if part in ("-h", "--help"):
        print(USAGE)
        return
    parts: dict[str, tuple[Any, Callable[[Any, Console], None]]] = {
        "precision": (Precision(), precision),
        "clock": (Clock(), clock),
        "stability": (Stability(), stability),
    }
    if part not in parts:
        raise ConfigError(f"expected a part, precision, clock or stability, but was given {part}.")
    default, work = parts[part]
    base = SMOKE[part] if "--smoke" in arguments else default
    config: Any = flags.parse(f"{PROG} {part}", USAGE, arguments[1:], base)
    work(config, console)
    say(console, "run", f"{config.out}: results.json, summary.md and what pictures there are")


def precision(config: Any, console: Console) -> None:
    """Every method on every problem; methods in order, so that a stopped run has whole methods."""
    if not 4 <= config.decimals <= 14:
        raise ConfigError(f"--decimals is {config.decimals}; 4 to 14 expected.")
    import jax
    import torch

    from experiments.solving import precision as study
    from experiments.solving import precision_page, reference
    from experiments.solving.problems import problems

    known = {problem.name: problem for problem in problems()}
    if unknown := [name for name in config.only if name not in known]:
        raise ConfigError(f"--only {unknown[0]} is unknown; choose of {', '.join(known)}.")
    if unknown := [name for name in config.methods if name not in study.METHODS]:
        raise ConfigError(
            f"--methods {unknown[0]!r} is unknown; choose of {', '.join(study.METHODS)}."
        )
    jax.config.update("jax_enable_x64", True)
    torch.set_num_threads(1)  # states of at most 51 numbers
    tolerances = [10.0**-k for k in range(3, config.decimals + 1)]
    cells = Cells(config.out, {"decimals": config.decimals})
    chosen = config.only or tuple(known)
    among = tuple(known[name] for name in chosen)

    @functools.cache
    def exact(name: str) -> np.ndarray:
        return reference.solve(known[name])

    def one(name: str, method: str) -> dict[str, Any]:
        return study.cell(known[name], exact(name), method, tolerances, among)

    for method in config.methods or study.METHODS:
        for name in chosen:
            path = f"{method.replace(' ', '-')}-{name}"
            cells.get(path, functools.partial(one, name, method))
        say(console, "method", method)
    record(config.out, cells, precision_page.page(cells.all(), config.out), config)


def clock(config: Any, console: Console) -> None:
    """Every solver on three problems, one problem after the other."""
    if not 4 <= config.decimals <= 12:
        raise ConfigError(f"--decimals is {config.decimals}; 4 to 12 expected.")
    flags.at_least("--most", config.most)
    import jax

    from experiments.solving import clock as study
    from experiments.solving import reference
    from experiments.solving.problems import problems

    jax.config.update("jax_enable_x64", True)
    known = {problem.name: problem for problem in problems()}
    tolerances = [10.0**-k for k in range(3, config.decimals + 1, 2)]
    costs = [cost for cost in study.MICROSECONDS if cost <= config.most]
    cells = Cells(config.out, {"decimals": config.decimals, "most": config.most})
    turns = 2 if config.smoke else study.TURNS

    def one(name: str) -> dict[str, Any]:
        return study.cell(known[name], reference.solve(known[name]), tolerances, costs, turns)

    for name in study.PROBLEMS[: 1 if config.smoke else None]:
        cells.get(name, functools.partial(one, name))
        say(console, "problem", name)
    record(config.out, cells, study.report(cells.all()), config)


def stability(config: Any, console: Console) -> None:
    """Search the largest learning rate of every method, then of the variants of one."""
    flags.counts(config, "steps", "batch_size", "every")
    flags.check_seed(config.seed)
    from experiments.images import sources
    from experiments.solving import cases as ways
    from experiments.solving import stability as study
    from experiments.solving import stability_page

    settings = {k: getattr(config, k) for k in ("steps", "batch_size", "every")}
    cells = Cells(config.out, settings)
    dataset = sources.load("mnist", "embedded")
    look = study.Look(dataset, config.batch_size)
    cases = ways.METHODS[:1] if config.smoke else (*ways.METHODS, *ways.VARIANTS, ways.ADAM)
    for number, case in enumerate(cases):
        trainer = study.Trainer(case, config.batch_size, look)

        def one(lr: float, number=number, trainer=trainer) -> dict[str, Any]:
            cell = cells.get(
                f"{number:02d}-{lr:g}-seed{config.seed}",
                functools.partial(trainer, dataset, lr, config.seed, config.steps, config.every),
            )
            end = cell["failure"] or f"loss {cell['loss']:.3f}"
            say(console, f"{lr:g}", f"{cell['case']['name']}: {end}")
            return cell

        study.search(one)
    record(config.out, cells, stability_page.page(cells.all(), config.out), config)


def record(folder: Path, cells: Cells, text: str, config: Any) -> None:
    """Write results.json (all cells in one) and summary.md."""
    origin = environment({})
    results = {**origin, "settings": cells.settings, "cells": cells.all()}
    write_atomic(folder / "results.json", json.dumps(results) + "\n")
    settings = ", ".join(f"{name} {value}" for name, value in cells.settings.items())
    kind = type(config).__name__.lower()
    write_atomic(
        folder / "summary.md",
        f"{text}\n`python experiments/solvers.py {kind}`: {settings}, "
        f"commit {short(origin['git_commit'])}.\n",
    )


main = command(PROG, run)

if __name__ == "__main__":
    sys.exit(main())
