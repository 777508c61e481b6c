"""Any log of clicks, and a file of items if there is one: CSV, TSV or Parquet, columns by name."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path

import polars as pl

from mmctr_jax.console import log as say
from mmctr_jax.errors import InputError
from mmctr_jax.prepare.raw_tables import read_table, table_files
from mmctr_jax.prepare.raw_values import (
    as_keys,
    as_labels,
    as_numbers,
    as_tags,
    as_times,
    check_items_match,
    is_category,
    refuse_duplicates,
    refuse_row,
)
from mmctr_jax.prepare.source import Source, SourceKind, comma_separated
from mmctr_jax.prepare.text_files import NULL_WORDS, TextFormat

# Columns that prepared files, or the log on its way to them, have of their own.
_TAKEN = ("user_id", "item_id", "item_seq", "ID", "label", "weight", "item_tags", "user", "item", "time", "click")


@dataclass(frozen=True)
class Columns:
    """Which columns of the log and of the item file hold what."""

    user: str = "user"
    item: str = "item"
    time: str = "time"
    label: str | None = None  # 1 clicked, 0 shown and not clicked; None: every row is a click
    weight: str | None = None  # how much a row counts in the training loss
    side: tuple[str, ...] = ()  # categorical features of the interaction, such as the device
    numbers: tuple[str, ...] = ()  # numeric features of the interaction, such as the price: levels by quantiles
    item_key: str = "item"  # in the item file
    tags: str | None = None  # lists, or text with tag_separator between tags
    tag_separator: str | None = None  # None: "|"
    text: tuple[str, ...] = ()  # columns that are joined to the item's text
    numeric: tuple[str, ...] = ()  # numbers that --levels may name
    text_format: TextFormat = TextFormat()  # of files that are not Parquet


_NOT_OPTIONS = ("numeric", "numbers", "text_format")
_MOST_CATEGORIES = 50  # different numbers that are taken for categories without a word


def read(path: Path, items: Path | None, columns: Columns) -> Source:
    """Reads a log of clicks and a file of items.

    Args:
      path: the log: a CSV, TSV or Parquet file, or a folder of Parquet part files.
      items: the item file, of the same formats; None: nothing but their ids is known of the items.
    Raises: InputError on missing columns, and on values that are not as they must be.
    """
    for option in ("tags", "text", "numeric"):
        if getattr(columns, option) and not items:
            name = "levels" if option == "numeric" else option
            raise InputError(f"--{name} names a column of the item file; name that file with --items.")
    log = _read_log(path, columns)
    item_table = _read_items(items, columns) if items else pl.DataFrame({"item": log["item"].head(0)})
    if items and (warning := check_items_match(log["item"], item_table["item"], path, items)):
        say.warning(warning)
    files = table_files(path) + (table_files(items) if items else [])
    return Source(log, item_table, files, side=list(columns.side), numeric=list(columns.numbers))


def _read_log(path: Path, columns: Columns) -> pl.DataFrame:
    given = columns.side + columns.numbers
    for option, name in [("side", name) for name in columns.side] + [("numeric", name) for name in columns.numbers]:
        if name in _TAKEN or name.endswith("_level"):
            raise InputError(f"--{option} {name}: prepared files have a column of that name of their own; rename it.")
        if "/" in name or not name.isprintable() or len(name) > 100 or given.count(name) > 1:
            raise InputError(
                f"--{option} {ascii(name)}: it names a file; give it a short, printable name without '/', once."
            )
    wanted = {"user": columns.user, "item": columns.item, "time": columns.time}
    wanted |= {name: column for name, column in (("click", columns.label), ("weight", columns.weight)) if column}
    side = {f"side {name}": name for name in columns.side}
    numbers = {f"number {name}": name for name in columns.numbers}
    text = columns.text_format
    frame = read_table(path, wanted | side | numbers, text)
    if not len(frame):
        raise InputError(f"{path} has no rows.")
    log = {
        "user": as_keys(frame["user"], path, columns.user, text),
        "item": as_keys(frame["item"], path, columns.item, text),
        "time": as_times(frame["time"], path, columns.time, text),
    }
    if columns.label:
        log["click"] = as_labels(frame["click"], path, columns.label, text)
        if not log["click"].any():
            raise InputError(f"{path}: every {columns.label} is 0; there is no click to learn from.")
    if columns.weight:
        weights = as_numbers(frame["weight"], path, columns.weight, text=text)
        log["weight"] = weights.cast(pl.Float32)
        wrong = ~((log["weight"] > 0) & log["weight"].is_finite())
        if wrong.any():
            row = wrong.arg_true()[0]
            problem = f"weight {weights[row]:g}; weights must be above 0, in float32 (leave such rows out)."
            raise refuse_row(path, columns.weight, row, problem, text)
    for new, name in side.items():
        kind = frame[new].dtype
        if not is_category(kind):
            raise InputError(f"{path}: column {name} has type {kind}; a side feature must be text or whole numbers.")
        log[name] = frame[new].cast(pl.String).replace("", None)
        _refuse_numbers(log[name], path, name)
    for new, name in numbers.items():
        log[name] = as_numbers(frame[new], path, name, nulls=True, text=text).cast(pl.Float64)
    return pl.DataFrame(log)


def _refuse_numbers(values: pl.Series, path: Path, name: str) -> None:
    """Raises: InputError if a side feature is a number with fractions, as a price is. Warns of very many integers."""
    known = values.drop_nulls()
    numbers = known.cast(pl.Float64, strict=False)
    if not len(known) or numbers.null_count() or (distinct := known.n_unique()) <= _MOST_CATEGORIES:
        return
    like = f"{distinct:,} different numbers, such as {known[0]}"
    if known.str.contains(r"[.eE]").any():
        raise InputError(f"{path}: --side {name} holds {like}; say --numeric {name}, for levels by quantiles.")
    say.warning(f"{path}: --side {name} holds {like}, taken as categories; --numeric {name} makes levels by quantiles.")


def _read_items(path: Path, columns: Columns) -> pl.DataFrame:
    wanted = {"item": columns.item_key} | ({"tags": columns.tags} if columns.tags else {})
    wanted |= {f"text {name}": name for name in columns.text} | {f"number {name}": name for name in columns.numeric}
    text = columns.text_format
    frame = read_table(path, wanted, text)
    items = {"item": as_keys(frame["item"], path, columns.item_key, text)}
    refuse_duplicates(items["item"], path, columns.item_key, text)
    if columns.tags:
        items["tags"] = as_tags(frame["tags"], path, columns.tags, columns.tag_separator)
    for name in columns.text:
        kind = frame[f"text {name}"].dtype
        if not (is_category(kind) or kind.is_float()):
            raise InputError(f"{path}: column {name} has type {kind}; texts must be text or numbers.")
    if columns.text:
        texts = [pl.col(f"text {name}").cast(pl.String).str.strip_chars().replace("", None) for name in columns.text]
        items["text"] = frame.select(pl.concat_str(texts, separator=". ", ignore_nulls=True)).to_series()
    for name in columns.numeric:
        items[name] = as_numbers(frame[f"number {name}"], path, name, nulls=True, text=text)
    return pl.DataFrame(items)


def _read_arguments(args: argparse.Namespace) -> Source:
    given = {field.name: getattr(args, field.name) for field in fields(Columns) if field.name not in _NOT_OPTIONS}
    given["item_key"] = args.item_key or args.item
    numeric = tuple(name for name in args.levels if name != "clicks")
    text = TextFormat(args.separator, args.decimal, args.quote or None, args.header, args.null_words, args.encoding)
    return read(args.path, args.items, Columns(**given, numeric=numeric, numbers=args.numeric, text_format=text))


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("columns of the log").add_argument
    add("--user", default=Columns.user, metavar="COLUMN", help="user ids (default: %(default)s)")
    add("--item", default=Columns.item, metavar="COLUMN", help="item ids (default: %(default)s)")
    add("--time", default=Columns.time, metavar="COLUMN", help="numbers, dates or ISO 8601 text (default: %(default)s)")
    add("--label", metavar="COLUMN", help="1 clicked, 0 shown and not clicked (without: all are clicks)")
    add("--weight", metavar="COLUMN", help="how much a row counts in the training loss")
    add("--side", type=comma_separated, default=(), metavar="COLUMN,…", help="categorical features of a row")
    add("--numeric", type=comma_separated, default=(), metavar="COLUMN,…", help="numbers of a row; become levels")
    add = parser.add_argument_group("items").add_argument
    add("--items", type=Path, metavar="FILE", help="one row per item: CSV, TSV or Parquet")
    add("--item-key", metavar="COLUMN", help="item ids there (default: as --item)")
    add("--tags", metavar="COLUMN", help="lists, or text with separators")
    add("--tag-separator", type=_separator, metavar="TEXT", help="between tags in text (default: |)")
    add("--text", type=comma_separated, default=(), metavar="COLUMN,…", help="joined to the item's text, for embed")
    add = parser.add_argument_group("text files, of log and items").add_argument
    by_ending = "between columns (default: a comma in .csv, a tab in .tsv and .txt)"
    add("--separator", type=_character, metavar="CHAR", help=by_ending)
    add("--decimal", choices=(".", ","), default=".", help="in numbers (default: %(default)s)")
    add("--quote", type=_character_or_none, default='"', metavar="CHAR", help="around texts; '' for none (default: \")")
    add("--no-header", dest="header", action="store_false", help="columns are column_1, column_2, …")
    words = f"cells that mean nothing is known (default: {','.join(NULL_WORDS)})"
    add("--null-words", type=comma_separated, default=NULL_WORDS, metavar="WORD,…", help=words)
    add("--encoding", default="utf-8", help="such as utf-16 or latin-1 (default: %(default)s)")


def _character(text: str) -> str:
    text = {r"\t": "\t", r"\x01": "\x01"}.get(text, text)
    if len(text) != 1 or not text.isascii():
        raise argparse.ArgumentTypeError(f"{text!r} is not one character of ASCII")
    return text


def _character_or_none(text: str) -> str:
    return text and _character(text)


def _separator(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("a separator has at least one character")
    return text


KIND = SourceKind(
    help="any log of clicks: CSV, TSV, Parquet, or a folder of Parquet part files",
    read=_read_arguments,
    split="time",
    path="the log",
    logged_negatives=True,
    add_arguments=_add_arguments,
)
