"""Self-contained HTML pages: one file, no script, nothing fetched, readable at the width of a phone.

Every function takes plain text, escapes it, and returns HTML; so a page is put together without handling markup.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from mmctr_jax.formats import Lines, lines

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # the browser's word that nothing is fetched
_CSS = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 62rem; padding: 0 1rem 3rem; background: #fff; color: #1a1a1a;
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; margin: 1.2rem 0 0.4rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 0.4rem; border-bottom: 1px solid #ccc; }
p { margin: 0.5rem 0; max-width: 52rem; }
.notes { padding: 0; list-style: none; }
.notes li { margin: 0.5rem 0; padding: 0.5rem 0.8rem; border-left: 0.3rem solid #d9822b; background: #fdf3e7; }
.scroll { overflow-x: auto; margin: 0.8rem 0; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
caption { font-weight: 600; padding: 0.2rem 0; }
th, td { padding: 0.2rem 0.7rem; border-bottom: 1px solid #e4e4e4; text-align: right; vertical-align: top; }
th { border-bottom: 1px solid #999; vertical-align: bottom; }
td { white-space: nowrap; }
th:first-child, td:first-child, caption { text-align: left; padding-left: 0; }
td:first-child { white-space: normal; min-width: 5rem; max-width: 22rem; }
.text th, .text td { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 8rem; }
.text th:first-child, .text td:first-child { overflow-wrap: break-word; min-width: 5rem; }
pre { overflow-x: auto; font-size: 0.8125rem; }
.beside { display: grid; gap: 0.8rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
.beside > * { min-width: 0; }
figure { margin: 0; }
img { display: block; max-width: 100%; height: auto; }
summary { cursor: pointer; }
"""


def page(title: str, *parts: str) -> str:
    """The whole document, its title as the first heading."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{_CSS}</style></head>\n'
        f"<body><main><h1>{escape(title)}</h1>\n{''.join(parts)}</main></body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """Parts under a heading."""
    return f"<section><h2>{escape(title)}</h2>\n{''.join(parts)}</section>\n"


def paragraph(text: str) -> str:
    """Running text; a line break in it is a space."""
    return f"<p>{escape(' '.join(text.split()))}</p>\n"


def notes(texts: Iterable[str]) -> str:
    """Sentences that must be seen, one box each."""
    return f'<ul class="notes">{"".join(f"<li>{escape(text)}</li>" for text in texts)}</ul>\n'


def folded(summary: str, *parts: str) -> str:
    """What is shown when asked for."""
    return f"<details><summary>{escape(summary)}</summary>\n{''.join(parts)}</details>\n"


def preformatted(text: str) -> str:
    """Lines as they are, in a box that scrolls."""
    return f'<pre tabindex="0">{escape(text)}</pre>\n'


def table(headers: list[str], rows: list[list[str]], caption: str = "", breaks: bool = False) -> str:
    """A table that scrolls within its own box. The first column is text, the others are numbers, on the right.

    breaks: the others are text too, on the left, and break into lines.
    """

    def line(tag: str, cells: list[str]) -> str:
        return "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells)

    head = f"<caption>{escape(caption)}</caption>" if caption else ""
    body = "".join(f"<tr>{line('td', row)}</tr>\n" for row in rows)
    kind = "scroll text" if breaks else "scroll"
    # tabindex: a box that scrolls must be reachable with the keyboard.
    return (
        f'<div class="{kind}" tabindex="0"><table>{head}<thead><tr>{line("th", headers)}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>\n"
    )


def records(found: list[Any], caption: str = "", columns: Lines | None = None) -> str:
    """A table with a row for each record, without columns where no cell says anything.

    columns: those that the records' dataclass declares, if not others.
    """
    columns = columns or (lines(type(found[0])) if found else {})
    cells = {header: [cell(record) for record in found] for header, cell in columns.items()}
    shown = {header: column for header, column in cells.items() if any(column)}
    return table(list(shown), [list(row) for row in zip(*shown.values(), strict=True)], caption)


def compared(
    found: dict[str, Any], rows: Lines | None = None, caption: str = "", corner: str = "", breaks: bool = False
) -> str:
    """A table with a column for each record, under its name. rows: those that its dataclass declares, if not others."""
    rows = rows or lines(type(next(iter(found.values()))))
    body = [[header, *(cell(record) for record in found.values())] for header, cell in rows.items()]
    return table([corner, *found], body, caption, breaks)


def beside(*parts: str) -> str:
    """Pictures and tables side by side where there is room, below each other where there is none."""
    return f'<div class="beside">{"".join(parts)}</div>\n'
