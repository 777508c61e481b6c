"""Raw tables, CSV or Parquet: named columns, whole or refused in one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import polars as pl
import polars.selectors as cs
import pyarrow as pa

from mmctr_jax.data.parquet import common_columns, part_files, read_uniform, uncommon_columns
from mmctr_jax.errors import InputError
from mmctr_jax.prepare.text_files import (
    SEPARATORS,
    TextFormat,
    explain_missing_column,
    is_text,
    refuse_lost_rows,
    scan_text,
    without_blank_lines,
    without_null_words,
)

PLAIN = TextFormat()


def table_files(path: Path) -> list[Path]:
    """The file itself, or a folder's Parquet part files. Raises: InputError if there is none."""
    if not str(path).isprintable():
        raise InputError(f"File name {ascii(str(path))} holds characters that cannot be printed; rename it.")
    if path.is_file() and path.suffix.lower() not in (*SEPARATORS, ".parquet"):
        raise InputError(
            f"{path} is neither .csv, .tsv, .txt nor .parquet, nor a folder of .parquet files; convert it."
        )
    return [path] if path.is_file() and is_text(path) else part_files(path)


def read_table(
    path: Path, columns: dict[str, str], text: TextFormat = PLAIN, header: list[str] | None = None
) -> pl.DataFrame:
    """The named columns of a text file or of Parquet files, under new names. Columns of text files are text.

    Args:
      columns: new name → name in the file.
      text: how the file is written, if it is a text file.
      header: names of the columns of a text file without a header line.
    Raises: InputError if the file cannot be read whole, lacks a column, or its parts differ in a column's type.
    """
    files = table_files(path)
    if not is_text(files[0]):
        require_columns(path, common_columns(files), columns, text)
        return frame_of(read_uniform(files, list(dict.fromkeys(columns.values()))), path, columns, text)
    try:
        frame = scan_text(path, text)
        present = frame.collect_schema().names()
        if header:
            if len(present) != len(header):
                raise InputError(f"{path} has {len(present)} columns, {len(header)} are expected: {', '.join(header)}.")
            frame, present = frame.rename(dict(zip(present, header, strict=True))), header
        require_columns(path, present, columns, text)
        # By name: pl.col would take a name such as ^x$ for a pattern.
        chosen = [cs.by_name(column).as_expr().alias(name) for name, column in columns.items()]
        read = frame.select(chosen).collect(engine="streaming")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        with suppress(OSError, EOFError):
            refuse_lost_rows(0, path, text)
        raise _unreadable(path, error, text) from None
    refuse_lost_rows(len(read), path, text)
    return without_null_words(without_blank_lines(read, path, text), path, text, columns)


def frame_of(
    table: Mapping[str, pa.ChunkedArray], path: Path, columns: dict[str, str], text: TextFormat
) -> pl.DataFrame:
    """Columns of Parquet files as `read_table` returns them: bytes and UUIDs as text, and so what has no type, as all
    is null. Arguments as those of `read_table`."""
    known = {column: _series(table[column], column, path) for column in dict.fromkeys(columns.values())}
    frame = pl.DataFrame([known[column].alias(name) for name, column in columns.items()])
    return without_null_words(frame, path, text, columns)


def is_readable(kind: pa.DataType) -> bool:
    """Whether `frame_of` takes a column of this type."""
    with suppress(InputError):
        return _series(pa.chunked_array([], kind), "", Path()) is not None
    return False


def _series(values: pa.ChunkedArray, column: str, path: Path) -> pl.Series:
    if values.type == pa.uuid():
        return pl.Series([None if value is None else str(value) for value in values.to_pylist()], dtype=pl.String)
    try:
        if pa.types.is_decimal256(values.type):
            raise pa.ArrowNotImplementedError  # Polars would print a stack trace
        series = pl.Series(pl.from_arrow(values))
        if series.dtype == pl.Binary:
            with suppress(pl.exceptions.PolarsError):  # pictures and the like stay what they are
                return series.cast(pl.String)
        if series.dtype == pl.List(pl.Null):
            return series.cast(pl.List(pl.String))
        return series.cast(pl.String) if series.dtype == pl.Null else series
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException):
        raise InputError(
            f"{path}: column {column} of type {values.type} cannot be read; write it as another type."
        ) from None


def column_names(path: Path, text: TextFormat = PLAIN) -> list[str]:
    """The columns of a text file, or of Parquet files. Raises: InputError if the file cannot be read."""
    files = table_files(path)
    if not is_text(files[0]):
        return common_columns(files)
    try:
        return scan_text(path, text).collect_schema().names()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise _unreadable(path, error, text) from None


def require_columns(path: Path, present: list[str], columns: dict[str, str], text: TextFormat) -> None:
    """Raises: InputError for the first column that is not there. columns: as those of `read_table`."""
    for column in columns.values():
        if column not in present:
            why = explain_missing_column(path, column, text) if is_text(path) else None
            if not is_text(path) and column in uncommon_columns(table_files(path)):
                raise InputError(f"{path}: only some of its files have a column {column!r}; write it in all of them.")
            near = difflib.get_close_matches(column, present, 1)
            meant = f"{why}. It" if why else f"did you mean {near[0]!r}? It" if near else "it"
            raise InputError(f"{path} has no column {column!r}; {meant} has {', '.join(present[:20])}.")


def _unreadable(path: Path, error: BaseException, text: TextFormat) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    if "utf-8" in reason.lower() or "utf8" in reason.lower():
        reason += f"; it was read as {text.encoding}, name another with --encoding, such as latin-1"
    elif text.quote and is_text(path) and ("malformed" in reason or "as dtype `str`" in reason):
        reason += f"; say --quote '' if {text.quote} means nothing in this file"
    return InputError(f"{path} cannot be read: {reason}.")
