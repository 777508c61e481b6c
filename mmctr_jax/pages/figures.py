"""Pictures of a page: matplotlib's, as SVG within the page, in one style."""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Sequence
from html import escape

from matplotlib.axes import Axes
from matplotlib.figure import Figure

STYLE = {
    "font.size": 9.0,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "text.parse_math": False,  # a $ in a name is a $
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "mmctr_jax",  # the same picture, the same bytes
}
_WIDTH, _PIXELS = 4.2, 96  # inches; per inch
_LEGEND_LINE = 0.19  # inches
_LONGEST = 24  # characters of a name in a legend
_SPLITS = {"train": "C0", "valid": "C1", "test": "C2"}


def empty_axes(height: float = 2.8) -> Axes:
    """Axes to draw on, of a picture 4.2 by `height` inches. Whoever draws does it within `STYLE`."""
    return Figure(figsize=(_WIDTH, height), layout="constrained").subplots()


def picture(axes: Axes, **settings: object) -> str:
    """What was drawn on the axes, as HTML; words of its alternative text are the title and the axes' labels.

    settings: of the axes: title, xlabel, ylabel, xscale, … Where several things have a label, a legend goes below the
    axes, where it covers nothing, and adds to the height.
    """
    axes.set(**settings)
    drawing, height = axes.figure, axes.figure.get_figheight()
    _, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        columns = 3 if max(map(len, labels)) < 10 else 2
        height += _LEGEND_LINE * math.ceil(len(labels) / columns)
        drawing.set_figheight(height)
        drawing.legend(loc="outside lower center", ncols=columns)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # missing in the font that measures; the browser has its own
        drawing.savefig(stream, format="svg", metadata={"Date": None})
    source = base64.b64encode(stream.getvalue()).decode()
    titles = axes.get_title(), axes.get_title("right"), axes.get_ylabel(), axes.get_xlabel()
    return (
        f'<figure><img width="{round(_WIDTH * _PIXELS)}" height="{round(height * _PIXELS)}" '
        f'alt="{escape("Chart: " + ", ".join(filter(None, titles)))}" '
        f'src="data:image/svg+xml;base64,{source}"></figure>\n'
    )


def colour(which: str | int) -> str:
    """That of a split by its name, of a run by its number: the same on a whole page."""
    return _SPLITS[which] if isinstance(which, str) else f"C{which % 10}"


def dashes(run: int) -> str:
    """The line of a run with this number: there are more runs than colours."""
    return ("-", "--", ":")[run // 10 % 3]


def shifts(things: int, apart: float) -> list[float]:
    """How far to move each of several things beside each other, so that none hides another."""
    return [apart * (i - (things - 1) / 2) for i in range(things)]


def tick_names(axes: Axes, names: Sequence[str], every: int = 1) -> None:
    """Names below the places 0, 1, 2, …, or below every so many of them: aslant where they need the room."""
    shown = names[::every]
    axes.set_xticks(range(0, len(names), every), shown, rotation=45 if sum(map(len, shown)) > 24 else 0)
    axes.grid(False, axis="x")


def rows_of(axes: Axes, names: Sequence[str], title: str) -> None:
    """A row for each name, the first on top. The title is on the right: names leave little room for it elsewhere."""
    axes.set_yticks(range(len(names)), [short(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_title(title, loc="right")


def short(name: str) -> str:
    """What fits beside an axis; the tables have the whole name."""
    return name if len(name) <= 34 else f"{name[:32]}…"


def legend_labels(names: list[str]) -> list[str]:
    """What fits into a legend: the last part of each name, with a number where these would be the same."""
    ends = [name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}" for name in names]
    if len(set(ends)) < len(ends):
        ends = [f"{i}: {text}" for i, text in enumerate(ends, 1)]
    return [f" {text}" if text.startswith("_") else text for text in ends]  # legends leave out what begins with _
