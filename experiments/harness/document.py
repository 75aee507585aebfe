"""A page of headings, paragraphs, tables and pictures, as Markdown and as one HTML file."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
    """A paragraph; Markdown's `code`, **bold** and [links](target) may occur in it."""

    text: str


@dataclass(frozen=True)
class Table:
    """Cells are text already."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A PNG file beside the page."""

    name: str
    caption: str


Block = Heading | Text | Table | Picture


def markdown(blocks: Sequence[Block]) -> str:
    """The page as Markdown; pictures are linked in `pictures/`."""
    return "\n".join(_markdown(block) for block in blocks)


def page(blocks: Sequence[Block], pictures: Path) -> str:
    """The page as HTML, with the pictures found in the folder `pictures` inside."""
    title = next(block.text for block in blocks if isinstance(block, Heading))
    body = "\n".join(_html(block, pictures) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>\n{body}\n</html>\n"
    )


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}\n"
    if isinstance(block, Text):
        return f"{block.text}\n"
    if isinstance(block, Picture):
        return f"![{block.caption}](pictures/{block.name})\n"
    lines = [block.headers, ["---"] * len(block.headers), *block.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _html(block: Block, pictures: Path) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{_inline(block.text)}</h{block.level}>"
    if isinstance(block, Text):
        return f"<p>{_inline(block.text)}</p>"
    if isinstance(block, Picture):
        content = base64.b64encode((pictures / block.name).read_bytes()).decode()
        caption = html.escape(block.caption)
        return f'<p><img alt="{caption}" src="data:image/png;base64,{content}"></p>'
    row = lambda tag, cells: "<tr>" + "".join(f"<{tag}>{_inline(c)}</{tag}>" for c in cells)
    rows = "\n".join(row("td", cells) for cells in block.rows)
    return f"<table>{row('th', block.headers)}\n{rows}</table>"


def _inline(text: str) -> str:
    text = html.escape(text, quote=False)
    text = re.sub(r"`(.+?)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"\[(.+?)\]\((.+?)\)", r'<a href="\2">\1</a>', text)
