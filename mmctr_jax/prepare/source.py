"""What a source hands over, and reading tables (CSV or Parquet) into it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from mmctr_jax.data.parquet import part_files
from mmctr_jax.errors import InputError

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


@dataclass(frozen=True)
class Source:
    """Interactions and items as a source has them.

    log: one row per interaction, oldest first among equal times: `user`, `item` (integers or text), `time` (any number;
      only its order counts), and where the source has them `click` (bool; without it every row is a click), `weight`
      (float) and side features (integers or text), named in `side`.
    items: one row per item: `item`, and where known `tags` (lists of text), `text`, and numeric columns.
    """

    log: pl.DataFrame
    items: pl.DataFrame
    files: list[Path]
    side: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what users of the prepared files must know
    has_times: bool = True  # false: `time` counts a user's clicks and says nothing across users

    @property
    def has_non_clicks(self) -> bool:
        return "click" in self.log.columns and not self.log["click"].all()


def table_files(path: Path) -> list[Path]:
    """The file itself, or a folder's Parquet part files. Raises InputError if there is none."""
    if path.suffix in _SEPARATORS and path.is_file():
        return [path]
    return part_files(path)


def scan(path: Path, columns: dict[str, str], header: list[str] | None = None) -> pl.LazyFrame:
    """The named columns of a CSV file or of Parquet files, lazily, under new names. CSV columns are text.

    columns: new name → name in the file.
    header: names of the columns of a file without a header line.
    Raises: InputError if the file cannot be read or lacks a column.
    """
    frame = _scan(path, header)
    present = frame.collect_schema().names()
    for column in columns.values():
        if column not in present:
            raise InputError(f"{path} has no column {column!r}; it has {', '.join(present)}.")
    return frame.select(pl.col(column).alias(name) for name, column in columns.items())


def column_names(path: Path) -> list[str]:
    """Of a CSV file with a header line or of Parquet files. Raises InputError if the file cannot be read."""
    return _scan(path).collect_schema().names()


def _scan(path: Path, header: list[str] | None = None) -> pl.LazyFrame:
    files = table_files(path)
    try:
        if files[0].suffix in _SEPARATORS:
            frame = pl.scan_csv(
                files[0],
                separator=_SEPARATORS[files[0].suffix],
                has_header=header is None,
                new_columns=header,
                infer_schema=False,  # guessing from the first lines would fail on later ones
                quote_char=None if header else '"',
            )
        else:
            frame = pl.scan_parquet(files)
        frame.collect_schema()
        return frame
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(path, error) from None


def collect(frame: pl.LazyFrame, path: Path) -> pl.DataFrame:
    """The frame's rows, in order. Raises InputError, naming `path`, if they cannot be read."""
    try:
        return frame.collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return InputError(f"{path} cannot be read: {reason}.")


def refuse_row(path: Path, column: str, row: int, problem: str, first_line: int = 2) -> InputError:
    """`row` counts from 0; `first_line` is where a text file has it: 1 without a header."""
    place = f"line {row + first_line}" if path.suffix in _SEPARATORS else f"row {row}"
    return InputError(f"{path}, column {column}, {place}: {problem}")


def as_keys(values: pl.Series, path: Path, column: str, first_line: int = 2) -> pl.Series:
    """User or item ids: integers if all are, in text too; otherwise text. Raises InputError on nulls."""
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
        raise refuse_row(path, column, row, "no id, or one beyond 64 bits; fill or drop such rows.", first_line)
    return keys


def as_numbers(values: pl.Series, path: Path, column: str, nulls: bool = False, first_line: int = 2) -> pl.Series:
    """Numbers, or text that is numbers, as Float64 (integers stay Int64). Raises InputError at the first other value.

    nulls: empty values are taken, and become null.
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
        raise refuse_row(path, column, row, f"{values[row]!r} is not a number; correct or drop it.", first_line)
    return numbers


def as_times(values: pl.Series, path: Path, column: str) -> pl.Series:
    """Numbers, dates and times as numbers (times: microseconds since 1970), or text of either, such as ISO 8601."""
    if values.dtype == pl.String:
        first = values.drop_nulls().head(1)
        if len(first) and first.cast(pl.Float64, strict=False).null_count():
            times = values.str.to_datetime(strict=False, time_unit="us", time_zone="UTC")
            if times.null_count():
                row = times.is_null().arg_true()[0]
                raise refuse_row(path, column, row, f"{values[row]!r} is not a time; write numbers or ISO 8601.")
            return times.dt.timestamp("us")
    if values.dtype.is_temporal() and values.dtype not in (pl.Duration, pl.Time):
        if values.null_count():
            raise refuse_row(path, column, values.is_null().arg_true()[0], "no time; fill or drop such rows.")
        return values.cast(pl.Datetime("us")).dt.timestamp("us")
    return as_numbers(values, path, column)
