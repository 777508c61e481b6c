"""Labels of rows to be scored, which may stand in a file of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from mmctr_jax.console import log
from mmctr_jax.data.numbering import numbering_of
from mmctr_jax.data.parquet import column_names, count_rows, part_files, read_columns, read_whole
from mmctr_jax.errors import InputError


def read_labels(
    files: list[Path], name: str, labels: str | Path | None, id_columns: tuple[str, ...] = ("ID",)
) -> np.ndarray | None:
    """(rows,) labels of the rows in `files`: column `name` of them, or of the file `labels`; null if they have none.

    id_columns: must be the same where both files have them. `ID` alone is enough where `labels` does not say how its
    ids were numbered: the others may be the log's own there.

    Raises: InputError if `labels` is not of these rows, or cannot be read.
    """
    label_files = files if labels is None else part_files(labels)
    if labels is None and name not in column_names(files):
        return None
    try:
        chunks = [chunk[name].labels() for chunk in read_columns(label_files, [name])]
    except InputError as error:
        if labels is not None:
            raise
        log.warning(f"No metrics: {error}")  # labels are not needed for scoring
        return None
    values = np.concatenate(chunks) if chunks else np.empty(0, np.uint8)
    if len(values) != count_rows(files):
        raise InputError(
            f"{labels} has {len(values):,} labels for {count_rows(files):,} rows to score; give one a row."
        )
    if labels is not None:
        there, here = column_names(label_files), column_names(files)
        shared = [column for column in ("ID", *id_columns) if column in there and column in here]
        for column in ["ID"] if "ID" in shared and numbering_of(labels) is None else shared:
            if not _same(read_whole(label_files, column), read_whole(files, column)):
                raise InputError(
                    f"{labels}: its {column} column is not that of the scored file; give labels in the same order."
                )
    return values


def _same(a: pa.ChunkedArray, b: pa.ChunkedArray) -> bool:
    """Whether two columns of any types hold the same values, exactly; what cannot be compared is not the same."""
    try:
        return a.equals(b.cast(a.type))
    except pa.ArrowException:
        return False
