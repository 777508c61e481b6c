"""Any log of clicks, and a file of items if there is one: CSV, TSV or Parquet, columns by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mmctr_jax.errors import InputError
from mmctr_jax.prepare.source import (
    Source,
    as_keys,
    as_numbers,
    as_times,
    collect,
    refuse_row,
    scan,
    table_files,
)

_TAKEN = ("user_id", "item_id", "item_seq", "ID", "label", "weight", "item_tags")  # columns that prepared files have


@dataclass(frozen=True)
class Columns:
    """Which columns of the log and of the item file hold what. Every field is an option of the command line."""

    user: str = "user"
    item: str = "item"
    time: str = "time"
    label: str | None = None  # 1 clicked, 0 shown and not clicked; None: every row is a click
    weight: str | None = None  # how much a row counts in the training loss
    side: tuple[str, ...] = ()  # categorical features of the interaction, such as the device
    item_key: str = "item"  # in the item file
    tags: str | None = None  # lists, or text with tag_separator between tags
    tag_separator: str = "|"
    text: tuple[str, ...] = ()  # columns that are joined to the item's text
    numeric: tuple[str, ...] = ()  # numbers that --levels may name


def read(path: Path, items: Path | None, columns: Columns) -> Source:
    """The log and the item file. Raises InputError on missing columns, and on values that are not as they must be."""
    log = _read_log(path, columns)
    catalogue = _read_items(items, columns) if items else pl.DataFrame({"item": log["item"].head(0)})
    files = table_files(path) + (table_files(items) if items else [])
    return Source(log, catalogue, files, side=list(columns.side))


def _read_log(path: Path, columns: Columns) -> pl.DataFrame:
    for name in columns.side:
        if name in _TAKEN or name.endswith("_level"):
            raise InputError(f"--side {name}: prepared files have a column of that name of their own; rename it.")
    wanted = {"user": columns.user, "item": columns.item, "time": columns.time}
    wanted |= {name: column for name, column in (("click", columns.label), ("weight", columns.weight)) if column}
    side = {f"side {name}": name for name in columns.side}
    frame = collect(scan(path, wanted | side), path)
    if not len(frame):
        raise InputError(f"{path} has no rows.")
    log = {
        "user": as_keys(frame["user"], path, columns.user),
        "item": as_keys(frame["item"], path, columns.item),
        "time": as_times(frame["time"], path, columns.time),
    }
    if columns.label:
        label = as_numbers(frame["click"], path, columns.label)
        wrong = ~label.is_in([0, 1])
        if wrong.any():
            row = wrong.arg_true()[0]
            raise refuse_row(path, columns.label, row, f"label {label[row]:g}; labels must be 0 or 1.")
        log["click"] = label == 1
    if columns.weight:
        log["weight"] = as_numbers(frame["weight"], path, columns.weight)
        if (log["weight"] <= 0).any():
            row = (log["weight"] <= 0).arg_true()[0]
            problem = f"weight {log['weight'][row]:g}; weights must be above 0 (leave such rows out)."
            raise refuse_row(path, columns.weight, row, problem)
    for new, name in side.items():
        kind = frame[new].dtype
        if kind.is_float() or kind.is_nested():
            raise InputError(f"{path}: column {name} has type {kind}; a side feature must be text or whole numbers.")
        log[name] = frame[new].cast(pl.String).replace("", None)
    return pl.DataFrame(log)


def _read_items(path: Path, columns: Columns) -> pl.DataFrame:
    wanted = {"item": columns.item_key} | ({"tags": columns.tags} if columns.tags else {})
    wanted |= {f"text {name}": name for name in columns.text} | {f"number {name}": name for name in columns.numeric}
    frame = collect(scan(path, wanted), path)
    items = {"item": as_keys(frame["item"], path, columns.item_key)}
    twice = items["item"].is_duplicated()
    if twice.any():
        row = twice.arg_true()[1]
        raise refuse_row(
            path, columns.item_key, row, f"item {items['item'][row]} stands there twice; keep one row of it."
        )
    if columns.tags:
        items["tags"] = _tags(frame["tags"], path, columns)
    if columns.text:
        texts = [pl.col(f"text {name}").cast(pl.String).str.strip_chars().replace("", None) for name in columns.text]
        items["text"] = frame.select(pl.concat_str(texts, separator=". ", ignore_nulls=True)).to_series()
    for name in columns.numeric:
        items[name] = as_numbers(frame[f"number {name}"], path, name, nulls=True)
    return pl.DataFrame(items)


def _tags(values: pl.Series, path: Path, columns: Columns) -> pl.Series:
    if values.dtype == pl.String:
        values = values.str.split(columns.tag_separator)
    elif not isinstance(values.dtype, (pl.List, pl.Array)):
        values = values.cast(pl.List(values.dtype)) if values.dtype.is_integer() else values
    if (
        not isinstance(values.dtype, (pl.List, pl.Array))
        or values.dtype.inner.is_nested()
        or values.dtype.inner.is_float()
    ):
        raise InputError(f"{path}: column {columns.tags} has type {values.dtype}; tags are lists, or separated text.")
    values = values.cast(pl.List(pl.String))
    return values.list.eval(pl.element().str.strip_chars().filter(pl.element().str.strip_chars().fill_null("") != ""))
