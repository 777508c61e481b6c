"""Columns of raw tables as ids, numbers, labels and times, or one sentence that says where one is wrong."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import numpy as np
import polars as pl

from mmctr_jax.console import log
from mmctr_jax.errors import InputError
from mmctr_jax.prepare.text_files import TextFormat, is_text, line_of_row

PLAIN = TextFormat()
NO_HEADER = TextFormat(header=False, quote=None)
_TRUE, _FALSE = ("true", "t", "yes"), ("false", "f", "no")
_DAY = 86_400 * 10**9  # nanoseconds
LARGEST = float(np.finfo(np.float32).max)  # infinity and NaN are not below it
_LIMIT = np.iinfo(np.int64).max  # nanoseconds from 1970: the year 2262
_TODAY = (946_684_800, 2_082_758_400)  # seconds, of the years 2000 to 2035
_LIKELY = (631_152_000, 2_082_758_400)  # seconds, of the years 1990 to 2035
_MOST_AHEAD = 14 * 60  # minutes that a clock is from that of Greenwich
_ROUNDED = r"^\d(\.\d+)?[eE]\+\d+$"  # 1.23457E+12
_UNITS = [(10**8 * unit, min(10**10 * unit, _LIMIT)) for unit in (1, 10**3, 10**6, 10**9)]
"""Times in s, ms, μs and ns of the years 1973 to 2286."""
_ISO = (
    r"^(?<date>\d{4}-\d\d-\d\d|\d{8})(?:[T ](?<clock>\d\d:?\d\d(?::?\d\d)?)(?:[.,](?<fraction>\d{1,9})\d*)?)?"
    r" ?(?<zone>[Zz]|UTC|GMT|[+-]\d\d(?::?[0-5]\d)?)?$"
)


def refuse_row(path: Path, column: str, row: int, problem: str, text: TextFormat = PLAIN) -> InputError:
    """The error that says where a value is wrong.

    Args:
      row: from 0.
      text: how the file is written, if it is a text file: tells the line.
    """
    place = f"line {line_of_row(path, row, text)}" if is_text(path) else f"row {row}"
    return InputError(f"{path}, column {column}, {place}: {problem}")


def as_keys(values: pl.Series, path: Path, column: str, text: TextFormat = PLAIN) -> pl.Series:
    """User or item ids: integers if all are, in text too, and where pandas made them floats; otherwise text.

    Raises: InputError on nulls, and where a spreadsheet has rounded them.
    """
    if values.dtype.is_float() or values.dtype.is_decimal():
        values = whole_numbers(values)
    if values.dtype == pl.UInt64 and len(values) and (values.max() or 0) > np.iinfo(np.int64).max:
        keys = values.cast(pl.String)  # hashes of 64 bits, as text: the same that a text file gives
    elif values.dtype.is_integer():
        keys = values.cast(pl.Int64, strict=False)
    elif values.dtype in (pl.String, pl.Categorical, pl.Enum):
        keys = values.cast(pl.String).replace("", None)
        rounded = keys.str.contains(_ROUNDED).fill_null(False)
        if rounded.any():
            row = rounded.arg_true()[0]
            problem = f"{keys[row]!r}: a spreadsheet has rounded this id, and others to the same; export ids as text."
            raise refuse_row(path, column, row, problem, text)
        numbers = keys.cast(pl.Int64, strict=False)
        if numbers.null_count() == keys.null_count() and (numbers.cast(pl.String) == keys).all():
            keys = numbers
    else:
        raise InputError(f"{path}: column {column} has type {values.dtype}; ids must be integers or text.")
    if keys.null_count():
        row = keys.is_null().arg_true()[0]
        problem = f"no id, or a word for null ({keys.null_count():,} rows are so); fill or drop such rows."
        raise refuse_row(path, column, row, problem, text)
    return keys


def whole_numbers(values: pl.Series) -> pl.Series:
    """Floats and decimals as integers, if they are whole and small enough to be exact; otherwise as they are."""
    numbers = values.fill_nan(None) if values.dtype.is_float() else values
    as_floats = numbers.cast(pl.Float64)
    exact = {pl.Float16: 2**11, pl.Float32: 2**24}.get(values.dtype, 2**53)  # whole numbers below that are
    whole = (as_floats == as_floats.floor()).all() and (as_floats.abs() < exact).all()
    if not whole and values.dtype.is_decimal() and values.dtype.scale == 0:  # exact, however long
        return numbers.cast(pl.String)
    return as_floats.cast(pl.Int64) if whole else values


def as_numbers(values: pl.Series, path: Path, column: str, nulls: bool = False, text: TextFormat = PLAIN) -> pl.Series:
    """Numbers, or text that is numbers, as Float64 (integers as Int64).

    Args:
      nulls: whether empty values are accepted, and become null.
    Raises: InputError at the first other value.
    """
    if nulls and values.dtype.is_float():
        values = values.fill_nan(None)
    written = values
    if values.dtype == pl.String:
        values = values.str.strip_chars()
    if values.dtype == pl.String and text.decimal != ".":
        dots = values.str.contains(".", literal=True).fill_null(False)
        if dots.any():
            row = dots.arg_true()[0]
            problem = f"{values[row]!r} has a '.', and --decimal is {text.decimal!r}; write numbers without thousands."
            raise refuse_row(path, column, row, problem, text)
        values = values.str.replace(text.decimal, ".", literal=True)
    empty = values.is_null() | (values == "") if values.dtype == pl.String else values.is_null()
    if values.dtype.is_integer() or values.dtype == pl.Boolean:
        numbers = values.cast(pl.Int64, strict=False)
    elif values.dtype == pl.String:
        numbers = values.cast(pl.Int64, strict=False)
        if numbers.null_count() > empty.sum():
            numbers = values.cast(pl.Float64, strict=False)
    elif values.dtype.is_float() or values.dtype.is_decimal():
        numbers = values.cast(pl.Float64)
        if values.dtype.is_decimal() and values.dtype.scale == 0 and (numbers.abs() < _LIMIT).all():
            numbers = values.cast(pl.Int64)  # exact, however long
    else:
        raise InputError(f"{path}: column {column} has type {values.dtype}; it must be numbers.")
    wrong = numbers.is_null() if numbers.dtype == pl.Int64 else numbers.is_null() | ~(numbers.abs() <= LARGEST)
    if nulls:
        wrong = wrong.fill_null(True) & ~empty
    if wrong.any():
        row = wrong.arg_true()[0]
        if empty[row]:
            raise refuse_row(path, column, row, "no number; fill or drop such rows.", text)
        comma = text.decimal == "." and may_have_decimal_commas(written.filter(wrong))
        advice = "say --decimal ','" if comma else "correct or drop it"
        raise refuse_row(path, column, row, f"{written[row]!r} is not a number that fits; {advice}.", text)
    return numbers


def may_have_decimal_commas(values: pl.Series) -> bool:
    """Whether text is numbers with a comma each, of which one at least cannot stand before thousands."""
    if values.dtype != pl.String:
        return False
    return bool(values.str.contains(r"^-?\d+,\d+$").all() and not values.str.contains(r"^-?\d{1,3},\d{3}$").all())


def as_labels(values: pl.Series, path: Path, column: str, text: TextFormat = PLAIN) -> pl.Series:
    """Booleans of 0 and 1, or of words such as True and False. Raises: InputError at the first other value."""
    if values.dtype == pl.String:
        words = values.str.to_lowercase().str.strip_chars()
        values = pl.select(
            pl.when(words.is_in(_TRUE)).then(pl.lit("1")).when(words.is_in(_FALSE)).then(pl.lit("0")).otherwise(values)
        ).to_series()
    label = as_numbers(values, path, column, text=text)
    wrong = (label != 0) & (label != 1)
    if wrong.any():
        row = wrong.arg_true()[0]
        raise refuse_row(path, column, row, f"label {label[row]:g}; labels must be 0 or 1.", text)
    return label == 1


def as_times(values: pl.Series, path: Path, column: str, text: TextFormat = PLAIN) -> pl.Series:
    """Numbers of any unit as they are; dates, times and ISO 8601 text as nanoseconds. Only their order counts.

    Raises: InputError at the first other value, at times outside of the years 1678 to 2261, where some times name
      a time zone and others do not, where some are in seconds and others in a smaller unit, and where some are far from
      all others, as words for a time that is not known.
    """
    clock = is_clock(values, text)
    if clock and values.null_count():
        row = values.is_null().arg_true()[0]
        raise refuse_row(path, column, row, "no time; fill or drop such rows.", text)
    if clock and values.dtype == pl.String:
        times = _iso_times(values, path, column, text)
        _refuse_no_times(times, values, path, column, text)
        return times
    if values.dtype == pl.Date or isinstance(values.dtype, pl.Datetime):
        unit = _DAY if values.dtype == pl.Date else {"ns": 1, "us": 10**3, "ms": 10**6}[values.dtype.time_unit]
        numbers = values.to_physical().cast(pl.Int64)
        _refuse_out_of_range(numbers.abs() > _LIMIT // unit, values, path, column, text)
        _refuse_no_times(numbers * unit, values, path, column, text)
        return numbers * unit
    numbers = as_numbers(values, path, column, text=text)
    if values.dtype in (pl.Float16, pl.Float32) and len(values) and numbers.abs().max() > 2**24:
        raise InputError(
            f"{path}: column {column} is of {values.dtype}, which rounds times as large as {numbers.max():.0f}; write "
            "it as int64 or float64."
        )
    _refuse_two_units(numbers, path, column, text)
    _refuse_no_times(numbers, numbers, path, column, text)
    return numbers


def is_clock(values: pl.Series, text: TextFormat = PLAIN) -> bool:
    """Whether `as_times` reads these as dates and clocks, in nanoseconds, and not as numbers of some unit."""
    if values.dtype != pl.String:
        return values.dtype.is_temporal()
    first = values.drop_nulls().head(1).str.replace(text.decimal, ".", literal=True)
    return len(first) > 0 and first.cast(pl.Float64, strict=False).null_count() > 0


def form_of_times(values: pl.Series, text: TextFormat = PLAIN) -> str:
    """What `as_times` takes these for."""
    if not is_clock(values, text):
        return "numbers"
    if values.dtype != pl.String:
        return "dates"
    zone = values.drop_nulls().head(1).str.strip_chars().str.extract_groups(_ISO).struct.field("zone")
    return "dates with a time zone" if zone.is_not_null().any() else "dates without a time zone"


def is_fractions(values: pl.Series, text: TextFormat = PLAIN) -> bool:
    """Whether text is numbers, some of them with fractions."""
    known = values.drop_nulls().str.replace(text.decimal, ".", literal=True)
    numbers = known.cast(pl.Float64, strict=False)
    return len(known) > 0 and not numbers.null_count() and bool(known.str.contains(r"[.eE]").any())


def _iso_times(values: pl.Series, path: Path, column: str, text: TextFormat) -> pl.Series:
    """Nanoseconds from 1970. Not by one format for all: exports leave out fractions, and clocks at midnight."""
    parts = (
        pl.DataFrame({"value": values.str.strip_chars()})
        .select(pl.col("value").str.extract_groups(_ISO))
        .unnest("value")
    )
    date = pl.col("date").str.replace(r"^(\d{4})(\d\d)(\d\d)$", "${1}-${2}-${3}")
    clock = pl.col("clock").fill_null("").str.replace_all(":", "", literal=True).str.pad_end(6, "0")
    frame = parts.select(
        moment=(date + "T" + clock).str.to_datetime("%Y-%m-%dT%H%M%S", strict=False, time_unit="ms"),
        fraction=pl.col("fraction").fill_null("0").str.pad_end(9, "0").cast(pl.Int64),
        offset=_offset(pl.col("zone")),
        has_zone=pl.col("zone").is_not_null(),
    )
    wrong = frame["moment"].is_null() | (frame["offset"].abs() > _MOST_AHEAD)
    if wrong.any():
        row = wrong.arg_true()[0]
        raise refuse_row(path, column, row, f"{values[row]!r} is not a time; write numbers or ISO 8601.", text)
    zones = frame["has_zone"]
    if zones.any() and not zones.all():
        row = (zones != zones[0]).arg_true()[0]
        problem = (
            f"{values[row]!r} and, above it, {values[0]!r}: one names a time zone and one does not; write all alike."
        )
        raise refuse_row(path, column, row, problem, text)
    milliseconds = frame["moment"].to_physical().cast(pl.Int64)
    _refuse_out_of_range(milliseconds.abs() > _LIMIT // 10**6 - _DAY // 10**6, values, path, column, text)
    return milliseconds * 10**6 + frame["fraction"] - frame["offset"] * 60 * 10**9


def _offset(zone: pl.Expr) -> pl.Expr:
    """Minutes that a zone's clock is ahead."""
    digits = zone.str.extract(r"^[+-](\d.*)$").str.replace(":", "", literal=True).str.pad_end(4, "0")
    minutes = digits.str.slice(0, 2).cast(pl.Int64) * 60 + digits.str.slice(2, 2).cast(pl.Int64)
    return pl.when(zone.str.starts_with("-")).then(-minutes).otherwise(minutes).fill_null(0)


def _refuse_out_of_range(wrong: pl.Series, values: pl.Series, path: Path, column: str, text: TextFormat) -> None:
    if wrong.any():
        row = wrong.arg_true()[0]
        problem = f"{values[row]} is outside of the years 1678 to 2261, as words for never are; correct or drop it."
        raise refuse_row(path, column, row, problem, text)


def _refuse_two_units(numbers: pl.Series, path: Path, column: str, text: TextFormat) -> None:
    """Refuses times in two units, as where two systems wrote the log; counters have times of any size."""
    of_units = [numbers.is_between(*unit) for unit in _UNITS]
    found = [(of_unit.sum(), of_unit.arg_true()[0]) for of_unit in of_units if of_unit.any()]
    today = unit_of(numbers).drop_nulls()
    all_in_units = sum(count for count, _ in found) == (numbers >= _UNITS[0][0]).sum()
    if len(found) > 1 and (all_in_units or (today.n_unique() > 1 and 100 * len(today) >= 99 * len(numbers))):
        (_, row), *_, (_, other) = sorted(found)
        problem = f"time {numbers[row]:.0f}, where others are as {numbers[other]:.0f}; write all in one unit."
        raise refuse_row(path, column, row, problem, text)


def _refuse_no_times(numbers: pl.Series, written: pl.Series, path: Path, column: str, text: TextFormat) -> None:
    """Refuses what is far from all other times, where these are of today: what some write where the time is not known,
    such as 0, 1970-01-01 and 2147483647, and times in another form, such as 20251130 beside seconds.

    written: as in the file, for messages.
    """
    far = far_from_today(numbers)
    if far is not None and far.any():
        row, other = far.arg_true()[0], (~far).arg_true()[0]
        shown = [f"{x:.0f}" if isinstance(x, float) else str(x) for x in (written[row], written[other])]
        problem = (
            f"time {shown[0]}, where others are as {shown[1]}; fill or drop rows whose time is not known, and write "
            "all in one form."
        )
        raise refuse_row(path, column, row, problem, text)


def far_from_today(numbers: pl.Series) -> pl.Series | None:
    """Which numbers are far from the others, where all others are times of one unit, or dates written as numbers, of
    the years 1990 to 2035, some later than 2000, and they are not fewer; None: they are not such."""
    units = unit_of(numbers)
    if units.null_count() < len(units):
        if units.n_unique() > 1 + (units.null_count() > 0):
            return None
        today, floats = numbers.filter(units.is_not_null()).cast(pl.Float64), numbers.cast(pl.Float64)
        far = (floats <= 0) | (10 * floats < today.min()) | (floats > 1.2 * today.max())
        scale = 10.0 ** (3 * units.drop_nulls()[0])
        others = floats.filter(~far)
        few = 2 * len(others) >= len(far) or floats.filter(far).max() <= 0
        return far if few and others.is_between(*(scale * second for second in _LIKELY)).all() else None
    for scale in (1, 10**4, 10**6) if numbers.dtype.is_integer() else ():  # of YYYYMMDD, with minutes, with seconds
        dates = numbers.filter(numbers.is_between(19_700_101 * scale, 21_001_231 * scale + scale - 1))
        of_two_digits = scale == 1 and len(dates) and _all_are(dates.cast(pl.String), 8, "%y%m%d%H")
        if 2 * len(dates) >= len(numbers) and is_calendar(dates) and not of_two_digits:
            years = numbers // (10**4 * scale)
            far = (years <= 1971) | (years > 2035)
            rest = years.filter(~far)
            return far if len(rest) and rest.min() >= 1990 else None
    return None


def unit_of(numbers: pl.Series) -> pl.Series:
    """In which unit numbers are times of the years 2000 to 2035: 0 for seconds to 3 for nanoseconds; null: in none."""
    floats, found = numbers.cast(pl.Float64), pl.lit(None, pl.Int64)
    for unit in range(4):
        first, last = (second * 10.0 ** (3 * unit) for second in _TODAY)
        found = pl.when(floats.is_between(first, last)).then(unit).otherwise(found)
    return pl.select(found).to_series() if len(numbers) else pl.Series([], dtype=pl.Int64)


def is_calendar(values: pl.Series) -> bool:
    """Whether whole numbers are dates, such as 20251130 or 20251130171500, or 25113017, as Avazu has hours."""
    if not (values.dtype.is_integer() or values.dtype == pl.String) or not len(values):
        return False
    written = values.cast(pl.String)
    digits = len(written[0] or "")
    forms = {8: ("%Y%m%d", "%y%m%d%H"), 10: ("%Y%m%d%H",), 12: ("%Y%m%d%H%M",), 14: ("%Y%m%d%H%M%S",)}
    return any(_all_are(written, digits, form) for form in forms.get(digits, ()))


def _all_are(written: pl.Series, digits: int, form: str) -> bool:
    if not (written.str.contains(r"^\d+$") & (written.str.len_chars() == digits)).all():
        return False
    year = written.str.slice(0, 4).cast(pl.Int64) if form.startswith("%Y") else pl.Series([2000])
    padded, form = (written + "00", form + "%M") if form.endswith("%H") else (written, form)
    return bool(year.is_between(1970, 2100).all()) and not padded.str.to_datetime(form, strict=False).null_count()


def as_tags(values: pl.Series, path: Path, column: str, separator: str | None) -> pl.Series:
    """Lists of text: of lists, of text with a separator, and of lists written as text (Python's or JSON's).

    Args:
      separator: between tags in text; None: "|", and it is refused if the text seems to have another.
    Raises: InputError if the column is of another type, or is text that seems to be lists of another form.
    """
    kind = values.dtype
    if kind == pl.String:
        values = _split(values, path, column, separator)
    elif is_category(kind):
        values = values.cast(pl.String).to_frame("tag").select(pl.concat_list("tag")).to_series()
    elif not (isinstance(kind, (pl.List, pl.Array)) and is_category(kind.inner)):
        raise InputError(f"{path}: column {column} has type {kind}; tags are lists, or text with separators.")
    values = values.cast(pl.List(pl.String))
    return values.list.eval(pl.element().str.strip_chars().filter(pl.element().str.strip_chars().fill_null("") != ""))


def looks_like_lists(values: pl.Series) -> bool:
    """Whether text without nulls is lists, written as such or with "|" between their items."""
    listed = [values.str.starts_with(begin) & values.str.ends_with(end) for begin, end in _LIST_MARKS[:2]]
    return bool((2 * sum(each.sum() for each in listed) > len(values)) or 5 * _with_bars(values) > len(values))


def _with_bars(values: pl.Series) -> int:
    return int(values.str.contains("|", literal=True).sum())


_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_OF_NUMBERS = re.compile(r"\s*\[\s*(-?\d+(\s*,\s*-?\d+)*)?\s*\]\s*$")
_LIST_MARKS = (("[", "]"), ("(", ")"), ("{", "}"))
_SEPARATORS = (",", ";", "/", "\x01", "\x02", "\x1d", "\t", "#", "^", "&&", "\n", "><", " > ", "\uff0c", "\u3001")


def _split(values: pl.Series, path: Path, column: str, separator: str | None) -> pl.Series:
    known = values.drop_nulls().str.strip_chars()
    known = known.filter(known != "")
    begin = _mark(known) if len(known) else None
    if separator is not None and begin and _written_list(known[0]) is not None:
        raise InputError(
            f"{path}: column {column} has lists written as text, such as {known[0][:60]!r}; leave --tag-separator out."
        )
    if separator is None and begin:
        return _written_lists(values, path, column, begin)
    if separator is None and len(known):
        _refuse_other_separators(known, path, column)
    if separator is None and (lists := _quoted_lists(values)):
        log.info(f"{path}: column {column} holds some lists written as text; they are read as lists of tags.")
        read = pl.DataFrame(
            {"value": [*lists], "tags": [*lists.values()]}, {"value": pl.String, "tags": pl.List(pl.String)}
        )
        frame = pl.DataFrame({"value": values}).join(read, on="value", how="left", maintain_order="left")
        return frame.select(pl.coalesce("tags", pl.col("value").str.split("|"))).to_series()
    return values.str.split(separator or "|")


def _quoted_lists(values: pl.Series) -> dict[str, list[str]]:
    """Each value that is a written list of quoted text, of whole numbers or of nothing, and its items: told by itself
    alone."""
    bracketed = values.drop_nulls().filter(values.drop_nulls().str.contains(r"^\s*\[.*\]\s*$")).unique()
    read = {value: _written_list(value) for value in bracketed if _QUOTED.search(value) or _OF_NUMBERS.match(value)}
    return {value: tags for value, tags in read.items() if tags is not None}


def _refuse_other_separators(known: pl.Series, path: Path, column: str) -> None:
    """Raises: InputError where another separator than "|" is in many values, or parts what stands alone elsewhere."""
    bars, plain = _with_bars(known), known.filter(~known.is_in([*_quoted_lists(known)]))
    alone = set(plain.unique())

    def with_other(other: str) -> tuple[pl.Series, bool]:
        """The texts with it, and whether it seems to separate what stands alone elsewhere."""
        found = plain.filter(plain.str.contains(other, literal=True))
        parts = {part.strip() for value in found.unique() for part in value.split(other)} - {""}
        some = not bars and 20 * len(found) > len(known) and len(parts) > 1
        return found, some and 5 * len(parts & alone) >= 4 * len(parts)

    for other in _SEPARATORS:
        found, separates = with_other(other)
        if separates or (5 * len(found) > len(known) and len(found) > 10 * bars):
            raise InputError(
                f"{path}: column {column} has {bars or 'no'} texts with the tag separator '|', and {len(found):,} of "
                f"{len(known):,} with {other!r}, such as {found[0][:60]!r}; say --tag-separator {other!r} if it "
                "separates tags, or --tag-separator '|' if it does not."
            )
    found, separates = with_other(" ")  # which names have, too
    if separates:
        log.warning(
            f"{path}: column {column} has {len(found):,} tags with spaces, such as {found[0][:60]!r}, between words "
            "that are tags by themselves elsewhere; if spaces separate tags, say --tag-separator ' '."
        )


def _mark(known: pl.Series) -> str | None:
    """How lists begin that text without nulls holds as text; None: it does not."""
    for begin, end in _LIST_MARKS:
        if 2 * (known.str.starts_with(begin) & known.str.ends_with(end)).sum() > len(known):
            return begin
    return None


def form_of_lists(values: pl.Series, separator: str | None) -> str | None:
    """What `as_tags` takes these for; None where nothing tells."""
    if values.dtype != pl.String or separator is not None:
        return "lists"
    known = values.drop_nulls().str.strip_chars()
    known = known.filter(known != "")
    return None if not len(known) else "lists written as text" if _mark(known) else "text with separators"


def _written_lists(values: pl.Series, path: Path, column: str, begin: str) -> pl.Series:
    """Lists that were written as text, as pandas does: ['a', 'b'], ["a", "b"], [1, 2], ('a', 'b')."""
    distinct = values.drop_nulls().unique(maintain_order=True)
    read = {value: _written_list(value) for value in distinct}
    for value, tags in read.items():
        if tags is None or begin == "{":
            row = (values == value).fill_null(False).arg_true()[0]
            problem = (
                f"{value[:60]!r} looks like a list of tags in a form that is not read; write JSON lists or a|b, or "
                "leave the column out."
            )
            raise refuse_row(path, column, row, problem)
    log.info(f"{path}: column {column} holds lists written as text; they are read as lists of tags.")
    return pl.Series(values.name, [None if value is None else read[value] for value in values], pl.List(pl.String))


def _written_list(value: str) -> list[str] | None:
    """The list's items as text; None if it is not a list of plain values with commas between them."""
    if not value.strip():
        return []
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        plain = isinstance(found, (list, tuple)) and all(
            isinstance(tag, (str, int, float, type(None))) for tag in found
        )
        # ['a' 'b'], as numpy writes it, is one string to Python.
        if not plain or len(found) != _items(value):
            return None
        return [str(tag) for tag in found if tag is not None and tag == tag]  # NaN differs from itself
    return None


def _items(value: str) -> int:
    """How many items a written list has by its quotes, or by its commas where there are none."""
    inside = value.strip()[1:-1].strip().rstrip(",")
    quoted, rest = _QUOTED.findall(inside), _QUOTED.sub("", inside)
    plain = [part for part in rest.split(",") if part.strip()]
    return len(quoted) + len(plain)


def is_category(kind: pl.DataType) -> bool:
    """Text or whole numbers."""
    return kind.is_integer() or kind in (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Date)


def refuse_duplicates(items: pl.Series, path: Path, column: str, text: TextFormat = PLAIN) -> None:
    """Raises: InputError at the second row of an item."""
    second = ~items.is_first_distinct()
    if second.any():
        row = second.arg_true()[0]
        raise refuse_row(path, column, row, f"item {items[row]} stands there twice; keep one of its rows.", text)


def check_items_match(clicked: pl.Series, items: pl.Series, path: Path, item_path: Path) -> str | None:
    """A warning if some clicked items have no row in the item file; None if all have.

    Raises: InputError if none has.
    """
    logged, known = (keys.cast(pl.String).unique(maintain_order=True) for keys in (clicked, items))
    missing = logged.filter(~logged.is_in(known.implode()))
    if not len(missing):
        return None
    example, reason = _nearly(missing, known)
    if len(missing) == len(logged):
        raise InputError(
            f"No item of {path} is in {item_path}: the log has {_some(logged)}, the item file {_some(known)}"
            f"{f' ({reason})' if reason else ''}; write the ids alike, or leave --items out."
        )
    near = f", though there is {example!r} ({reason})" if reason else ""
    return (
        f"{len(missing):,} of the {len(logged):,} items of {path} have no row in {item_path}, such as "
        f"{missing[0]!r}{near}: nothing but their clicks is known of them."
    )


def check_ids_go_on(ids: pl.Series, known: pl.Series, what: str, folder: Path) -> str | None:
    """A warning if ids that are new since an earlier preparation are known ones written otherwise; None if none is.

    Args:
      what: they are, in the plural.
      folder: of the earlier preparation.
    Raises: InputError if all of them are new, and some only written otherwise.
    """
    now = ids.cast(pl.String).unique(maintain_order=True)
    new = now.filter(~now.is_in(known.implode()))
    example, reason = _nearly(new, known)
    if not reason:
        if len(new) < len(now) or len(now) < _FEW:
            return None
        return f"None of the {len(now):,} {what} of this log is known to {folder}, which has {_some(known)}."
    if len(new) == len(now):
        raise InputError(
            f"No {what[:-1]} of this log is known to --like {folder}: the log has {_some(now)}, which had {example!r} "
            f"({reason}); write the ids alike."
        )
    return (
        f"{len(new):,} of {len(now):,} {what} are new, and some are known ones written otherwise: {folder} has "
        f"{example!r} ({reason})."
    )


def check_spelling(ids: pl.Series, what: str) -> str | None:
    """A warning if different ids of a log differ in how they are written alone; None if none do.

    Args:
      what: they are, in the singular.
    Raises: InputError if that is sure: where only spaces or characters that are not seen around them, or the decimals
      of whole numbers, tell them apart.
    """
    for reason, plain in _SAME_BUT_FOR.items() if ids.dtype == pl.String else ():
        if plain(ids).n_unique() == len(ids):
            continue
        alike = pl.DataFrame({"id": ids, "plain": plain(ids)}).filter(pl.col("plain").is_duplicated())
        alike = alike.sort("plain", "id")["id"]
        said = f"{len(alike):,} ids of {what}s, such as {alike[0]!r} and {alike[1]!r}, differ in {reason} alone"
        if reason in _SURE:
            raise InputError(f"{said}, and would be different {what}s; write them alike.")
        return f"{said}: they are taken for different {what}s."
    return None


def alike_categories(values: pl.Series) -> str | None:
    """Two different categories that differ in how they are written alone, and in what; None: there are none."""
    for reason, plain in _SAME_BUT_FOR.items():
        alike = values.filter(plain(values).is_duplicated())
        if len(alike):
            first = alike[0]
            other = values.filter((plain(values) == plain(alike.head(1))[0]) & (values != first))[0]
            return f"{first!r} and {other!r}, which differ in {reason} alone"
    return None


def _some(keys: pl.Series) -> str:
    return ", ".join(repr(key[:40]) for key in keys.head(3).to_list())


_UNSEEN = r"[\x00-\x1f\x7f\u{ad}\u{200b}\u{200e}\u{200f}\u{2060}\u{feff}]+"
_SAME_BUT_FOR = {
    "spaces around it": lambda keys: keys.str.strip_chars(),
    "decimals of a whole number": lambda keys: keys.str.replace(r"^(-?\d+)\.0+$", "${1}"),
    "characters around it that are not seen": lambda keys: keys.str.replace_all(f"^{_UNSEEN}|{_UNSEEN}$", ""),
    "a plus sign": lambda keys: keys.str.replace(r"^\+(\d)", "${1}"),
    "leading zeros": lambda keys: keys.str.replace(r"^0+(\d)", "${1}"),
    "upper and lower case": lambda keys: keys.str.to_lowercase(),
    "quotes around it": lambda keys: keys.str.replace(r"^(?:'(.*)'|\"(.*)\")$", "${1}${2}"),
    "the form of Unicode": lambda keys: keys.str.normalize("NFC"),
}
_SURE = ("spaces around it", "decimals of a whole number", "characters around it that are not seen")  # the first ones
_FEW = 10  # ids, of which chance may be that all are new


def _nearly(missing: pl.Series, known: pl.Series) -> tuple[str, str | None]:
    """A known id that is a missing one but for how it is written, and in what they differ."""
    for reason, plain in _SAME_BUT_FOR.items():
        frame = pl.DataFrame({"plain": plain(known), "known": known}).unique("plain", keep="first")
        found = pl.DataFrame({"plain": plain(missing)}).join(frame, on="plain", how="inner")
        if len(found):
            return found["known"][0], reason
    return "", None
