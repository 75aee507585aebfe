"""Tables in Markdown, and a page of it as one HTML file."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: left }
td:not(:first-child) { font-variant-numeric: tabular-nums }
img { max-width: 100% }
code { background: #f3f3f3; padding: .1rem .25rem }
"""


@dataclass(frozen=True)
class Table:
    """Cells are text already; `str` of it is Markdown."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        return table(self.headers, self.rows)


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown; floats with four significant digits."""
    text = lambda cell: f"{cell:.4g}" if isinstance(cell, float) else str(cell)
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join(f"| {' | '.join(map(text, line))} |\n" for line in lines)


def page(text: str, pictures: Path) -> str:
    """Markdown as HTML, with the PNG files that it shows inside, from the folder `pictures`."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    for image in (child for token in tokens for child in token.children or ()):
        if image.type == "image":
            content = (pictures / Path(str(image.attrs["src"])).name).read_bytes()
            image.attrs["src"] = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    title = text.partition("\n")[0].removeprefix("# ")
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>\n"
        f"{parser.renderer.render(tokens, parser.options, {})}</html>\n"
    )
