"""Pages of headings, paragraphs, tables and pictures, as Markdown and as one HTML file."""

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
class Heading:
    """A title (level 1) or a section's."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph, in Markdown."""

    text: str


@dataclass(frozen=True)
class Table:
    """Cells are text already."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A PNG file in the folder `pictures` beside the page."""

    name: str
    caption: str


Block = Heading | Text | Table | Picture


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown; floats with four significant digits."""
    text = lambda cell: f"{cell:.4g}" if isinstance(cell, float) else str(cell)
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join(f"| {' | '.join(map(text, line))} |\n" for line in lines)


def markdown(blocks: Sequence[Block]) -> str:
    """The page as Markdown."""
    return "\n".join(map(_markdown, blocks))


def page(blocks: Sequence[Block], pictures: Path) -> str:
    """The page as HTML, with the pictures found in the folder `pictures` inside."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown(blocks))
    for image in (child for token in tokens for child in token.children or ()):
        if image.type == "image":
            content = (pictures / Path(str(image.attrs["src"])).name).read_bytes()
            image.attrs["src"] = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    title = next(block.text for block in blocks if isinstance(block, Heading))
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>\n"
        f"{parser.renderer.render(tokens, parser.options, {})}</html>\n"
    )


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}\n"
    if isinstance(block, Text):
        return f"{block.text}\n"
    if isinstance(block, Picture):
        return f"![{block.caption}](pictures/{block.name})\n"
    return table(block.headers, block.rows)
