"""Parquet as people have it → plain numpy arrays, or one sentence saying what is wrong with it.

Taken: one file or a folder of part files, any compression, any integer or float width, lists as `list`, `large_list`
or fixed-size list. Refused, naming file, column and row: missing columns, other types, nulls; and pages that do not fit
their check sums, where a file has them. Rows count from 0.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmctr_jax.errors import InputError
from mmctr_jax.hashing import hash_id
from mmctr_jax.remote import local, opened

_ROWS_PER_READ = 65_536
_OF_ICEBERG = re.compile(r"(v\d+|\d{5}-[0-9a-f-]+)(\.gz)?\.metadata\.json")
_UNREADABLE = (pa.ArrowException, OSError, ValueError)  # the last for names that are not UTF-8


def part_files(path: str | Path) -> list[Path]:
    """The Parquet file itself, or a folder's `*.parquet` in name order; of a URL the copies here.

    Raises: InputError if there is none.
    """
    try:
        return _part_files(local(path))
    except OSError as error:  # no permission, a name too long, ...
        raise InputError(f"Data file {str(path)[:200]} cannot be read: {error.strerror}.") from None


def _part_files(path: Path) -> list[Path]:
    for folder in path.resolve().parents[:6]:
        if kind := _table_format(folder):
            raise InputError(f"{path} is a part of {folder}, which is {kind}; write it as plain Parquet.")
    if path.is_dir():
        inside = sorted(p for p in path.iterdir() if not p.name.startswith((".", "_")))
        files = [p for p in inside if p.suffix.lower() == ".parquet" and not p.is_dir()]
        _refuse_others(path, [p for p in inside if p not in files], files)
        for file in files:
            if not file.is_file():  # a broken link: rows would be missing
                raise InputError(f"{file} is not a file; a folder of part files must hold files alone.")
        return files
    if not path.is_file():
        raise InputError(f"Data file {path} does not exist; {_advice(path)}.")
    return [path]


def _advice(path: Path) -> str:
    """What to do about a path at which there is nothing."""
    if str(path).startswith("~") or "$" in str(path):
        return "~ and $NAME stand for the home folder and for a variable, where there is one: check the name"
    if any(mark in str(path) for mark in "*?["):
        return "patterns (globs) are not expanded: name the folder that holds the part files"
    return "check the path" + ("" if path.is_absolute() else " (it is relative to the current folder)")


def _refuse_others(path: Path, others: list[Path], files: list[Path]) -> None:
    """Raises: InputError if a folder holds anything that would be left out, or nothing that can be read."""
    if kind := _table_format(path):
        raise InputError(f"{path} is {kind}; write it as plain Parquet.")
    folders = [p for p in others if p.is_dir()]
    if not files and not folders:
        raise InputError(f"Folder {path} holds no .parquet file; name a Parquet file or a folder of part files.")
    if not others:
        return
    other = (folders or others)[0]
    if other.is_dir():
        hive = "a partition, whose column stands in its name" if "=" in other.name else "a folder"
        advice = "write the rows as .parquet files that stand in one folder, with all their columns"
        raise InputError(f"{path} holds {other.name}, {hive}, which would be left out; {advice}.")
    raise InputError(
        f"{path} holds {other.name}, which would be left out: a folder of part files is read as its *.parquet files; "
        "rename it if it is Parquet, or move it away."
    )


def _table_format(folder: Path) -> str | None:
    """What table a folder is whose files are not simply its rows; None: it is none."""
    if (folder / "_delta_log").is_dir():
        return "a Delta table, whose files hold deleted rows, too"
    if (folder / ".hoodie").is_dir():
        return "a Hudi table, whose files hold replaced rows, too"
    if any(_OF_ICEBERG.fullmatch(file.name) for file in (folder / "metadata").glob("*.metadata.json")):
        return "an Iceberg table, whose files hold deleted rows, too"
    return None


def _open(file: Path) -> pq.ParquetFile:
    try:
        # Spark's and Hive's INT96 times as microseconds: in nanoseconds, those after 2262 would be others.
        return pq.ParquetFile(opened(file), page_checksum_verification=True, coerce_int96_timestamp_unit="us")
    except _UNREADABLE as error:
        raise InputError(f"{file} cannot be read as Parquet: {_first_line(error)}.") from None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def count_rows(files: list[Path]) -> int:
    """Rows of all files, as their footers say. Raises: InputError if one cannot be read."""
    return sum(_open(file).metadata.num_rows for file in files)


def column_names(files: list[Path]) -> list[str]:
    """The first file's columns."""
    return _open(files[0]).schema_arrow.names


def common_columns(files: list[Path]) -> list[str]:
    """The columns that every file has, in the first one's order."""
    return [name for name, everywhere in _columns(files).items() if everywhere]


def uncommon_columns(files: list[Path]) -> list[str]:
    """The columns that some files have, and others do not."""
    return [name for name, everywhere in _columns(files).items() if not everywhere]


def _columns(files: list[Path]) -> dict[str, bool]:
    """Whether every file has the column."""
    names = [_open(file).schema_arrow.names for file in files]
    return {name: all(name in others for others in names) for name in dict.fromkeys(itertools.chain(*names))}


@dataclass(frozen=True)
class Column:
    """One column of up to 65,536 consecutive rows, with its place for error messages."""

    file: Path
    name: str
    first_row: int
    array: pa.Array
    in_rows: np.ndarray | None = None  # (values,) where these are elements of lists: the row of each

    def refuse(self, row: int, problem: str) -> InputError:
        """The error for the row with this index within the chunk."""
        row = row if self.in_rows is None else self.in_rows[row]
        return InputError(f"{self.file}: column {self.name}, row {self.first_row + int(row)}: {problem}")

    def _refuse_type(self, wanted: str) -> InputError:
        return InputError(f"{self.file}: column {self.name} has type {self.array.type}; it must be {wanted}.")

    def _refuse_nulls(self) -> None:
        if self.array.null_count:
            row = np.flatnonzero(self.array.is_null().to_numpy(zero_copy_only=False))[0]
            raise self.refuse(row, "null; fill or drop such rows.")

    def _values(self) -> pa.Array:
        """Without nulls, and as they are where Arrow has encoded them as a dictionary."""
        self._refuse_nulls()
        return _decoded(self.array)

    def integers(self) -> np.ndarray:
        """(rows,) int64."""
        array = self._values()
        if pa.types.is_null(array.type) and not len(array):  # of lists that are all empty
            return np.zeros(0, np.int64)
        if not pa.types.is_integer(array.type):
            raise self._refuse_type("an integer column")
        return _to_int64(array)

    def labels(self, soft: bool = False) -> np.ndarray:
        """(rows,) uint8 of 0 and 1; integers, floats and booleans are taken. soft: float32, from 0 to 1."""
        array = self._values()
        kind = array.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise self._refuse_type("0 or 1 as an integer, float or boolean column")
        values = array.to_numpy(zero_copy_only=False)
        good = (values >= 0) & (values <= 1) if soft else (values == 0) | (values == 1)
        if not good.all():
            row = np.flatnonzero(~good)[0]
            allowed = "from 0 to 1" if soft else "0 or 1; training alone takes those between"
            raise self.refuse(row, f"label {values[row]}; labels must be {allowed}.")
        return values.astype(np.float32 if soft else np.uint8)

    def numbers(self) -> np.ndarray:
        """(rows,) float32; NaN where the number is null or NaN."""
        array = _decoded(self.array)
        kind = array.type
        if pa.types.is_boolean(kind):
            array = array.cast(pa.uint8())
        elif pa.types.is_null(kind):
            return np.full(len(array), np.nan, np.float32)
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise self._refuse_type("a column of numbers")
        with np.errstate(over="ignore"):
            values = array.to_numpy(zero_copy_only=False).astype(np.float32)
        if np.isinf(values).any():
            row = np.flatnonzero(np.isinf(values))[0]
            raise self.refuse(row, f"{array[row]}, which is infinite in float32; correct it, or leave it empty.")
        return values

    def hashed(self, size: int) -> np.ndarray:
        """(rows,) int32: ids 1 … size − 1 by the hash of integers or texts; 0 for null."""
        array = _decoded(self.array)
        kind = array.type
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        if not (pa.types.is_integer(kind) or text or pa.types.is_null(kind)):
            raise self._refuse_type("integers or text, to be hashed")
        found = array.dictionary_encode()
        ids = np.array([hash_id(value, size) for value in found.dictionary.to_pylist()] + [0], np.int32)
        return ids[found.indices.fill_null(len(ids) - 1).to_numpy(zero_copy_only=False)]

    def elements(self) -> tuple[Column, np.ndarray]:
        """What the lists hold, as a column that names the rows of the lists, and (rows + 1,) offsets."""
        elements, offsets = self._lists("lists", nulls=True)
        in_rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        return Column(self.file, self.name, self.first_row, elements, in_rows), offsets

    def weights(self) -> np.ndarray:
        """(rows,) float32, finite and above 0."""
        array = self._values()
        if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
            raise self._refuse_type("a column of numbers")
        with np.errstate(over="ignore"):
            values = array.to_numpy(zero_copy_only=False).astype(np.float32)
        wrong = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if wrong.size:
            raise self.refuse(
                wrong[0], f"weight {self.array[wrong[0]]}; weights must be above 0 (leave such rows out)."
            )
        return values

    def _lists(self, wanted: str, nulls: bool = False) -> tuple[pa.Array, np.ndarray]:
        """Flat elements, which may be null if `nulls`, and (rows + 1,) offsets."""
        self._refuse_nulls()
        kind = self.array.type
        if pa.types.is_fixed_size_list(kind):
            offsets = np.arange(len(self.array) + 1, dtype=np.int64) * kind.list_size
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            offsets = self.array.offsets.to_numpy().astype(np.int64)
            offsets = offsets - offsets[0]
        else:
            raise self._refuse_type(wanted)
        elements = self.array.flatten()
        if elements.null_count and not nulls:
            at = np.flatnonzero(elements.is_null().to_numpy(zero_copy_only=False))[0]
            raise self.refuse(np.searchsorted(offsets, at, side="right") - 1, "null inside the list; fill or drop it.")
        return elements, offsets

    def integer_lists(self) -> tuple[np.ndarray, np.ndarray]:
        """Lists without their zeros (padding, wherever it stands): flat (elements,) int64 and (rows + 1,) offsets."""
        values, offsets = self.padded_integer_lists()
        real = values != 0
        kept_before = np.concatenate([[0], np.cumsum(real)])
        return values[real], kept_before[offsets]

    def padded_integer_lists(self) -> tuple[np.ndarray, np.ndarray]:
        """Lists as they are: flat (elements,) int64 and (rows + 1,) offsets."""
        elements, offsets = self._lists("lists of integers")
        if pa.types.is_null(elements.type) and len(elements) == 0:  # every list is empty: no type was ever seen
            return np.empty(0, np.int64), offsets
        if not pa.types.is_integer(elements.type):
            raise self._refuse_type("lists of integers")
        return _to_int64(elements), offsets

    def vectors(self, dim: int) -> np.ndarray:
        """(rows, dim) float32, all finite."""
        elements, offsets = self._lists("lists of floats")
        if not (pa.types.is_floating(elements.type) or pa.types.is_integer(elements.type)):
            raise self._refuse_type("lists of floats")
        lengths = np.diff(offsets)
        wrong = np.flatnonzero(lengths != dim)
        if wrong.size:
            raise self.refuse(wrong[0], f"a vector of {lengths[wrong[0]]} numbers; the config's dim is {dim}.")
        with np.errstate(over="ignore"):
            values = elements.to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, dim)
        wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if wrong.size:
            raise self.refuse(wrong[0], "NaN or infinite (in float32) in the vector; replace or drop it.")
        return values


def _decoded(array: pa.Array) -> pa.Array:
    """As it is where Arrow has encoded it as a dictionary."""
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _to_int64(array: pa.Array) -> np.ndarray:
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype == np.uint64:  # beyond 2⁶³ would wrap around: make it fail every range check instead
        values = np.minimum(values, np.uint64(np.iinfo(np.int64).max))
    return values.astype(np.int64)


def read_columns(files: list[Path], columns: list[str]) -> Iterator[dict[str, Column]]:
    """Chunks of the named columns, file after file, in order. All schemas are checked before the first chunk."""
    for file in files:
        names = _open(file).schema_arrow.names
        for column in columns:
            if names.count(column) != 1:
                problem = "twice" if column in names else "missing"
                raise InputError(
                    f"{file}: column {column} is {problem} (it has {', '.join(map(str, names))}); "
                    "add it, or name another one in the config's features section."
                )
    for file in files:
        first_row, parquet = 0, _open(file)
        try:
            for batch in batches(parquet, _ROWS_PER_READ, columns):
                yield {name: Column(file, name, first_row, batch.column(name)) for name in columns}
                first_row += batch.num_rows
                del batch
            pa.default_memory_pool().release_unused()  # Arrow would keep a gigabyte for later use that never comes
        except _UNREADABLE as error:
            raise InputError(f"{file} cannot be read from row {first_row} on: {_first_line(error)}.") from None
        if first_row != parquet.metadata.num_rows:
            raise InputError(
                f"{file} is damaged: it says it has {parquet.metadata.num_rows:,} rows and holds {first_row:,}."
            )


def batches(parquet: pq.ParquetFile, rows: int, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """A file's rows in order, at most so many at a time.

    Its row groups are asked for as they are needed: Arrow reads ahead all that it was asked for, and keeps it.
    """
    groups, held = [], 0
    for group in range(parquet.num_row_groups):
        groups.append(group)
        held += parquet.metadata.row_group(group).num_rows
        if held >= rows or group == parquet.num_row_groups - 1:
            yield from parquet.iter_batches(rows, row_groups=groups, columns=columns)
            groups, held = [], 0


def read_whole(files: list[Path], column: str) -> pa.ChunkedArray:
    """A column of any type, as it is, over all files. Raises InputError if part files disagree on its type."""
    chunks = [chunk[column].array for chunk in read_columns(files, [column])]
    chunks = [_decoded(chunk) for chunk in chunks]
    try:
        return pa.chunked_array(chunks, None if chunks else pa.int64())
    except pa.ArrowException:
        kinds = ", ".join(sorted({str(chunk.type) for chunk in chunks}))
        raise InputError(
            f"{files[0].parent}: column {column} is {kinds} in different part files; give it one type."
        ) from None


def read_uniform(files: list[Path], columns: list[str]) -> dict[str, pa.ChunkedArray]:
    """Columns of any type, with one meaning over all files: integers, text, lists and time units are widened.

    Raises: InputError if part files disagree on a column's type otherwise, as dates and numbers do.
    """
    parts: dict[str, list[pa.Array]] = {name: [] for name in columns}
    for chunk in read_columns(files, columns):
        for name in columns:
            parts[name].append(_decoded(chunk[name].array))
    whole = {}
    for name, kind in uniform_types(files, columns).items():
        arrays = parts[name]
        try:
            whole[name] = pa.chunked_array([array.cast(kind) for array in arrays if len(array)], kind)
        except pa.ArrowException as error:
            raise InputError(
                f"{files[0].parent}: column {name} has different types in its part files, and not all of its values "
                f"can be of one ({kind}: {_first_line(error)}); write it alike in all of them."
            ) from None
    return whole


def uniform_types(files: list[Path], columns: list[str]) -> dict[str, pa.DataType]:
    """Each column's type that holds what all files have. Raises: InputError if there is none."""
    parts, types = {file: _open(file) for file in files}, {}
    with_rows = {file: part for file, part in parts.items() if part.metadata.num_rows}  # others' types mean nothing
    schemas = {file: part.schema_arrow for file, part in (with_rows or parts).items()}
    for name in columns:
        found: dict[pa.DataType, Path] = {}
        for file, schema in schemas.items():
            found.setdefault(_plain(schema.field(name).type), file)
        kind = next(iter(found))
        for other in found:
            kind = _wider(kind, other)
            if kind is None:
                kinds = " and ".join(f"{kind} in {file.name}" for kind, file in found.items())
                raise InputError(f"{files[0].parent}: column {name} is {kinds}; give it one type.")
        types[name] = kind
    return types


def row_groups(files: list[Path]) -> list[tuple[Path, int, int]]:
    """The files' row groups: file, number in it, rows. Raises: InputError if a file cannot be read."""
    groups = []
    for file in files:
        metadata = _open(file).metadata
        groups += [(file, group, metadata.row_group(group).num_rows) for group in range(metadata.num_row_groups)]
    return groups


def read_row_group(file: Path, group: int, types: dict[str, pa.DataType]) -> dict[str, pa.ChunkedArray]:
    """Columns of a row group, as `uniform_types` has them. Raises: InputError if it cannot be read."""
    try:
        table = _open(file).read_row_group(group, list(types))
        return {name: table[name].cast(kind) for name, kind in types.items()}
    except _UNREADABLE as error:
        raise InputError(f"{file} cannot be read as Parquet: {_first_line(error)}.") from None


def _plain(kind: pa.DataType) -> pa.DataType:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.large_string() if pa.types.is_string(kind) or pa.types.is_string_view(kind) else kind


def _wider(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """The type that holds both without changing what either means; None: there is none."""
    t = pa.types
    if a == b or t.is_null(b):
        return a
    if t.is_null(a):
        return b
    if t.is_integer(a) and t.is_integer(b):
        unsigned = t.is_unsigned_integer(a) and t.is_unsigned_integer(b)
        return pa.uint64() if unsigned else None if pa.uint64() in (a, b) else pa.int64()
    if all(t.is_floating(kind) or t.is_integer(kind) for kind in (a, b)):
        return pa.float64()
    if t.is_timestamp(a) and t.is_timestamp(b) and (a.tz is None) == (b.tz is None):
        units = ("s", "ms", "us", "ns")  # instants are the same in every zone
        return pa.timestamp(max(a.unit, b.unit, key=units.index), a.tz if a.tz == b.tz else "UTC")
    if all(t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind) for kind in (a, b)):
        inner = _wider(_plain(a.value_type), _plain(b.value_type))
        return None if inner is None else pa.large_list(inner)
    return None


def read_keys(files: list[Path], column: str) -> np.ndarray | None:
    """(rows,) int64 codes of a column of integers or text: equal values, equal codes. For grouping rows.

    Rows without a value are a group each. None where there is no such column. Raises: InputError on other types.
    """
    return read_shared_keys({"": files}, column, nulls=True)[""] if column in column_names(files) else None


def read_shared_keys(splits: dict[str, list[Path]], column: str, nulls: bool = False) -> dict[str, np.ndarray]:
    """Split → `read_keys` of its files, with the same code for equal values in all splits.

    Integers of different widths may be equal. Raises: InputError on nulls, unless they are allowed, and on types that
    cannot be compared.
    """
    values = {name: read_whole(files, column) for name, files in splits.items()}
    for name, chunks in values.items():
        if chunks.null_count and not nulls:
            raise InputError(
                f"{splits[name][0]}: column {column} has {chunks.null_count:,} nulls; fill or drop such rows."
            )
    kinds = {chunks.type for chunks in values.values()}
    kind = kinds.pop() if len(kinds) == 1 else pa.int64() if all(map(pa.types.is_integer, kinds)) else pa.string()
    try:
        every = pa.chunked_array([part for chunks in values.values() for part in chunks.cast(kind).chunks], kind)
        found = every.combine_chunks().dictionary_encode().indices
        codes = found.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        if found.null_count:
            missing = found.is_null().to_numpy(zero_copy_only=False)
            codes[missing] = len(codes) + np.arange(found.null_count)  # nobody's: no two rows are one group
    except pa.ArrowException:
        first = next(iter(splits.values()))[0]
        raise InputError(
            f"{first}: column {column} has type {kind}; it must be integers (below 2⁶³) or text in every file."
        ) from None
    return dict(zip(values, np.split(codes, np.cumsum([len(v) for v in values.values()])[:-1]), strict=True))
