"""Tables of results, as text and as CSV, and the mean and deviation that stand in them."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from typing import Any


def mean_and_deviation(values: Sequence[float]) -> tuple[float | None, float | None]:
    """The mean, and the sample standard deviation (n − 1); None where there are too few values for it."""
    return (
        statistics.mean(values) if values else None,
        statistics.stdev(values) if len(values) > 1 else None,
    )


def mean_text(values: Sequence[float]) -> str:
    """`0.7512 ± 0.0010`, the mean and standard deviation; the mean alone of one value, a dash of none."""
    mean, deviation = mean_and_deviation(values)
    if mean is None:
        return "–"
    return f"{mean:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, ending with a line break. A `|` in a cell becomes `/`, and white space one space."""
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    lines += [f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def csv_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A CSV file's text; None is an empty field."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()
