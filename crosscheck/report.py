"""The findings in the terminal, as report.json, as report.html with figures, as summary.md."""

from __future__ import annotations

import base64
import html
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from crosscheck import figures
from crosscheck.check import Check, margin, verdict
from crosscheck.suite import Findings

PACKAGES = ("numpy", "jax", "flax", "diffrax", "optax", "torch", "torchdiffeq")
FOR_PAGES = ("agreement", "gradient-tolerance", "breakdown", "training")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1b1b; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-size: 13px; width: 100%; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #e3e3e3;
         vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.pass { color: #1a7f37; } .fail { color: #c22; font-weight: 600; } .none { color: #666; }
figure { margin: 1rem 0; } figure img { max-width: 100%; } figcaption { color: #555; }
details > summary { cursor: pointer; margin: .5rem 0; }
"""


def print_checks(checks: list[Check], console: Console) -> None:
    """A row for each group and pair of sides, with its check nearest to failing; then failures."""
    table = Table(title="JAX against PyTorch", title_justify="left")
    for name in ("group", "left", "right"):
        table.add_column(name)
    for name in ("checks", "failed", "value", "bound"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("where it comes nearest to its bound")
    previous = None
    for (group, left, right), members in grouped(checks).items():
        worst = max(members, key=margin)
        failed = sum(not check.passed for check in members)
        if previous not in (None, group):
            table.add_section()
        table.add_row(
            "" if group == previous else group,
            left,
            right,
            str(len(members)),
            f"[red]{failed}[/red]" if failed else "0",
            f"{worst.value:.2g}",
            bound(worst),
            worst.case,
        )
        previous = group
    console.print(table)
    failures = [check for check in checks if not check.passed]
    for check in failures:
        console.print(f"FAIL {check.describe()}", style="red", highlight=False, soft_wrap=True)
    console.print(verdict(checks), style="bold red" if failures else "bold green")


def grouped(checks: list[Check]) -> dict[tuple[str, str, str], list[Check]]:
    """Checks by group and sides, groups in the order of their first appearance."""
    order = list(dict.fromkeys(check.group for check in checks))
    groups: dict[tuple[str, str, str], list[Check]] = {}
    for check in sorted(checks, key=lambda check: order.index(check.group)):
        groups.setdefault((check.group, check.left, check.right), []).append(check)
    return groups


def bound(check: Check) -> str:
    """A check's bound in short."""
    if check.bound is None:
        return "-"
    return f"{'≥' if check.at_least else '≤'} {check.bound:.2g}"


def to_json(findings: Findings) -> dict[str, Any]:
    """Contents of report.json."""
    return {
        "passed": not findings.failures,
        "settings": findings.settings,
        "environment": environment(),
        "seconds": {name: round(value, 2) for name, value in findings.seconds.items()},
        "cpu_seconds": {name: round(value, 2) for name, value in findings.cpu_seconds.items()},
        "checks": [check.to_json() for check in findings.checks],
        "solves": [pair.row() for pair in findings.pairs],
        "gradient_nfe": [
            {
                "case": square.label,
                "method": name,
                "forward": run.nfe_forward,
                "backward": run.nfe_backward,
            }
            for square in findings.squares
            for name, run in square.runs.items()
        ],
    }


def environment() -> dict[str, Any]:
    """Versions of Python and packages, machine, and commit (`-dirty` if changed; None without)."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(
            [*git, "--abbrev=40", "--exclude", "*"], capture_output=True, text=True, timeout=10
        )
        commit = done.stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        commit = None
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "git_commit": commit,
    }


def write(findings: Findings, folder: Path) -> None:
    """Write report.json, report.html, summary.md and some of the figures into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = to_json(findings)
    pictures = figures.pictures(findings)
    _write(folder / "report.json", json.dumps(content, indent=1) + "\n")
    _write(folder / "report.html", to_html(findings, content, pictures))
    _write(folder / "summary.md", to_markdown(findings, content))
    for picture in pictures:
        if picture.name in FOR_PAGES:
            _write(folder / f"{picture.name}.png", picture.png)


def to_markdown(findings: Findings, content: dict[str, Any]) -> str:
    """The checks in short, as `experiments/pages.py` puts it into a page.

    A row for each section and reason of a bound, with the check that comes nearest to it.
    """
    rows: dict[tuple[str, str], list[Check]] = {}
    for members in grouped(findings.checks).values():
        for check in members:
            rows.setdefault((check.group, re.sub(r"[\d.e+-]+", "", check.reason)), []).append(check)
    lines = [
        "| section | checks | failed | nearest to its bound | value | bound | why this bound |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (group, _), members in rows.items():
        worst = max(members, key=margin)
        failed = sum(not check.passed for check in members)
        value, limit = f"{worst.value:.1e}", bound(worst)
        if worst.quantity != "relative error":
            value += f" ({worst.quantity.partition(' (')[0]})"
        cells = (group, len(members), failed, worst.case, value, limit, worst.reason)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    cpu = sum(content["cpu_seconds"].values())
    quick = " --quick" if findings.settings["quick"] else ""
    environment = content["environment"]
    lines += [
        "",
        f"`python -m crosscheck{quick}`: {len(findings.checks)} checks, "
        f"{len(findings.failures)} failed; {findings.elapsed:.0f} s, {cpu:.0f} s of a core, "
        f"{environment['cpu_count']} cores, {environment['platform']}, "
        f"commit {(environment['git_commit'] or 'unknown')[:10]}; "
        + ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
        + ".",
        "",
    ]
    return "\n".join(lines)


def to_html(findings: Findings, content: dict[str, Any], pictures: list[figures.Plate]) -> str:
    """One page that needs nothing else: figures are inside it."""
    escape = html.escape
    versions = ", ".join(f"{k} {v}" for k, v in content["environment"]["versions"].items())
    state = "fail" if findings.failures else "pass"
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>JAX against PyTorch</title>",
        f"<style>{STYLE}</style><h1>JAX against PyTorch</h1>",
        f'<p class="{state}">{verdict(findings.checks).capitalize()}.</p>',
        f"<p>{escape(versions)}</p>",
    ]
    for check in findings.failures:
        parts.append(f'<p class="fail">{escape(check.describe())}</p>')
    parts.append("<h2>Summary</h2>")
    parts.append(_table([max(group, key=margin) for group in grouped(findings.checks).values()]))
    parts.append("<p>The check nearest to its bound of each group and pair; all are below.</p>")
    for picture in pictures:
        title, image = escape(picture.title), base64.b64encode(picture.png).decode()
        parts.append(
            f'<h2>{title}</h2><figure><img alt="{title}" src="data:image/png;base64,{image}">'
            f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
        )
    parts.append("<h2>Evaluations and steps</h2>")
    parts.append(_dictionaries(content["solves"]))
    parts.append("<h2>All checks</h2>")
    for group in dict.fromkeys(check.group for check in findings.checks):
        rows = [check for check in findings.checks if check.group == group]
        parts.append(f"<details><summary>{escape(group)} ({len(rows)})</summary>{_table(rows)}")
        parts.append("</details>")
    return "\n".join(parts) + "</html>\n"


def _write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(temporary, path)


def _table(checks: list[Check]) -> str:
    head = "<tr><th>group<th>case<th>left<th>right<th>measured<th>value<th>bound<th><th>why</tr>"
    rows = []
    for check in checks:
        state = "none" if check.bound is None else "pass" if check.passed else "fail"
        text = [check.group, check.case, check.left, check.right, check.quantity]
        cells = "".join(f"<td>{html.escape(value)}" for value in text)
        rows.append(
            f"<tr>{cells}<td class=number>{check.value:.3g}<td class=number>{bound(check)}"
            f"<td class={state}>{state}<td>{html.escape(check.reason)}</tr>"
        )
    return f"<table>{head}{''.join(rows)}</table>"


def _dictionaries(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(name)}" for name in rows[0])
    show = lambda v: "" if v is None else f"{v:.2g}" if isinstance(v, float) else str(v)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(show(value))}" for value in row.values()) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
