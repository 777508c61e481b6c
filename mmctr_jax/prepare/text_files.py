"""CSV and its like as people have it: other separators, encodings, words for null; and which line a row stands in."""

from __future__ import annotations

import csv
import functools
import gzip
import io
import mmap
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl
import pyarrow as pa

from mmctr_jax.console import log
from mmctr_jax.errors import InputError

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
"""By a file's ending."""
NULL_WORDS = ("NULL", "Null", "null", "(null)", r"\N", "NaN", "nan", "NAN", "None", "NA", "N/A", "n/a", "#N/A", "<NA>",
              "NaT")  # fmt: skip
"""What exports of databases, pandas and spreadsheets write for a value that is missing."""
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_ZLIB = (b"x\x01", b"x\x9c", b"x\xda")
_ROWS_LOOKED_AT = 200  # for which columns hold numbers
_HEAD = 1 << 16  # bytes that are looked at before a file is read


@dataclass(frozen=True)
class TextFormat:
    """How a text file is written."""

    separator: str | None = None  # None: by the file's ending
    decimal: str = "."
    quote: str | None = '"'  # None: quotes mean nothing
    header: bool = True  # without: columns are column_1, column_2, …
    null_words: tuple[str, ...] = NULL_WORDS  # cells that hold nothing but one of these are missing
    encoding: str = "utf-8"

    def separator_of(self, path: Path) -> str:
        """What stands between the columns of this file."""
        return self.separator or SEPARATORS[path.suffix.lower()]


def is_text(path: Path) -> bool:
    """Whether a file of this name is a text file."""
    return path.suffix.lower() in SEPARATORS


def format_with(path: Path, text: TextFormat, column: str) -> TextFormat:
    """The format, or if the file has no such column by it, with the header and separator by which it has."""
    if not is_text(path):
        return text
    for header in dict.fromkeys((text.header, True)):
        for separator in (text.separator, None, ",", ";", "\t", "|"):
            found = replace(text, header=header, separator=separator)
            first = _first_row(_head(path, found), path, found)
            if column in (first if header else [f"column_{at}" for at in range(1, len(first) + 1)]):
                return found
    return text


def scan_text(path: Path, text: TextFormat) -> pl.LazyFrame:
    """All columns of a text file, lazily, as text. Raises: InputError if the file is no text of this format."""
    head = _head(path, text)
    first = _first_row(head, path, text)
    if text.header:
        twice = next((name for name in first if first.count(name) > 1 and name and not _is_number(name)), None)
        if twice is not None:
            raise InputError(f"{path}: column {twice!r} stands twice in the header; rename or drop one.")
    if text.encoding.lower().replace("_", "-") in ("utf-8", "utf-8-sig", "utf8", "ascii"):
        source: Path | io.BytesIO = path
    else:
        source = io.BytesIO(_decoded(path, text.encoding).encode())
    frame = pl.scan_csv(
        source,
        separator=text.separator_of(path),
        has_header=text.header,
        infer_schema=False,  # guessing from the first lines would fail on later ones
        quote_char=text.quote,
        glob=False,
        truncate_ragged_lines=not _is_zlib(path),  # what is beyond the header is refused by `refuse_lost_rows`
    )
    if text.header:
        return frame
    names = frame.collect_schema().names()
    return frame.rename({name: f"column_{at}" for at, name in enumerate(names, 1)})


def without_null_words(frame: pl.DataFrame, path: Path, text: TextFormat, columns: dict[str, str]) -> pl.DataFrame:
    """The frame with null for words that stand for it, and for nothing but spaces, in its columns of text; without such
    words in lists of text. What was taken for one is told.

    columns: name in the frame → name in the file.
    """
    words, found, shown, changed = [*text.null_words], {}, set(), []
    for name, kind in frame.schema.items():
        if kind == pl.String:
            values = frame[name]
        elif kind == pl.List(pl.String):
            values = frame[name].explode()
        else:
            continue
        missing = values.is_in(words) | ((values != "") & (values.str.strip_chars() == ""))
        if count := missing.sum():
            found[columns[name]] = count
            shown |= {word.strip() or "spaces" for word in values.filter(missing).unique()}
            each = pl.col(name) if kind == pl.String else pl.element()
            is_missing = each.is_in(words) | (each.str.strip_chars() == "")
            cells = pl.when(is_missing).then(None).otherwise(each)
            changed.append(cells.alias(name) if kind == pl.String else pl.col(name).list.eval(each.filter(~is_missing)))
    if not found:
        return frame
    log.info(
        f"{path}: {sum(found.values()):,} cells ({', '.join(sorted(shown))}) count as missing, in {', '.join(found)}; "
        "--null-words says which words do."
    )
    return frame.with_columns(changed)


def without_blank_lines(frame: pl.DataFrame, path: Path, text: TextFormat) -> pl.DataFrame:
    """The frame without the rows of lines that are empty. Other rows without any value stay, to be refused."""
    empty = (
        frame.select(pl.all_horizontal(pl.all().is_null())).to_series() if frame.width else pl.Series([], dtype=bool)
    )
    if not empty.any():
        return frame
    try:
        blank = [not any(cells) and len(cells) <= 1 for _, cells in _rows(path, text)]
    except csv.Error:
        blank = []
    if len(blank) != len(frame):  # read otherwise than by Python's csv: leave it as it is
        return frame.filter(~empty) if empty.arg_true().to_list() == _last(len(frame), int(empty.sum())) else frame
    return frame.filter(~pl.Series(blank))


def refuse_lost_rows(rows: int, path: Path, text: TextFormat) -> None:
    """Refuses a file that escapes quotes by backslashes, as Spark and MySQL do: a cell would swallow rows behind it;
    one in which a quote that nothing closes swallows rows; and one with rows that have fewer cells than the header, or
    more, as where a title has a comma.

    Args:
      rows: that were read; to the reader only doubled quotes stand for one within a cell.
    """
    problem = _misread(path, text, rows, path.stat().st_mtime_ns)
    widths = Counter()
    if text.quote and _contains(path, "\\" + text.quote):
        with suppress(ValueError, csv.Error):
            widths.update(len(row) for _, row in _rows(path, text, escapechar="\\") if len(row) > 1 or any(row))
    if len(widths) == 1 and (problem or widths.total() > rows):
        raise InputError(
            f"{path} escapes quotes within cells by backslashes, with which rows would be lost; write them doubled (in "
            "Spark: .option('escape', '\"')), or write Parquet."
        )
    if problem:
        raise InputError(f"{path}, {problem}")


@functools.lru_cache(maxsize=32)
def _misread(path: Path, text: TextFormat, rows: int, _changed: int) -> str | None:
    """Where a row has not the header's number of cells, or a cell holds whole lines; None: nowhere that is seen."""
    header = _first_row(_head(path, text), path, text)
    width = len(header)
    while text.header and width and not header[width - 1]:  # as where every line but the others ends in a separator
        width -= 1
    if not width or (width == len(header) and _looks_whole(path, text, rows, width)):
        return None
    separator, firsts, whole, line = text.separator_of(path), [], 0, 0
    longer, first_longer = 0, (0, 0)  # rows with more cells; the first one's line and cells
    first = "the header" if text.header else "the first line"
    try:
        for line, cells in _rows(path, text):
            if not any(cells) and len(cells) < 2:
                continue
            whole += 1
            if len(cells) < width:
                return f"line {line}: {len(cells)} cells, where {first} has {width}; write every cell, empty ones, too."
            if len(cells) > len(header):
                longer, first_longer = longer + 1, first_longer if longer else (line, len(cells))
            if any(cells[width:]):
                return _too_long(line, len(cells), first, width, text, separator)
            if len(firsts) < _ROWS_LOOKED_AT:
                firsts.append(cells)
            for at, cell in enumerate(cells):
                if "\n" in cell and _holds_lines(cell, at, len(header), separator, firsts):
                    return (
                        f"line {line}: a quote begins a cell that goes on over {cell.count(chr(10))} more lines of as "
                        "many columns; say --quote '' if quotes mean nothing there, or double those within cells."
                    )
    except csv.Error as error:
        return f"after line {line}: it cannot be told which cell is of which column ({error}); correct that line."
    except (OSError, ValueError):
        return None
    if 0 < 10 * longer < 9 * whole:  # not as where every row ends in a separator
        return _too_long(*first_longer, first, width, text, separator)
    if 0 < rows < whole:
        return f"which has {whole:,} rows, is read as {rows:,}: say --quote '' if quotes mean nothing there."
    return None


def _too_long(line: int, cells: int, first: str, width: int, text: TextFormat, separator: str) -> str:
    advice = f"put quotes around cells that hold {separator!r}" if text.quote else "use another separator"
    return f"line {line}: {cells} cells, where {first} has {width}; {advice}."


def _looks_whole(path: Path, text: TextFormat, rows: int, width: int) -> bool:
    """Whether counting alone tells that each line is a row of so many cells, by the separators outside of quotes.

    A quote begins a cell and ends one, or is doubled within; where one stands elsewhere, counting does not tell.
    """
    separator, quote, line_end, lines = ord(text.separator_of(path)), text.quote and ord(text.quote), ord("\n"), 0
    if _is_zlib(path):
        return True  # its rows are the reader's to check
    with _opened(path) as stream:
        while block := stream.read(1 << 20) + stream.readline():
            found = np.frombuffer(block, np.uint8)
            ends, separators = np.flatnonzero(found == line_end), found == separator
            if quote and quote in block:
                quotes = np.flatnonzero(found == quote)
                before, after = np.append(line_end, found)[quotes[::2]], np.append(found, line_end)[quotes[1::2] + 1]
                if not np.isin(before, (separator, line_end, quote)).all():
                    return False
                if len(quotes) % 2 or not np.isin(after, (separator, line_end, ord("\r"), quote)).all():
                    return False
                within = np.cumsum(found == quote, dtype=np.int32) & 1
                if within[ends].any():
                    return False
                separators &= within == 0
            until = np.cumsum(separators, dtype=np.int32)
            if found[-1] != line_end:
                ends = np.append(ends, len(found) - 1)
            if (np.diff(until[ends], prepend=0) != width - 1).any():
                return False
            lines += len(ends)
    return lines - text.header == rows


def _holds_lines(cell: str, at: int, width: int, separator: str, rows: list[list[str]]) -> bool:
    """Whether a cell of column `at` is the rest of a line, whole lines, and the beginning of one up to that column.

    rows: others: a column that holds numbers or dates there must do so within the cell. Where none does, three whole
    lines tell.
    """
    parts = [part.split(separator) for part in cell.split("\n")]
    if [len(part) for part in parts] != [width - at, *[width] * (len(parts) - 2), at + 1]:
        return False
    inside = {at + 1 + i: value for i, value in enumerate(parts[0][1:])} | dict(enumerate(parts[-1][:at]))
    known = {i: [row[i] for row in rows if i < len(row) and row[i] and "\n" not in row[i]] for i in inside}
    measured = [i for i, values in known.items() if values and all(map(_is_number_or_date, values))]
    return all(_is_number_or_date(inside[i]) for i in measured) if measured else len(parts) >= 5


def _is_number_or_date(cell: str) -> bool:
    return _is_number(cell) or re.match(r"\d{4}-\d\d-\d\d", cell) is not None


def _contains(path: Path, characters: str) -> bool:
    """Whether the file has these ASCII characters, in an encoding of one byte for each, or in UTF-16."""
    with open(path, "rb") as stream:
        if not stream.seek(0, io.SEEK_END):
            return False
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return any(content.find(characters.encode(code)) >= 0 for code in ("ascii", "utf-16-le"))


def _last(rows: int, count: int) -> list[int]:
    return list(range(rows - count, rows))


def line_of_row(path: Path, row: int, text: TextFormat) -> int:
    """The line, from 1, in which row `row` (from 0, blank lines not counted) begins."""
    try:
        at = -1
        for line, cells in _rows(path, text):
            at += len(cells) > 1 or any(cells)
            if at == row:
                return line
    except (OSError, ValueError, csv.Error):
        pass
    return row + 1 + text.header


def explain_missing_column(path: Path, column: str, text: TextFormat) -> str | None:
    """Why a text file may lack a column that it seems to have: half a sentence with what to do; None: no idea."""
    head = _head(path, text)
    line = head.split("\n", 1)[0].strip("\r")
    if not text.header:
        return "without a header (--no-header) the columns are column_1, column_2 and so on"
    if line.lower().startswith("sep="):
        return f"its first line, {line!r}, is a spreadsheet's; remove it and say --separator {line[4:5]!r}"
    if "\r" in line:
        return "its lines end in carriage returns alone; make them newlines (tr '\\r' '\\n')"
    if line.startswith("#"):
        return "its first line is a comment; the header must be the first line"
    for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars"), (",", "commas")):
        if separator != text.separator_of(path) and column in [cell.strip(' "') for cell in line.split(separator)]:
            shown = "$'\\t'" if separator == "\t" else f"'{separator}'"
            return f"its columns seem to be separated by {name}; say --separator {shown}"
    cells = _first_row(head, path, text)
    if any(_is_number(cell) for cell in cells):
        return (
            "its first line seems to be no header; add one, or say --no-header and name the columns column_1, "
            "column_2 and so on"
        )
    if any(column == cell.strip() for cell in cells):
        return "the name has spaces around it in the header; remove them there"
    return None


def _is_number(cell: str) -> bool:
    return cell.strip().lstrip("-").replace(".", "", 1).isdigit()


def _rows(path: Path, text: TextFormat, escapechar: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """Line in which it begins, and cells, of each row but the header."""
    with _opened(path) as raw, io.TextIOWrapper(raw, _encoding(text), "replace", newline="\n") as stream:
        quoting = {"quotechar": text.quote, "escapechar": escapechar} if text.quote else {"quoting": csv.QUOTE_NONE}
        csv.field_size_limit(sys.maxsize)
        reader = csv.reader(map(_without_returns, stream), delimiter=text.separator_of(path), **quoting)
        begins = 1
        for number, cells in enumerate(reader):
            if number or not text.header:
                yield begins, cells
            begins = reader.line_num + 1


def _without_returns(line: str) -> str:
    """A line as Python's csv takes it: a return within it is no end of it, as to Polars."""
    return line.rstrip("\r\n").replace("\r", " ") + "\n" if "\r" in line else line


def _is_zlib(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(2) in _ZLIB


def _opened(path: Path) -> IO[bytes]:
    """The file's bytes; those within, where it is compressed by gzip or Zstandard, which its name need not say."""
    stream = open(path, "rb")
    begin = stream.peek(4)[:4]
    if begin.startswith(_GZIP):
        stream.close()
        return gzip.open(path, "rb")
    if begin == _ZSTD:
        stream.close()
        return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))
    return stream


def _encoding(text: TextFormat) -> str:
    return "utf-8-sig" if text.encoding.lower() in ("utf-8", "utf8") else text.encoding


def _head(path: Path, text: TextFormat) -> str:
    try:
        with _opened(path) as stream:
            raw = stream.read(_HEAD)
        if raw.startswith(_UTF_16) and text.encoding.lower().startswith("utf-8"):
            raise InputError(f"{path} is UTF-16 text, not UTF-8; say --encoding utf-16, or save it as UTF-8.")
        if raw.startswith(b"\xef\xbb\xbf") and not text.encoding.lower().startswith("utf"):
            raise InputError(f"{path} begins with the mark of UTF-8; leave out --encoding {text.encoding}.")
        return raw.decode(_encoding(text), errors="replace")
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    except (LookupError, UnicodeError):
        raise InputError(f"--encoding {text.encoding} is no encoding that Python knows, such as latin-1.") from None


def _first_row(head: str, path: Path, text: TextFormat) -> list[str]:
    quoting = {"quotechar": text.quote} if text.quote else {"quoting": csv.QUOTE_NONE}
    try:
        return next(csv.reader(io.StringIO(head, newline=""), delimiter=text.separator_of(path), **quoting), [])
    except csv.Error:
        return []


def _decoded(path: Path, encoding: str) -> str:
    try:
        return path.read_text(encoding=encoding)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read as {encoding}: {reason}; see --encoding.") from None
