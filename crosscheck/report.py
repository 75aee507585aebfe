"""The findings as a table in the terminal, as report.json, and as report.html with figures."""

from __future__ import annotations

import html
import importlib.metadata
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from crosscheck import figures
from crosscheck.check import Check
from crosscheck.suite import Findings

PACKAGES = ("jax", "flax", "diffrax", "optax", "torch", "torchdiffeq", "numpy")
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
    """A row for each group and pair of sides, worst first within its bound; then each failure."""
    table = Table(title="JAX against PyTorch", title_justify="left")
    for name in ("group", "left", "right"):
        table.add_column(name)
    for name in ("checks", "failed", "worst", "bound", "closest to its bound"):
        table.add_column(name, justify="left" if name.startswith("closest") else "right")
    for (group, left, right), members in grouped(checks).items():
        worst = max(members, key=margin)
        failed = sum(not check.passed for check in members)
        table.add_row(
            group,
            left,
            right,
            str(len(members)),
            f"[red]{failed}[/red]" if failed else "0",
            f"{worst.value:.2g}",
            bound(worst),
            worst.case,
        )
    console.print(table)
    failures = [check for check in checks if not check.passed]
    for check in failures:
        console.print(f"FAIL {check.describe()}", style="red", highlight=False, soft_wrap=True)
    verdict = (
        f"{len(failures)} of {len(checks)} checks exceed their bounds"
        if failures
        else f"all {len(checks)} checks are within their bounds"
    )
    console.print(verdict, style="bold red" if failures else "bold green")


def grouped(checks: list[Check]) -> dict[tuple[str, str, str], list[Check]]:
    """Checks by group and sides, in the order of their first appearance."""
    groups: dict[tuple[str, str, str], list[Check]] = {}
    for check in checks:
        groups.setdefault((check.group, check.left, check.right), []).append(check)
    return groups


def margin(check: Check) -> float:
    """How near a check is to its bound, above 1 beyond it."""
    if check.bound is None:
        return 0.0
    if check.at_least:
        return check.bound / max(check.value, 1e-300)
    return check.value / check.bound if check.bound else float(check.value > 0) * 1e300


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
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "seconds": {name: round(value, 2) for name, value in findings.seconds.items()},
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


def write(findings: Findings, folder: Path) -> None:
    """Write report.json, report.html and its figures into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = to_json(findings)
    (folder / "report.json").write_text(json.dumps(content, indent=1) + "\n")
    (folder / "report.html").write_text(to_html(findings, content))


def to_html(findings: Findings, content: dict[str, Any]) -> str:
    """One page that needs nothing else: figures are inside it."""
    escape = html.escape
    verdict = (
        f'<p class="fail">{len(findings.failures)} of {len(findings.checks)} checks exceed their '
        "bounds.</p>"
        if findings.failures
        else f'<p class="pass">All {len(findings.checks)} checks are within their bounds.</p>'
    )
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>JAX against PyTorch</title>",
        f"<style>{STYLE}</style><h1>JAX against PyTorch</h1>",
        verdict,
        "<p>" + escape(", ".join(f"{k} {v}" for k, v in content["versions"].items())) + "</p>",
    ]
    for check in findings.failures:
        parts.append(f'<p class="fail">{escape(check.describe())}</p>')
    parts.append("<h2>Summary</h2>")
    parts.append(_table([max(group, key=margin) for group in grouped(findings.checks).values()]))
    parts.append("<p>The check nearest to its bound of each group and pair; all are below.</p>")
    for title, caption, image in figures.all_figures(findings):
        parts.append(
            f'<h2>{escape(title)}</h2><figure><img alt="{escape(title)}" '
            f'src="data:image/png;base64,{image}"><figcaption>{escape(caption)}</figcaption>'
            "</figure>"
        )
    parts.append("<h2>Evaluations and steps</h2>")
    parts.append(_dictionaries(content["solves"]))
    parts.append("<h2>All checks</h2>")
    for group in dict.fromkeys(check.group for check in findings.checks):
        rows = [check for check in findings.checks if check.group == group]
        parts.append(f"<details><summary>{escape(group)} ({len(rows)})</summary>{_table(rows)}")
        parts.append("</details>")
    return "\n".join(parts) + "</html>\n"


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
