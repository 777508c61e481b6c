"""Raw tables, CSV or Parquet: their columns by name, and what is wrong with a value in one sentence."""

from __future__ import annotations

import difflib
from pathlib import Path

import polars as pl

from mmctr_jax.data.parquet import part_files
from mmctr_jax.errors import InputError

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


def table_files(path: Path) -> list[Path]:
    """The file itself, or a folder's Parquet part files. Raises: InputError if there is none."""
    if not str(path).isprintable():
        raise InputError(f"File name {ascii(str(path))} holds characters that cannot be printed; rename it.")
    if path.is_file() and path.suffix.lower() not in (*_SEPARATORS, ".parquet"):
        raise InputError(
            f"{path} is neither .csv, .tsv, .txt nor .parquet, nor a folder of .parquet files; convert it."
        )
    return [path] if path.is_file() else part_files(path)


def scan(path: Path, columns: dict[str, str], header: list[str] | None = None) -> pl.LazyFrame:
    """The named columns of a CSV file or of Parquet files, lazily, under new names. CSV columns are text.

    Args:
      columns: new name → name in the file.
      header: names of the columns of a file without a header line.
    Raises: InputError if the file cannot be read or lacks a column.
    """
    frame = _scan(path, header)
    present = frame.collect_schema().names()
    for column in columns.values():
        if column not in present:
            near = difflib.get_close_matches(column, present, 1)
            meant = f"did you mean {near[0]!r}? It" if near else "it"
            raise InputError(f"{path} has no column {column!r}; {meant} has {', '.join(present[:20])}.")
    return frame.select(pl.col(column).alias(name) for name, column in columns.items())


def column_names(path: Path) -> list[str]:
    """The columns of a CSV file with a header line, or of Parquet files.

    Raises: InputError if the file cannot be read.
    """
    return _scan(path).collect_schema().names()


def _scan(path: Path, header: list[str] | None = None) -> pl.LazyFrame:
    files = table_files(path)
    try:
        if files[0].suffix.lower() in _SEPARATORS:
            frame = pl.scan_csv(
                files[0],
                separator=_SEPARATORS[files[0].suffix.lower()],
                has_header=header is None,
                infer_schema=False,  # guessing from the first lines would fail on later ones
                quote_char=None if header else '"',
                glob=False,
            )
        else:
            parts = [pl.scan_parquet(file, glob=False, hive_partitioning=False) for file in files]
            columns = [part.collect_schema().names() for part in parts]
            common = [name for name in columns[0] if all(name in others for others in columns)]
            frame = pl.concat([part.select(common) for part in parts], how="vertical_relaxed")  # to the wider type
        present = frame.collect_schema().names()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(path, error) from None
    if header and len(present) != len(header):
        raise InputError(f"{path} has {len(present)} columns, {len(header)} are expected: {', '.join(header)}.")
    return frame.rename(dict(zip(present, header, strict=True))) if header else frame


def collect(frame: pl.LazyFrame, path: Path) -> pl.DataFrame:
    """The frame's rows, in order. Raises: InputError, naming `path`, if they cannot be read."""
    try:
        return frame.collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return InputError(f"{path} cannot be read: {reason}.")


def refuse_row(path: Path, column: str, row: int, problem: str, first_line: int = 2) -> InputError:
    """The error that says where a value is wrong.

    Args:
      row: from 0.
      first_line: the line of row 0 in a text file: 1 without a header.
    """
    place = f"line {row + first_line}" if path.suffix.lower() in _SEPARATORS else f"row {row}"
    return InputError(f"{path}, column {column}, {place}: {problem}")


def as_keys(values: pl.Series, path: Path, column: str, first_line: int = 2) -> pl.Series:
    """User or item ids: integers if all are, in text too; otherwise text. Raises: InputError on nulls."""
    if values.dtype.is_integer():
        keys = values.cast(pl.Int64, strict=False)
    elif values.dtype in (pl.String, pl.Categorical, pl.Enum):
        keys = values.cast(pl.String).replace("", None)
        numbers = keys.cast(pl.Int64, strict=False)
        if numbers.null_count() == keys.null_count() and (numbers.cast(pl.String) == keys).all():
            keys = numbers
    else:
        raise InputError(f"{path}: column {column} has type {values.dtype}; ids must be integers or text.")
    if keys.null_count():
        row = keys.is_null().arg_true()[0]
        raise refuse_row(path, column, row, "no id, or one beyond 64 bits; fill or drop it.", first_line)
    return keys


def as_numbers(values: pl.Series, path: Path, column: str, nulls: bool = False, first_line: int = 2) -> pl.Series:
    """Numbers, or text that is numbers, as Float64 (integers as Int64).

    Args:
      nulls: whether empty values are accepted, and become null.
    Raises: InputError at the first other value.
    """
    empty = values.is_null() | (values == "") if values.dtype == pl.String else values.is_null()
    if values.dtype.is_integer() or values.dtype == pl.Boolean:
        numbers = values.cast(pl.Int64, strict=False)
    elif values.dtype == pl.String:
        numbers = values.cast(pl.Int64, strict=False)
        if numbers.null_count() > empty.sum():
            numbers = values.cast(pl.Float64, strict=False)
    elif values.dtype.is_float() or values.dtype.is_decimal():
        numbers = values.cast(pl.Float64)
    else:
        raise InputError(f"{path}: column {column} has type {values.dtype}; it must be numbers.")
    wrong = numbers.is_null() if numbers.dtype == pl.Int64 else numbers.is_null() | ~numbers.is_finite()
    if nulls:
        wrong = wrong.fill_null(True) & ~empty
    if wrong.any():
        row = wrong.arg_true()[0]
        found = "nothing" if values[row] is None else repr(values[row])
        raise refuse_row(path, column, row, f"{found} is not a number that fits; correct or drop it.", first_line)
    return numbers


def as_times(values: pl.Series, path: Path, column: str) -> pl.Series:
    """Numbers of any unit, dates, times, or text of numbers or ISO 8601 times, as numbers; only their order counts.

    Raises: InputError at the first other value.
    """
    if values.dtype == pl.String:
        first = values.drop_nulls().head(1)
        if len(first) and first.cast(pl.Float64, strict=False).null_count():
            iso = values.str.contains(r"^\d{4}-\d\d-\d\d").fill_null(False)  # 03/04/2024 could be either month
            times = values.str.to_datetime(strict=False, time_unit="ns", time_zone="UTC")
            wrong = times.is_null() | ~iso
            if wrong.any():
                row = wrong.arg_true()[0]
                raise refuse_row(path, column, row, f"{values[row]!r} is not a time; write numbers or ISO 8601.")
            return times.to_physical()
    if values.dtype == pl.Date or isinstance(values.dtype, pl.Datetime):
        if values.null_count():
            raise refuse_row(path, column, values.is_null().arg_true()[0], "no time; fill or drop such rows.")
        return values.to_physical().cast(pl.Int64)
    return as_numbers(values, path, column)


def refuse_duplicates(items: pl.Series, path: Path, column: str, first_line: int = 2) -> None:
    """Raises: InputError at the second row of an item."""
    second = ~items.is_first_distinct()
    if second.any():
        row = second.arg_true()[0]
        raise refuse_row(path, column, row, f"item {items[row]} stands there twice; keep one of its rows.", first_line)
