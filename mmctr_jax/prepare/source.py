"""A source of raw data: what it hands over, and how `mmctr prepare` reads it.

A new source is a file with a function from its files to a `Source` and a `SourceKind` that says how it is called, and
a line in `SOURCES` of `commands/prepare.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

EARLIER = ("earlier_rows", "earlier_click_rate")
"""Numbers of a row: how many rows its user has at strictly earlier times, however long ago, and the share of clicks."""
RATE = "item_click_rate"
"""A number of a row: the share of its target's rows in training that were clicked; see `dataset.out_of_fold`."""


SKIPPED = "skipped"
"""The second history of items that were shown and not clicked, where samples have `EARLIER` and `RATE`."""


@dataclass(frozen=True)
class Source:
    """Interactions and items as a source has them."""

    log: pl.DataFrame
    """One row per interaction, oldest first among equal times: `user`, `item` (integers or text), `time` (any number;
    only its order counts), and where the source has them `click` (bool; without it every row is a click), `weight`
    (float) and the features in `side` (integers or text)."""
    items: pl.DataFrame  # a row per item: `item`, and where known `tags` (lists of text), `text` and numeric columns
    files: list[Path]
    side: list[str] = field(default_factory=list)  # columns of `log`: features of the interaction
    numeric: list[str] = field(default_factory=list)  # columns of `log`: numbers of the interaction, null if unknown
    lists: list[str] = field(default_factory=list)  # columns of `log`: lists of text
    hashed: dict[str, int] = field(default_factory=dict)  # columns of `log`: text, which training hashes to so many ids
    labels: dict[str, float] = field(default_factory=dict)
    """Columns of `log`, bool: what else than a click a model is to predict, and what it counts in the loss."""
    clicks: dict[str, str] = field(default_factory=dict)
    """What each click of a history says of itself: name → its kind. Columns `click_NAME` of `log`, but for `gap`, the
    time from the click to the sample's."""
    histories: dict[str, str] = field(default_factory=dict)
    """Boolean columns `item_seq_NAME` of `log`, interactions that are a history of their own, such as purchases: NAME →
    the column of the source that says which."""
    item_side: list[str] = field(default_factory=list)  # columns of `items`: text
    item_numeric: list[str] = field(default_factory=list)  # columns of `items`: numbers, null if unknown
    keys: list[str] = field(default_factory=list)  # the source's names of the columns `item`, of log and items
    label: list[str] = field(default_factory=list)  # the source's name of the column `click` of `log`
    weight: list[str] = field(default_factory=list)  # the source's name of the column `weight`
    tag_separator: str | None = None  # between the items' tags, where a user named one
    item_lists: list[str] = field(default_factory=list)  # the source's name of the column `tags` of `items`
    item_texts: list[str] = field(default_factory=list)  # the source's names of the columns that became `text`
    reasons: dict[str, str] = field(default_factory=dict)  # why a column that nobody named became what it is
    time_unit: float = 1.0  # of `time`, in the unit that gaps are given in
    notes: list[str] = field(default_factory=list)  # what users of the prepared files must know
    has_times: bool = True  # false: `time` counts a user's clicks and says nothing across users
    compared: tuple[Path, Path] | None = None  # log and file of items, where their ids may be written otherwise
    rates: bool = False  # whether rows have `EARLIER` and `RATE`
    has_skipped: bool = False  # whether they have the history `SKIPPED`
    non_clicks: bool | None = None  # whether some items were shown and not clicked; None: as `log` has it

    @property
    def columns(self) -> dict[str, Any]:
        """What its columns became, for the manifest."""
        names = ("label", "weight", "side", "numeric", "lists", "hashed", "labels", "clicks", "histories")
        names += ("item_side", "item_numeric", "item_lists", "item_texts")
        return {name: getattr(self, name) for name in names}

    @property
    def row_numbers(self) -> list[str]:
        """Numbers of the interaction, in the order of the prepared files."""
        return [*self.numeric, *((*EARLIER, RATE) if self.rates else ())]

    @property
    def numbers(self) -> list[str]:
        """Columns of `log` that hold numbers."""
        return self.numeric + [
            f"click_{name}" for name in self.clicks if name != "gap" and self.clicks[name] == "numeric"
        ]

    @property
    def values(self) -> list[str]:
        """Columns of `log` that hold text, lists of text, or whether an interaction is in a second history."""
        of_clicks = [f"click_{name}" for name, kind in self.clicks.items() if kind == "categorical"]
        return [
            *self.side,
            *self.lists,
            *self.hashed,
            *self.labels,
            *of_clicks,
            *(f"item_seq_{name}" for name in self.histories),
        ]

    @property
    def has_non_clicks(self) -> bool:
        """Whether the log says of some item that it was shown and not clicked."""
        if self.non_clicks is not None:
            return self.non_clicks
        return "click" in self.log.columns and not self.log["click"].all()

    def without_rows(self) -> Source:
        """What is known of the source's columns."""
        return replace(self, log=self.log.head(0), items=self.items.head(0))


def pairs(text: str) -> tuple[tuple[str, str], ...]:
    """An argument that lists names and values: `a=1, b=2` → (("a", "1"), ("b", "2"))."""
    found = [tuple(part.strip() for part in name.split("=", 1)) for name in comma_separated(text)]
    if not all(len(pair) == 2 and all(pair) for pair in found):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, or several with commas between them")
    return tuple(found)


def comma_separated(text: str) -> tuple[str, ...]:
    """An argument that lists names: `a, b` → ("a", "b")."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    pass


@dataclass(frozen=True)
class SourceKind:
    """What `mmctr prepare` knows of a kind of source: its help, its arguments, how it is read, and its defaults."""

    help: str
    read: Callable[[argparse.Namespace], Source]  # of `path` and the arguments that it added itself
    split: str  # unless --split says otherwise
    path: str = "folder of the files"  # what PATH names
    levels: tuple[str, ...] = ("clicks",)  # unless --levels says otherwise
    logged_negatives: bool = False  # whether the log's own non-clicks, where it has any, are the default negatives
    add_arguments: Callable[[argparse.ArgumentParser], None] = _no_arguments
