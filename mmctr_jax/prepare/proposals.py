"""What to make of a column that nobody named: a kind, and the reason for it, which the config then shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from mmctr_jax.console import log as say
from mmctr_jax.data.parquet import uncommon_columns, uniform_types
from mmctr_jax.errors import InputError
from mmctr_jax.prepare.columns import Columns, item_format, name_problem
from mmctr_jax.prepare.raw_tables import column_names, is_readable, read_table, table_files
from mmctr_jax.prepare.raw_values import (
    LARGEST,
    PLAIN,
    as_labels,
    as_numbers,
    is_category,
    looks_like_lists,
    may_have_decimal_commas,
    unit_of,
)
from mmctr_jax.prepare.text_files import TextFormat, is_text

_DATES = r"^(\d{4}-\d\d-\d\d|(\d\d?[./-]\d\d?[./-]\d{4}|\d{4}[./]\d\d?[./]\d\d?)([ T].*)?$)"  # 30.11.2025
_OF_PANDAS = r"Unnamed: \d+|__index_level_\d+__"
_NO_VALUE = 3  # different texts without a digit that may mean, in a column of numbers, that nothing is known
_SIGN, _CURRENCY = r"\p{Sc}?", r"(\p{Sc}|EUR|USD|GBP|CHF|CNY|JPY|INR|BRL|%)?"
_DIGITS = r"(\d+|\d{1,3}([,.'\s]\d{3})+)([.,]\d+)?"
_NUMBER = rf"\s*{_SIGN}\s*[-+]?\s*{_SIGN}\s*{_DIGITS}\s*{_CURRENCY}\s*"  # $1,250.50, 12 %, 5 EUR
_AMOUNT = rf"^({_NUMBER}|\s*\({_NUMBER}\)\s*)$"  # accountants write (0.50) for -0.50
_EACH = 10_000  # rows with different whole numbers, from which on these are no measure of anything
_CATEGORIES = 50  # different whole numbers that are taken for categories
_HASHED = 100_000  # different values from which on they are hashed
_BUCKETS = 2**17
_TELLS = 0.9  # AUC of one column, from which on it seems to be known only after the click
_BINS = 64
_CHANCE = 1e-9  # of so many clicks in a row
LABELS = ("label", "labels", "click", "clicked", "clicks", "is_click", "is_clicked")
_SAMPLE = 200_000  # rows that the AUC is found on


class Proposal(NamedTuple):
    """A kind (None: the column is left out) and why."""

    kind: str | None
    reason: str


def with_proposals(path: Path, items: Path | None, columns: Columns) -> tuple[Columns, dict[str, str]]:
    """With a kind for every column that nobody named, and the reason for each."""
    if "*" in columns.ignore:
        return columns, {}
    text, reasons, left_out = columns.text_format, {}, []
    of_item_file = item_format(items, columns) if items else text
    present = {*column_names(path, text), *(column_names(items, of_item_file) if items else ())}
    check_ignored(present, columns)

    def proposed(
        file: Path, text: TextFormat, used: set[str], propose: Callable[..., Proposal]
    ) -> Iterator[tuple[str, str]]:
        names = [name for name in column_names(file, text) if name not in used and name not in columns.ignore]
        if not is_text(file):
            types = uniform_types(table_files(file), names)
            names = [name for name in names if is_readable(types[name])]
            left_out.extend(f"{name} of {file} (its type is {types[name]})" for name in types if name not in names)
        frame = read_table(file, {str(i): name for i, name in enumerate(names)}, text) if names else pl.DataFrame()
        for i, name in enumerate(names):
            kind, reason = propose(frame[str(i)], text=text)
            if re.fullmatch(_OF_PANDAS, name):
                kind, reason = None, "a number of the row, which pandas gave"
            if kind not in (None, "tags", "text") and (problem := name_problem(name)):
                kind, reason = None, problem
            if kind is None:
                left_out.append(f"{name} of {file} ({reason})")
            else:
                reasons[name] = reason
                yield name, kind

    for file in (path, items) if items else (path,):
        if not is_text(file):
            left_out += [
                f"{name} of {file} (only some of its files have it)" for name in uncommon_columns(table_files(file))
            ]
    label = None
    if columns.label:
        label = as_labels(read_table(path, {"label": columns.label}, text)["label"], path, columns.label, text)
    else:
        _refuse_unnamed_label(path, columns)
    found: dict[str, list[str]] = {}
    for name, kind in proposed(path, text, columns.of_log, partial(of_rows, label=label)):
        found.setdefault(kind, []).append(name)
    of_log = {name for _, name in columns.named} | {name for names in found.values() for name in names}
    for name, kind in proposed(items, of_item_file, columns.of_items | of_log, of_items) if items else ():
        found.setdefault(kind, []).append(name)
    if columns.tags and "tags" in found or len(found.get("tags", [])) > 1:
        kept = [] if columns.tags else found["tags"][:1]
        left_out += [f"{name} of {items} (more lists; --tags takes one)" for name in found["tags"] if name not in kept]
        found["tags"] = kept
    hashed = tuple((name, str(_BUCKETS)) for name in found.get("hash", []))
    columns = replace(
        columns,
        side=columns.side + tuple(found.get("side", ())),
        numbers=columns.numbers + tuple(found.get("numeric", ())),
        lists=columns.lists + tuple(found.get("lists", ())),
        hashed=columns.hashed + hashed,
        tags=columns.tags or next(iter(found.get("tags", ())), None),
        text=columns.text + tuple(found.get("text", ())),
        item_side=columns.item_side + tuple(found.get("item_side", ())),
        item_numbers=columns.item_numbers + tuple(found.get("item_numeric", ())),
    )
    for kind, names in found.items():
        option = kind.replace("_", "-")
        for name in names:
            say.info(f"Column {name}: taken as --{option} ({reasons[name]}); --ignore {name} leaves it out.")
    for name in left_out:
        say.info(f"Left out: column {name}.")
    return columns, {name: f"proposed: {reason}" for name, reason in reasons.items()}


def check_ignored(present: set[str], columns: Columns) -> None:
    """Raises: InputError where --ignore names a column that neither log nor items have."""
    if missing := [name for name in columns.ignore if name not in present]:
        raise InputError(
            f"--ignore {missing[0]}: there is no such column; there are {', '.join(sorted(present)[:20])}."
        )


def _refuse_unnamed_label(path: Path, columns: Columns) -> None:
    """Raises: InputError where a column seems to say what was clicked, and no option says so."""
    present = column_names(path, columns.text_format)
    if not {columns.user, columns.item, columns.time} <= set(present):
        return  # what is missing is told of when the log is read
    for name in present:
        if name.lower() in LABELS and name not in (*columns.of_log, *columns.ignore):
            found = read_table(path, {name: name}, columns.text_format)[name].drop_nulls()
            if len(found) and _is_like_label(found, path, name, columns.text_format):
                raise InputError(
                    f"{path} has a column {name!r} of values from 0 to 1; say --label {name} if it says what was "
                    f"clicked, or --ignore {name} if every row is a click."
                )


def _is_like_label(known: pl.Series, path: Path, name: str, text: TextFormat) -> bool:
    """Whether these are 0 and 1, words for them, or numbers between."""
    with suppress(InputError):
        return as_labels(known, path, name, text) is not None
    with suppress(InputError):
        return bool(as_numbers(known, path, name, text=text).is_between(0, 1).all())
    return False


def of_rows(values: pl.Series, label: pl.Series | None, text: TextFormat = PLAIN) -> Proposal:
    """For a column of the log: side, numeric, lists or hash. label: (rows,) bool, where the log has non-clicks."""
    values = _floats(values)
    found = _by_values(values, text)
    if found.kind in ("side", "numeric", "hash") and label is not None and (area := _auc(values, label)) >= _TELLS:
        return Proposal(None, f"it alone tells clicks from others (AUC {area:.2f}), as what is known only afterwards")
    if found.kind and label is not None and (rows := _always_clicked(values, label)):
        return Proposal(None, f"{rows:,} rows of a value are all clicks, as of what is known only afterwards")
    return found


def of_items(values: pl.Series, text: TextFormat = PLAIN) -> Proposal:
    """For a column of the item file: item_side, item_numeric, tags or text."""
    values = _floats(values)
    kind, reason = _by_values(values, text)
    known = values.drop_nulls()
    single = kind in ("side", "hash", None) and 2 * known.n_unique() > len(known) > 2
    measured = kind is None and reason.startswith(("dates", "times", "numbers"))
    if values.dtype == pl.String and single and not measured and not _are_long(known) and not _are_amounts(known):
        words = known.str.split(" ").list.len().mean()
        return Proposal("text", f"a text of its own for most items, {words:.0f} words on average")
    names = {"side": "item_side", "hash": "item_side", "numeric": "item_numeric", "lists": "tags"}
    return Proposal(names.get(kind), reason)


def _floats(values: pl.Series) -> pl.Series:
    return values.cast(pl.Float64) if values.dtype.is_decimal() else values


def _by_values(values: pl.Series, text: TextFormat) -> Proposal:
    known, rows = values.drop_nulls(), len(values)
    if known.dtype == pl.String:
        known = known.filter(known != "")
    if known.dtype.is_float():
        known = known.fill_nan(None).drop_nulls()
    if isinstance(known.dtype, pl.List | pl.Array):
        inner = is_category(known.dtype.inner)
        if not known.cast(pl.List(known.dtype.inner)).list.len().max():
            return Proposal(None, "no values")
        return Proposal("lists", "lists") if inner else Proposal(None, f"lists of {known.dtype.inner}")
    if not (is_category(known.dtype) or known.dtype.is_float() or known.dtype.is_decimal()) or known.dtype == pl.Date:
        return Proposal(None, f"its type is {known.dtype}")
    distinct = known.n_unique()
    if distinct < 2:
        return Proposal(None, "one value" if distinct else "no values")
    if known.dtype == pl.String and looks_like_lists(known) and not _are_amounts(known):
        return Proposal("lists", "lists written as text")
    if known.dtype == pl.String and known.str.contains(_DATES).all():
        return Proposal(None, "dates")
    numbers = (
        known if known.dtype.is_numeric() else _as_written(known.cast(pl.String), text).cast(pl.Float64, strict=False)
    )
    if known.dtype != pl.Boolean and not _are_codes(known) and not numbers.null_count():
        if not (numbers.abs() <= LARGEST).all():
            return Proposal(None, "numbers that are not finite, or too large for float32")
        whole = known.dtype.is_integer() or ((numbers == numbers.floor()) & (numbers.abs() < 2**53)).all()
        each = whole and distinct == len(known) > _CATEGORIES
        if each and (distinct >= _EACH or numbers.max() - numbers.min() == distinct - 1):
            return Proposal(None, f"{distinct:,} different whole numbers, another one in each row, as of ids")
        if whole and distinct <= _CATEGORIES:
            return Proposal("side", f"{distinct} different whole numbers")
        if whole and unit_of(numbers).is_not_null().all():
            return Proposal(None, f"times such as {known[0]}")
        return Proposal("numeric", f"{distinct:,} different numbers")
    if known.dtype == pl.String and _are_amounts(known):
        commas = may_have_decimal_commas(known.filter(known.str.contains(",", literal=True)))
        advice = "write plain numbers" + (", or say --decimal ','" if commas else "")
        return Proposal(None, f"amounts such as {known[0]!r}; {advice}")
    other = known.filter(numbers.is_null()).unique(maintain_order=True)
    few = 0 < len(other) <= _NO_VALUE and 10 * numbers.null_count() <= len(known)
    many = distinct > _CATEGORIES or 2 * distinct > rows  # fewer that repeat are sizes and versions
    if known.dtype == pl.String and many and few and not other.str.contains(r"\d").any():
        words = " and ".join(map(repr, other.to_list()))
        return Proposal(None, f"numbers, but for {words}; if that means that nothing is known, add it to --null-words")
    if 2 * distinct > rows and distinct > _CATEGORIES:
        return Proposal(None, f"{distinct:,} different values in {rows:,} rows")
    if distinct > _HASHED:
        return Proposal("hash", f"{distinct:,} different values, hashed to {_BUCKETS:,}")
    return Proposal("side", f"{distinct:,} different values")


def _are_codes(known: pl.Series) -> bool:
    """Whether text has leading zeros, as postal codes do, or whole numbers are too long to be exact, as ids are."""
    return _are_long(known) or (known.dtype == pl.String and bool(known.str.contains(r"^0\d").any()))


def _are_long(known: pl.Series) -> bool:
    """Whether most are whole numbers that no float holds exactly."""
    if known.dtype == pl.String:
        known = known.filter(known.str.contains(r"^-?\d{16,}$"))
    elif not known.dtype.is_integer():
        return False
    return len(known) > 0 and 2 * (known.cast(pl.Float64).abs() >= 2**53).sum() > len(known)


def _as_written(known: pl.Series, text: TextFormat) -> pl.Series:
    """Text with a dot before decimals, where the file has none otherwise."""
    if text.decimal == "." or known.str.contains(".", literal=True).any():
        return known
    return known.str.replace(text.decimal, ".", literal=True)


def _are_amounts(known: pl.Series) -> bool:
    """Whether text, where it is not empty, is numbers with signs or separators."""
    known = known.filter(known != "")
    return len(known) > 0 and bool(known.str.contains(_AMOUNT).all()) and not _are_codes(known)


def _always_clicked(values: pl.Series, label: pl.Series) -> int:
    """Rows of a value, or of its being known at all, that are all clicks, where chance makes that most unlikely."""
    if isinstance(values.dtype, pl.List | pl.Array):
        values = values.cast(pl.List(values.dtype.inner)).list.len()
    keys = [values.is_not_null(), values.cast(pl.String).fill_null("")]
    if values.dtype.is_float():
        keys[1] = values.fill_nan(None).is_not_null() & (values != 0).fill_null(False)
    base = float(label.mean())
    for key in keys:
        groups = pl.DataFrame({"key": key, "label": label}).group_by("key").agg(pl.len(), pl.col("label").sum())
        pure = groups.filter(pl.col("len") == pl.col("label"))["len"].max() or 0
        if 0 < base < 1 and base**pure < _CHANCE:
            return int(pure)
    return 0


def _auc(values: pl.Series, label: pl.Series) -> float:
    """Of the label by the click rate of each value or range of numbers, learned from the other half of the rows."""
    from sklearn.metrics import roc_auc_score

    step = max(len(values) // _SAMPLE, 1)
    values, y = values.gather_every(step), label.gather_every(step).to_numpy()
    if values.dtype.is_float():
        numbers = values.fill_null(np.nan).to_numpy()
        cuts = np.nanquantile(numbers, np.arange(1, _BINS) / _BINS) if not np.isnan(numbers).all() else []
        codes = np.where(np.isnan(numbers), 0, 1 + np.searchsorted(cuts, numbers))
    else:
        codes = values.cast(pl.String).fill_null("").rank("dense").to_numpy()
    half = np.random.default_rng(0).random(len(y)) < 0.5
    size = int(codes.max()) + 1
    scores = np.empty(len(y))
    for part in (half, ~half):
        counts, clicks = np.bincount(codes[~part], minlength=size), np.bincount(codes[~part], y[~part], size)
        scores[part] = ((clicks + y.mean()) / (counts + 1))[codes[part]]
    return float(roc_auc_score(y, scores)) if 0 < y.mean() < 1 else 0.5
