"""Numbers as people read them, and the fields of a dataclass that tables show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, fields
from typing import Any

Lines = dict[str, Callable[[Any], str]]
"""Header → what the cell of a record says."""


def count(value: int | None) -> str:
    """1234 → '1,234'."""
    return "–" if value is None else f"{value:,}"


def decimal(value: float | None, digits: int = 3) -> str:
    """0.12345 → '0.123'."""
    return "–" if value is None else f"{value:z,.{digits}f}"


def one_digit(value: float | None) -> str:
    """1.25 → '1.2'."""
    return decimal(value, 1)


def percent(share: float | None) -> str:
    """0.1234 → '12.3 %'; two digits more where a share is small and not zero."""
    if share is None:
        return "–"
    return f"{100 * share:.1f} %" if share == 0 or abs(share) >= 0.001 else f"{100 * share:.3f} %"


def shown(header: str, cell: Callable[[Any], str] = str) -> Any:
    """A field of a dataclass that tables of such records show under `header`, as `cell` puts it."""
    return field(metadata={"shown": (header, cell)})


def lines(kind: type) -> Lines:
    """Those that the dataclass has declared with `shown`, in order."""
    found = [(f.name, *f.metadata["shown"]) for f in fields(kind) if "shown" in f.metadata]
    return {header: lambda record, name=name, cell=cell: cell(getattr(record, name)) for name, header, cell in found}
