"""Rows in memory, as a file that the reader of files checks like any other."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmctr_jax.errors import InputError


def as_table(rows: Any) -> pa.Table:
    """A table of a dictionary of arrays or lists, a pyarrow table, or a polars or pandas frame. Raises: InputError."""
    try:
        if isinstance(rows, pa.Table):
            return rows
        if isinstance(rows, pa.RecordBatch):
            return pa.Table.from_batches([rows])
        if hasattr(rows, "to_arrow"):  # polars
            return rows.to_arrow()
        if type(rows).__module__.split(".")[0] == "pandas":
            return pa.Table.from_pandas(rows, preserve_index=False)
        if isinstance(rows, Mapping):
            return pa.table({name: _array(values) for name, values in rows.items()})
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise InputError(f"The rows are no table: {str(error).splitlines()[0]}.") from None
    raise InputError(
        f"Rows are of type {type(rows).__name__}; give a dictionary of columns, a pyarrow table, or a polars or pandas "
        "frame."
    )


def _array(values: Any) -> pa.Array:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if hasattr(values, "to_arrow"):  # polars
        return values.to_arrow()
    if not isinstance(values, np.ndarray) and type(values).__module__.split(".")[0] != "pandas":
        values = np.asarray(values) if hasattr(values, "__array__") else values  # JAX, PyTorch
    if isinstance(values, np.ndarray) and values.ndim > 1:
        return pa.array(list(values))
    return pa.array(values)


def _temporary() -> tempfile.TemporaryDirectory:
    try:
        return tempfile.TemporaryDirectory(prefix="mmctr_")
    except OSError as error:
        raise _unwritable(error) from None


def _unwritable(error: OSError) -> InputError:
    return InputError(
        f"Rows in memory are checked by way of a temporary file, which cannot be written ({error.strerror or error}); "
        "name a folder for it in TMPDIR."
    )


@contextmanager
def as_file(rows: Any) -> Iterator[Path]:
    """A Parquet file of rows in memory; what is wrong with it is said of "rows". Raises: InputError."""
    table = as_table(rows)
    with _temporary() as folder:
        path = Path(folder) / "rows.parquet"
        try:
            pq.write_table(table, path)
        except pa.ArrowException as error:
            raise InputError(f"The rows are no table: {str(error).splitlines()[0]}.") from None
        except OSError as error:
            raise _unwritable(error) from None
        try:
            yield path
        except InputError as error:
            raise InputError(str(error).replace(str(path), "rows")) from None
