"""Self-contained HTML pages: one file, no script, nothing fetched, readable at the width of a phone.

Every function takes plain text, escapes it, and returns HTML; so a page is put together without handling markup.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterable
from html import escape

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
_STYLE = {
    "font.size": 9.0,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.parse_math": False,  # a $ in a name is a $
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "mmctr_jax",  # the same picture, the same bytes
}


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
    return f"<section><h2>{escape(title)}</h2>\n{''.join(parts)}</section>\n"


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>\n"


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


def figure(draw: Callable[[Axes], None], alt: str, height: float = 2.8) -> str:
    """A picture, 4.2 by `height` inches, of what `draw` puts on its axes; `alt` says it in words."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # missing in the font that measures; the browser has its own
        drawing = Figure(figsize=(4.2, height), layout="constrained")
        draw(drawing.subplots())
        stream = io.BytesIO()
        drawing.savefig(stream, format="svg", metadata={"Date": None})
    source = base64.b64encode(stream.getvalue()).decode()
    width_px, height_px = round(4.2 * 96), round(height * 96)
    return (
        f'<figure><img width="{width_px}" height="{height_px}" alt="{escape(alt)}" '
        f'src="data:image/svg+xml;base64,{source}"></figure>\n'
    )


def beside(*parts: str) -> str:
    """Pictures and tables side by side where there is room, below each other where there is none."""
    return f'<div class="beside">{"".join(parts)}</div>\n'


def count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def decimal(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:z,.{digits}f}"


def percent(share: float | None) -> str:
    """0.1234 → '12.3 %'; two digits more where a share is small and not zero."""
    if share is None:
        return "–"
    return f"{100 * share:.1f} %" if share == 0 or abs(share) >= 0.001 else f"{100 * share:.3f} %"
