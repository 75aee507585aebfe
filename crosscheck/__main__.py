"""`python -m crosscheck`: compare the two frameworks, or convert a run from one to the other."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

# The machine's cores are shared by both frameworks' thread pools, whose idle threads spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

EXAMPLES = """examples:
  python -m crosscheck --quick            a minute: layers, fields, trajectories, gradients
  python -m crosscheck                    all of it, with float32, 200 training steps and more
  python -m crosscheck convert runs/mnist-odenet-jax-seed0-20250131-120000 --to torch
                                          a run that --framework torch goes on with

exit code: 0 all pairs agree, 1 a pair exceeds its bound, 2 bad input
"""


class Parser(argparse.ArgumentParser):
    """Complains in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        print(f"crosscheck: {message}; see --help.", file=sys.stderr)
        sys.exit(2)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    common = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    top = Parser(
        prog="python -m crosscheck",
        description="Do JAX (Flax, diffrax) and PyTorch (torchdiffeq) compute the same thing, how "
        "close, and if not, where do they part?",
        epilog=EXAMPLES,
        **common,  # type: ignore[arg-type]
    )
    top.add_argument("--quick", action="store_true", help="a selection, in less than a minute")
    top.add_argument(
        "--out",
        type=Path,
        default=Path("crosscheck-report"),
        metavar="FOLDER",
        help="where report.json and report.html go (default: crosscheck-report)",
    )
    commands = top.add_subparsers(dest="command", metavar="convert RUN --to jax|torch")
    convert = commands.add_parser(
        "convert",
        help="make a run folder (or a checkpoint) of one framework into one of the other",
        description="Convert weights, optimiser state and step count, so that --resume and "
        "--evaluate of the other framework go on from there.",
    )
    convert.add_argument("run", type=Path, metavar="RUN", help="run folder, or one checkpoint")
    convert.add_argument(
        "--to", choices=("jax", "torch"), required=True, help="the other framework"
    )
    convert.add_argument(
        "--out", type=Path, metavar="FOLDER", help="new folder (default: RUN-jax or RUN-torch)"
    )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    flags = parser().parse_args(arguments)
    if flags.command == "convert":
        from crosscheck.convert import ConvertError, convert

        try:
            out = convert(flags.run, flags.to, flags.out)
        except ConvertError as error:
            print(f"crosscheck: {error}", file=sys.stderr)
            return 2
        print(f"wrote {out}")
        config = out / "config.json"
        for change in json.loads(config.read_text())["changed"] if config.exists() else ():
            print(f"note: {change}")
        return 0
    return compare(flags.quick, flags.out)


def compare(quick: bool, out: Path) -> int:
    """Run the checks, print the table, write the reports."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(
            f"crosscheck: the folder {out} cannot be written ({error.strerror}); choose another "
            "with --out.",
            file=sys.stderr,
        )
        return 2
    import torch
    from rich.console import Console

    from crosscheck import report, suite

    # Small problems: a second thread costs more than it brings.
    torch.set_num_threads(1)
    console = Console(width=None if sys.stdout.isatty() else 150)
    findings = suite.run(quick, lambda name: console.print(f"{name} ...", style="dim"))
    report.print_checks(findings.checks, console)
    report.write(findings, out)
    console.print(
        f"{findings.elapsed:.0f} s; {out / 'report.html'}", soft_wrap=True, highlight=False
    )
    return 1 if findings.failures else 0


if __name__ == "__main__":
    sys.exit(main())
