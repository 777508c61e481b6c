"""Vectors that were computed elsewhere: a .npy array, or a column of a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmctr_jax.console import log
from mmctr_jax.data.kept import zeros_for_now
from mmctr_jax.data.parquet import Column, batches, column_names, part_files
from mmctr_jax.embed.item_file import ItemFile, refuse_duplicates, text_column
from mmctr_jax.embed.parts import CHUNK_ROWS, Part, row_chunks
from mmctr_jax.errors import InputError
from mmctr_jax.files import sha256
from mmctr_jax.prepare import raw_tables, raw_values
from mmctr_jax.prepare.text_files import format_with
from mmctr_jax.remote import local

_OTHER_KINDS = (".npz", ".h5", ".hdf5", ".pt", ".pth", ".bin", ".safetensors", ".pkl", ".pickle", ".mat", ".feather",
                ".arrow", ".csv", ".tsv", ".txt", ".json", ".jsonl", ".gz", ".zip", ".parq")  # fmt: skip


def file_and_column(source: str) -> tuple[Path, str | None] | None:
    """The file and column of FILE.npy, FILE.parquet or FILE.parquet:COLUMN; None for anything else, such as a model.

    Raises: InputError for a file of another kind.
    """
    path = Path(source)
    if path.suffix.lower() in (".npy", ".parquet"):
        return path, None
    if path.suffix.lower() in _OTHER_KINDS or path.is_file():
        raise InputError(
            f"{source} is no file of vectors that is read; give a .npy array (items, width) or a .parquet file with a "
            "column of lists beside `item` or `item_id`."
        )
    file, _, column = source.rpartition(":")
    return (Path(file), column) if file.lower().endswith(".parquet") else None


def precomputed_part(item_file: ItemFile, kind: str, source: str, rows_of: str | None) -> Part:
    """Reads the vectors.

    Args:
      kind: "text" or "image".
      source: one that `file_and_column` recognises. Rows of a Parquet file are matched by column `item` or `item_id`.
      rows_of: which item each row of a .npy is of, see `_rows_of_npy`.
    Raises: InputError, with the row, if a vector cannot be right.
    """
    file, column = file_and_column(source)
    file = local(file)
    if not file.exists():
        raise InputError(f"Vectors file {file} does not exist; check --{kind} (the path is relative to this folder).")
    if file.suffix.lower() == ".npy":
        array, digest = _open_npy(file), sha256(file).hexdigest()
        places = _rows_of_npy(file, kind, rows_of, item_file)
        return Part(kind, source, _rows_in_order(array, places, file, rows_of, item_file), digest)
    files = part_files(file)
    if len(files) != 1:
        raise InputError(f"{file} holds {len(files)} part files; give vectors as one .parquet file.")
    vectors, unknown = _read_parquet(files[0], column, item_file)
    return Part(kind, source, vectors, sha256(files[0]).hexdigest(), {"rows_of_unknown_items": unknown})


def _rows_of_npy(file: Path, kind: str, rows_of: str | None, item_file: ItemFile) -> np.ndarray | None:
    """(rows,) the row in the `ItemFile` of each row of the array, -1 for unknown items; None: they are its rows.

    Args:
      rows_of: `item_feature`: the rows of item_feature.parquet; or a file with the items' own ids in the order of the
        array's rows: the item file that the folder was prepared from, or a .npy of ids. FILE:COLUMN names the column,
        which is otherwise `item` or `item_id`.
    Raises: InputError if nothing says whose row is whose.
    """
    if rows_of is None:
        raise InputError(
            f"--{kind} {file}: a .npy does not say whose row is whose; name the file whose rows are in its order with "
            "--rows-of: the item file or a .npy of ids, or item_feature for the rows of item_feature.parquet."
        )
    if rows_of == "item_feature":
        return None
    path, column = (Path(rows_of), None) if Path(rows_of).exists() else _split_column(rows_of)
    if path.suffix.lower() == ".npy" and path.is_file():
        ids = _open_ids(path)
        key = "item" if item_file.originals else "item_id"
    else:
        keys = [column] if column else ["item", "item_id"]
        formats = {key: format_with(path, raw_tables.PLAIN, key) for key in keys}
        named = (key for key, text in formats.items() if key in raw_tables.column_names(path, text))
        key = next(named, keys[0])
        values = raw_tables.read_table(path, {"item": key}, formats[key])["item"]
        ids = [str(value) for value in raw_values.as_keys(values, path, key, formats[key])]
    refuse_duplicates(ids, path, key)
    if not item_file.originals or (key == "item_id" and _is_prepared(path, item_file)):
        places = _found(ids, [str(i) for i in item_file.item_ids])
    else:
        places = _found(ids, item_file.originals)
    if (places < 0).all():
        raise InputError(f"--rows-of {rows_of}: none of its items is in {item_file.files[0]}; compare the two.")
    return places


def _is_own_key(key: str, file: Path, item_file: ItemFile) -> bool:
    """Whether a column of this name in the user's own files has the ids of the log, and not prepared numbers."""
    return key in (item_file.manifest or {}).get("item_keys", []) and not _is_prepared(file, item_file)


def _is_prepared(file: Path, item_file: ItemFile) -> bool:
    """Whether a file is of the prepared folder, whose `item_id` are its numbers."""
    return file.absolute().parent == item_file.folder.absolute()


def _found(names: list[str], known: list[str]) -> np.ndarray:
    """(names,) int64: where each is among the known ones; -1 where it is not."""
    place = {name: row for row, name in enumerate(known)}
    return np.array([place.get(name, -1) for name in names], np.int64)


def _split_column(rows_of: str) -> tuple[Path, str | None]:
    file, _, column = rows_of.rpartition(":")
    return (Path(file), column) if file and Path(file).exists() else (Path(rows_of), None)


def _open_ids(path: Path) -> list[str]:
    ids = _load(path)
    if not isinstance(ids, np.ndarray) or ids.ndim != 1 or ids.dtype.kind not in "iuU":
        raise InputError(f"{path} is not one array of ids, whole numbers or text; save it as such with numpy.save.")
    return [str(i) for i in ids.tolist()]


def _load(path: Path) -> np.ndarray:
    """Memory-mapped. Raises: InputError."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as a .npy array: {error}.") from None


def _rows_in_order(
    array: np.ndarray, places: np.ndarray | None, file: Path, rows_of: str | None, item_file: ItemFile
) -> np.ndarray:
    """(items, width) the rows in the order of the `ItemFile`; zeros for items without one."""
    rows = len(item_file) if places is None else len(places)
    if len(array) != rows:
        named = "item_feature.parquet" if places is None else rows_of
        raise InputError(f"{file} has {len(array):,} rows and {named} {rows:,}; row i must be the same item.")
    for chunk in row_chunks(len(array)):
        with np.errstate(over="ignore"):
            wrong = np.flatnonzero(~np.isfinite(array[chunk].astype(np.float32)).all(axis=1))
        if wrong.size:
            raise InputError(f"{file}, row {chunk.start + wrong[0]}: NaN or infinite (in float32); replace it.")
    if places is None:
        return array
    vectors = zeros_for_now((len(item_file), array.shape[1]))
    for chunk in row_chunks(len(array)):
        here = places[chunk]
        vectors[here[here >= 0]] = array[chunk][here >= 0]
    unknown = int((places < 0).sum())
    if unknown:
        log.info(f"{file}: {unknown:,} of {len(places):,} rows are of items that item_feature.parquet lacks.")
    return vectors


def _open_npy(file: Path) -> np.ndarray:
    array = _load(file)
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(f"{file} is not one array of (items, width) floats; save it as such with numpy.save.")
    return array


def _read_parquet(file: Path, column: str | None, item_file: ItemFile) -> tuple[np.ndarray, int]:
    """(items, width) float32, zeros for items without a row in the file; and the number of rows of unknown items."""
    places = _places(file, item_file)
    vectors = None
    for cells in _cells(file, _vector_column(file, column)):
        lengths = pc.list_value_length(cells.array).fill_null(0).to_numpy(zero_copy_only=False)
        if vectors is None:
            if not lengths[0]:
                raise cells.refuse(0, "null, or a vector of 0 numbers; drop such rows.")
            vectors = zeros_for_now((len(item_file), int(lengths[0])))
        width = vectors.shape[1]
        wrong = np.flatnonzero(lengths != width)
        if wrong.size:
            raise cells.refuse(wrong[0], f"a vector of {lengths[wrong[0]]} numbers, row 0 has {width}; drop such rows.")
        here = places[cells.first_row : cells.first_row + len(lengths)]
        vectors[here[here >= 0]] = cells.vectors(width)[here >= 0]
    unknown = int((places < 0).sum())
    if unknown:
        log.info(f"{file}: {unknown:,} of {len(places):,} rows are of items that item_feature.parquet lacks.")
    return vectors, unknown


def _cells(file: Path, column: str) -> Iterator[Column]:
    first_row = 0
    try:
        for batch in batches(pq.ParquetFile(file, page_checksum_verification=True), CHUNK_ROWS, [column]):
            yield Column(file, column, first_row, batch.column(0))
            first_row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{file} cannot be read from row {first_row} on: {reason}.") from None


def _places(file: Path, item_file: ItemFile) -> np.ndarray:
    """(rows,) int64: the item's row in the `ItemFile` for each row of the file, -1 for an unknown item."""
    names = column_names([file])
    key = "item" if "item" in names and (item_file.originals or "item_id" not in names) else "item_id"
    if key == "item" and not item_file.originals:
        raise InputError(
            f"{file} names items by column item, which {item_file.files[0]} does not have; use item_id in both."
        )
    if key == "item_id" and item_file.originals and _is_own_key(key, file, item_file):
        raise InputError(
            f"{file}: its item_id may be the log's ids, whose column has that name there, or the numbers of the "
            "prepared folder; give the log's ids, and call the column item."
        )
    keys = text_column([file], key)
    if None in keys:
        raise InputError(f"{file}: column {key} is null in row {keys.index(None)}; drop such rows.")
    refuse_duplicates(keys, file, key)
    places = _found(keys, item_file.originals if key == "item" else [str(i) for i in item_file.item_ids])
    if key == "item_id" and item_file.originals and (places < 0).any():
        named = int((_found(keys, item_file.originals) >= 0).sum())
        if named and named >= (places >= 0).sum():
            raise InputError(
                f"{file}: its item_id seem to be the log's ids, and not the numbers of {item_file.files[0]}; call the "
                "column item."
            )
    if (places < 0).all():
        raise InputError(f"{file}: no value of column {key} is an item of {item_file.files[0]}; compare the two.")
    return places


def _vector_column(file: Path, column: str | None) -> str:
    schema = pq.read_schema(file)
    found = [field.name for field in schema if _is_vector(field.type)]
    if column is None and len(found) == 1:
        return found[0]
    if column in found:
        return column
    if not found:
        raise InputError(f"{file} has no column with lists of floats (it has {', '.join(schema.names)}).")
    problem = "several columns" if column is None else f"no column {column}"
    raise InputError(f"{file} has {problem} with lists of floats; name one: {', '.join(f'{file}:{c}' for c in found)}.")


def _is_vector(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and pa.types.is_floating(kind.value_type)
