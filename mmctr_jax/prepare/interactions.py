"""Any log of clicks, and a file of items if there is one: CSV, TSV or Parquet, columns by name."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mmctr_jax.console import log as say
from mmctr_jax.errors import InputError
from mmctr_jax.files import expanded
from mmctr_jax.hashing import as_hashed
from mmctr_jax.prepare.columns import Columns, item_format, name_problem, option
from mmctr_jax.prepare.proposals import with_proposals
from mmctr_jax.prepare.raw_tables import column_names, read_table, require_columns, table_files
from mmctr_jax.prepare.raw_values import (
    as_keys,
    as_labels,
    as_numbers,
    as_tags,
    as_times,
    form_of_lists,
    form_of_times,
    is_calendar,
    is_category,
    is_fractions,
    refuse_duplicates,
    refuse_row,
    whole_numbers,
)
from mmctr_jax.prepare.source import SKIPPED, Source, SourceKind, comma_separated, pairs
from mmctr_jax.prepare.sums import Sum
from mmctr_jax.prepare.text_files import NULL_WORDS, TextFormat

_NOT_OPTIONS = ("numeric", "text_format")
_MOST_CATEGORIES = 50  # different numbers that are taken for categories without a word


def read(path: Path, items: Path | None, columns: Columns, earlier: dict[str, Any] | None = None) -> Source:
    """Reads a log of clicks and a file of items.

    Args:
      path: the log: a CSV, TSV or Parquet file, or a folder of Parquet part files.
      items: the item file, of the same formats; None: nothing but their ids is known of the items.
      earlier: `Source.columns` of an earlier log that this one goes on with.
    Raises: InputError on missing columns, and on values that are not as they must be.
    """
    check_items_named(items, columns)
    present = column_names(path, columns.text_format)
    require_columns(path, present, log_columns(path, columns), columns.text_format)
    check_gap(path, present, columns)
    columns, reasons = with_proposals(path, items, columns)
    frame = read_table(path, log_columns(path, columns), columns.text_format)
    log, facts = typed_log(frame, path, columns, earlier)
    facts.check(path, columns, earlier)
    return source_of(log, path, items, columns, facts.time_unit, reasons, earlier)


def check_gap(path: Path, present: list[str], columns: Columns) -> None:
    """Raises: InputError where a column of the log and the time since a click have the same name."""
    if "gap" in columns.click_features and "gap" in present:
        raise InputError(
            f"{path} has a column gap, and --click-features gap is the time since a click; rename the column."
        )


def check_items_named(items: Path | None, columns: Columns) -> None:
    """Raises: InputError where columns of the item file are named, and no such file is."""
    for field in ("tags", "text", "numeric", "item_side", "item_numbers"):
        if getattr(columns, field) and not items:
            name = "levels" if field == "numeric" else option(field)
            raise InputError(f"--{name} names a column of the item file; name that file with --items.")


def source_of(
    log: pl.DataFrame,
    path: Path,
    items: Path | None,
    columns: Columns,
    time_unit: float,
    reasons: dict[str, str],
    earlier: dict[str, Any] | None,
) -> Source:
    """The source with a log, or with its columns alone, and the file of items, which is read here.

    Raises: InputError where its values are not as they must be.
    """
    item_table = _read_items(items, columns, earlier) if items else pl.DataFrame({"item": log["item"].head(0)})
    if twice := {name for _, name in columns.named} & {*columns.item_side, *columns.item_numbers}:
        raise InputError(f"Column {min(twice)} is a feature of rows and of items; rename it in one of the two files.")
    return Source(
        log,
        item_table,
        table_files(path) + (table_files(items) if items else []),
        keys=[columns.item, columns.item_key],
        tag_separator=columns.tag_separator,
        label=[columns.label] if columns.label else [],
        weight=[columns.weight] if columns.weight else [],
        side=list(columns.side),
        numeric=list(columns.numbers),
        lists=list(columns.lists),
        hashed={name: _buckets(name, size) for name, size in columns.hashed},
        labels={name: _loss_weight(name, weight) for name, weight in columns.labels},
        clicks={
            name: "categorical" if name != "gap" and log[f"click_{name}"].dtype == pl.String else "numeric"
            for name in columns.click_features
        },
        histories={value: name for name, value in columns.histories},
        item_side=list(columns.item_side),
        item_numeric=list(columns.item_numbers),
        item_lists=[columns.tags] if columns.tags else [],
        item_texts=list(columns.text),
        reasons=reasons,
        time_unit=time_unit,
        compared=(path, items) if items else None,
    )


def _loss_weight(name: str, weight: str) -> float:
    try:
        value = float(weight)
    except ValueError:
        value = 0.0
    if not 0 < value < np.inf:
        raise InputError(f"--labels {name}={weight}: give what its logloss counts beside that of the clicks, above 0.")
    return value


def _buckets(name: str, size: str) -> int:
    if not (size.isascii() and size.isdigit()) or not 2 <= int(size) < 2**31:
        raise InputError(f"--hash {name}={size}: give the number of ids that its values are hashed to, 2 or more.")
    return int(size)


def _check_names(columns: list[tuple[str, str]], path: Path) -> None:
    """Raises: InputError for the first of these (option, name) that is no name of a feature, or is there twice."""
    seen: dict[str, str] = {}
    for said, name in columns:
        if problem := name_problem(name):
            raise InputError(f"--{said}: column {ascii(name)} of {path}: {problem}; rename it.")
        if name in seen:
            before = "twice" if seen[name] == said else f"with --{seen[name]}, too"
            raise InputError(f"--{said}: column {name} is named {before}; name it once.")
        seen[name] = said


def log_columns(path: Path, columns: Columns) -> dict[str, str]:
    """What to read: name in the table → column of the log. Raises: InputError for names that features cannot have."""
    for said, name in columns.named:
        if name in (columns.label, columns.weight):
            raise InputError(f"--{said} {name}: it is the label or the weight; leave it out here.")
    _check_names(columns.named, path)
    wanted = {"user": columns.user, "item": columns.item, "time": columns.time}
    wanted |= {name: column for name, column in (("click", columns.label), ("weight", columns.weight)) if column}
    wanted |= {f"{option} {name}": name for option, name in columns.named}
    wanted |= {f"clicks {name}": name for name in columns.click_features if name != "gap"}
    return wanted | {f"history {name}": name for name, _ in columns.histories}


@dataclass(frozen=True)
class Facts(Sum):
    """What a log must be known to hold before it is worked on."""

    rows: int
    clicks: int
    histories: dict[str, int]  # interactions in each second history
    forms: dict[str, dict[str, int]]  # column → what its values were taken for → how many rows

    @property
    def time_unit(self) -> float:
        """The unit that gaps between times are given in: seconds, where times are dates or ISO text."""
        return 1.0 if "numbers" in self.forms["time"] else 1e9

    def check(self, path: Path, columns: Columns, earlier: dict[str, Any] | None) -> None:
        """Raises: InputError for a log without rows, clicks, or a history that was asked for, or of mixed columns."""
        if not self.rows:
            raise InputError(f"{path} has no rows.")
        if columns.label and not self.clicks:
            raise InputError(f"{path}: every {columns.label} is 0; there is no click to learn from.")
        for name, value in columns.histories:
            if not self.histories[value]:
                problem = f"{path}: --histories {name}={value}: no row of column {name} is {value!r}"
                if earlier is None:
                    raise InputError(f"{problem}.")
                say.warning(f"{problem}, so that all of these histories are empty.")  # a day may be so
        for name, forms in self.forms.items():
            if len(forms) > 1:
                found = " in one part and ".join(sorted(forms))
                raise InputError(f"{path}: column {name} is {found} in another; write it alike.")


def typed_log(
    frame: pl.DataFrame, path: Path, columns: Columns, earlier: dict[str, Any] | None
) -> tuple[pl.DataFrame, Facts]:
    """A log, or a part of one, as `Source.log`.

    Args:
      frame: columns by `log_columns`.
      path: for messages.
    Raises: InputError on values that are not as they must be.
    """
    text = columns.text_format
    log = {
        "user": as_keys(frame["user"], path, columns.user, text),
        "item": as_keys(frame["item"], path, columns.item, text),
        "time": as_times(frame["time"], path, columns.time, text),
    }
    if "gap" in columns.click_features and is_calendar(frame["time"]):
        raise InputError(
            f"{path}: column {columns.time} has dates written as numbers, such as {frame['time'][0]}, whose "
            "differences are no times; write ISO 8601 (2025-11-30T17:15:00), or leave gap out of --click-features."
        )
    if columns.label:
        log["click"] = as_labels(frame["click"], path, columns.label, text)
    if columns.weight:
        weights = as_numbers(frame["weight"], path, columns.weight, text=text)
        log["weight"] = weights.cast(pl.Float32)
        wrong = ~((log["weight"] > 0) & log["weight"].is_finite())
        if wrong.any():
            row = wrong.arg_true()[0]
            problem = f"weight {weights[row]:g}; weights must be above 0, in float32 (leave such rows out)."
            raise refuse_row(path, columns.weight, row, problem, text)
    for name in columns.side:
        log[name] = _categories(frame[f"side {name}"], path, name, earlier)
        if not earlier:
            _refuse_numbers(log[name], path, name)
    for name in columns.numbers:
        log[name] = as_numbers(frame[f"numeric {name}"], path, name, nulls=True, text=text).cast(pl.Float64)
    for name in columns.lists:
        log[name] = as_tags(frame[f"lists {name}"], path, name, columns.tag_separator)
    for name, _ in columns.hashed:
        log[name] = _categories(frame[f"hash {name}"], path, name)
    for name, _ in columns.labels:
        log[name] = as_labels(frame[f"labels {name}"], path, name, text)
    for name in columns.click_features:
        if name != "gap":
            values = frame[f"clicks {name}"]
            is_number = values.dtype.is_float() or (values.dtype == pl.String and is_fractions(values, text))
            if earlier and name in earlier["clicks"]:  # a day's values may look otherwise
                is_number = earlier["clicks"][name] == "numeric"
            log[f"click_{name}"] = (
                as_numbers(values, path, name, nulls=True, text=text).cast(pl.Float64)
                if is_number
                else _categories(values, path, name)
            )
    for name, value in columns.histories:
        written = _categories(frame[f"history {name}"], path, name)
        same = written.is_in(_alike(written, value)).fill_null(False)
        other = written.filter((written.str.strip_chars().str.to_lowercase() == value.lower()).fill_null(False) & ~same)
        other = other.filter(~other.is_in([named for column, named in columns.histories if column == name]))
        if len(other):
            raise InputError(
                f"{path}: --histories {name}={value}: column {name} has {other[0]!r}, too, which differs in case or "
                "spaces alone; write them alike, or name it as a history of its own."
            )
        if f"item_seq_{value}" in log or value == SKIPPED or "/" in value or not value.isprintable():
            raise InputError(
                f"--histories {name}={value}: item_seq_{value} is no name for a column, or is there twice."
            )
        log[f"item_seq_{value}"] = same
    forms = {"time": form_of_times(frame["time"], text)}
    forms |= {f"click_{n}": str(log[f"click_{n}"].dtype) for n in columns.click_features if n != "gap"}
    forms |= {name: form_of_lists(frame[f"lists {name}"], columns.tag_separator) for name in columns.lists}
    return pl.DataFrame(log), Facts(
        rows=len(frame),
        clicks=int(log["click"].sum()) if columns.label else len(frame),
        histories={value: int(log[f"item_seq_{value}"].sum()) for _, value in columns.histories},
        forms={name: {form: len(frame)} for name, form in forms.items() if form and len(frame)},
    )


def _alike(values: pl.Series, value: str) -> list[str]:
    """Those of the different values that say the same as `value`, as 5.0 and 5 do, and True and true."""
    return [each for each in values.drop_nulls().unique() if as_hashed(each) == as_hashed(value)]


def _categories(values: pl.Series, path: Path, name: str, earlier: dict[str, Any] | None = None) -> pl.Series:
    """Text, null where there is none.

    Raises: InputError if the column is neither text nor whole numbers; what goes on from an earlier log may have other
      numbers, which are categories that are new.
    """
    if values.dtype.is_float() or values.dtype.is_decimal():
        values = whole_numbers(values)
        if earlier and not is_category(values.dtype):
            values = (values.fill_nan(None) if values.dtype.is_float() else values).cast(pl.String)
    if not is_category(values.dtype):
        raise InputError(
            f"{path}: column {name} has type {values.dtype}; categories are text or whole numbers, "
            "and --numeric or --item-numeric takes other numbers."
        )
    return values.cast(pl.String).replace("", None)


def _refuse_numbers(values: pl.Series, path: Path, name: str, of: str = "") -> None:
    """Raises: InputError if a side feature is a number with fractions, as a price is. Warns of very many integers."""
    known = values.drop_nulls()
    numbers = known.cast(pl.Float64, strict=False)
    if not len(known) or numbers.null_count() or (distinct := known.n_unique()) <= _MOST_CATEGORIES:
        return
    like = f"{distinct:,} different numbers, such as {known[0]}"
    if known.str.contains(r"[.eE]").any():
        raise InputError(f"{path}: --{of}side {name} holds {like}; say --{of}numeric {name}, for a number.")
    say.warning(f"{path}: --{of}side {name} holds {like}, taken as categories; --{of}numeric {name} takes a number.")


def _read_items(path: Path, columns: Columns, earlier: dict[str, Any] | None) -> pl.DataFrame:
    wanted = {"item": columns.item_key} | ({"tags": columns.tags} if columns.tags else {})
    numbers = dict.fromkeys(columns.numeric + columns.item_numbers)
    wanted |= {f"text {name}": name for name in columns.text} | {f"number {name}": name for name in numbers}
    wanted |= {f"side {name}": name for name in columns.item_side}
    names = [("item-side", name) for name in columns.item_side]
    _check_names(names + [("item-numeric", name) for name in columns.item_numbers], path)
    text = item_format(path, columns)
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
    for name in columns.item_side:
        items[name] = _categories(frame[f"side {name}"], path, name, earlier)
        if not earlier:
            _refuse_numbers(items[name], path, name, "item-")
    for name in numbers:
        items[name] = as_numbers(frame[f"number {name}"], path, name, nulls=True, text=text)
    return pl.DataFrame(items)


def _read_arguments(args: argparse.Namespace) -> Source:
    return read(args.path, args.items, columns_of(args), args.earlier.columns if args.earlier else None)


def columns_of(args: argparse.Namespace) -> Columns:
    """The columns as the options name them, or as those of an earlier preparation."""
    given = {field.name: getattr(args, field.name) for field in fields(Columns) if field.name not in _NOT_OPTIONS}
    given["item_key"] = args.item_key or args.item
    earlier = args.earlier.columns if args.earlier else None
    if earlier:
        given = _as_earlier(given, earlier, args.items)
        given["tag_separator"] = given["tag_separator"] or args.earlier.manifest.get("tag_separator")
    numeric = tuple(name for name in args.levels if name != "clicks")
    words = args.null_words
    if earlier and words is NULL_WORDS:  # not those that are values there, as earlier versions read them
        known = {value for names in (*args.earlier.side.values(), args.earlier.tags) for value in names["value"]}
        words = tuple(word for word in words if word not in known)
    text = TextFormat(args.separator, args.decimal, args.quote or None, args.header, words, args.encoding)
    return Columns(**given, numeric=numeric, text_format=text)


def _as_earlier(given: dict[str, Any], columns: dict[str, Any], items: Path | None) -> dict[str, Any]:
    """The options with what an earlier preparation made of its columns, where they do not say; nothing is proposed.

    Raises: InputError where it had features of items, and there is no item file now.
    """
    if not items and (features := columns["item_side"] + columns["item_numeric"]):
        raise InputError(f"--like: items have {', '.join(features)} there; name the file of items with --items.")
    then = {
        "label": next(iter(columns["label"]), None),
        "weight": next(iter(columns["weight"]), None),
        "side": tuple(columns["side"]),
        "numbers": tuple(columns["numeric"]),
        "lists": tuple(columns["lists"]),
        "hashed": tuple((name, str(size)) for name, size in columns["hashed"].items()),
        "labels": tuple((name, str(weight)) for name, weight in columns["labels"].items()),
        "click_features": tuple(columns["clicks"]),
        "histories": tuple((name, value) for value, name in columns["histories"].items()),
        "ignore": ("*",),
    }
    if items:
        then |= {"item_side": tuple(columns["item_side"]), "item_numbers": tuple(columns["item_numeric"])}
        then |= {"tags": next(iter(columns["item_lists"]), None), "text": tuple(columns["item_texts"])}
    return given | {name: value for name, value in then.items() if not given[name]} | {"ignore": ("*",)}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    where = "where the work is done: here, or on Spark, as spark-submit or SPARK_HOME say (default: %(default)s)"
    parser.add_argument("--engine", choices=("local", "spark"), default="local", help=where)
    add = parser.add_argument_group("columns of the log").add_argument
    add("--user", default=Columns.user, metavar="COLUMN", help="user ids (default: %(default)s)")
    add("--item", default=Columns.item, metavar="COLUMN", help="item ids (default: %(default)s)")
    add("--time", default=Columns.time, metavar="COLUMN", help="numbers, dates or ISO 8601 text (default: %(default)s)")
    add("--label", metavar="COLUMN", help="1 clicked, 0 shown and not clicked (without: all are clicks)")
    add("--weight", metavar="COLUMN", help="how much a row counts in the training loss")
    more = "other columns of 0 and 1 that the model learns at once, such as liked=0.3, and what they count in the loss"
    add("--labels", type=pairs, default=(), metavar="COLUMN=WEIGHT,…", help=more)
    names = {"type": comma_separated, "default": (), "metavar": "COLUMN,…"}
    add("--side", **names, help="categories of a row, such as the device")
    add("--numeric", **names, dest="numbers", help="numbers of a row, such as its price")
    add("--lists", **names, help="several values a row, such as interests: lists, or text with separators")
    of_hash = "values of a row that are hashed to SIZE ids in training, instead of being numbered here"
    add("--hash", type=pairs, default=(), dest="hashed", metavar="COLUMN=SIZE,…", help=of_hash)
    of_clicks = "features of each click of the history, such as the action; gap: the time since, in seconds or as it is"
    add("--click-features", **names, help=of_clicks)
    of_histories = "rows that are a history of their own, such as action=buy; they stay in the first one, too"
    add("--histories", type=pairs, default=(), metavar="COLUMN=VALUE,…", help=of_histories)
    ignored = "columns, of log and items, that no use is proposed for; * for all"
    add("--ignore", type=comma_separated, default=(), metavar="COLUMN,…", help=ignored)
    add = parser.add_argument_group("items").add_argument
    add("--items", type=expanded, metavar="FILE", help="one row per item: CSV, TSV or Parquet")
    add("--item-key", metavar="COLUMN", help="item ids there (default: as --item)")
    add("--tags", metavar="COLUMN", help="lists, or text with separators")
    add("--tag-separator", type=_separator, metavar="TEXT", help="between tags in text (default: |)")
    add("--text", **names, help="joined to the item's text, for embed")
    add("--item-side", **names, help="categories of an item, such as the brand")
    add("--item-numeric", **names, dest="item_numbers", help="numbers of an item, such as its price")
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
