"""A source of raw data: what it hands over, and how `mmctr prepare` reads it.

A new source is a file with a function from its files to a `Source` and a `SourceKind` that says how it is called, and
a line in `SOURCES` of `commands/prepare.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl


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
    notes: list[str] = field(default_factory=list)  # what users of the prepared files must know
    has_times: bool = True  # false: `time` counts a user's clicks and says nothing across users

    @property
    def has_non_clicks(self) -> bool:
        """Whether the log says of some item that it was shown and not clicked."""
        return "click" in self.log.columns and not self.log["click"].all()


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
