"""The report's figures."""

from __future__ import annotations

from crosscheck.suite import Findings


def all_figures(findings: Findings) -> list[tuple[str, str, str]]:
    """Title, caption and PNG (base64) of every figure there is material for."""
    return []
