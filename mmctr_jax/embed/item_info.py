"""item_info.parquet with a new column of vectors, and the list of items that lack one."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmctr_jax.data.numbering import check_same_numbering, numbering_of
from mmctr_jax.data.parquet import column_names, read_columns
from mmctr_jax.embed.item_file import ItemFile, refuse_duplicates
from mmctr_jax.embed.parts import Part
from mmctr_jax.errors import InputError
from mmctr_jax.files import replacing, write_atomically, writing

_ADVICE = "make room there, or name another file with --out"
_NEAR = 1e-3  # of the largest number in the vectors: what the same fit on the same items may differ by
_OURS = {b"written_by": b"mmctr_jax.embed"}  # metadata of the column, by which a later call recognises it


@dataclass(frozen=True)
class ItemInfo:
    """item_info.parquet as it will be written again, without the new column."""

    path: Path  # where it will be written
    table: pa.Table  # all other columns
    item_ids: np.ndarray  # (rows,) int64
    places: np.ndarray  # (rows,) row of the item in the `ItemFile`; -1: padding item 0, or an item unknown there
    column: str  # name of the new column
    before: np.ndarray  # (known, dim) the column's vectors of items 1 … known, which keep them; dim 0: there are none

    def write(self, vectors: np.ndarray) -> None:
        """Writes the table with the vectors; rows of padding and unknown items get zeros.

        Args:
          vectors: (items, dim) float32, in the order of the `ItemFile`.
        Raises: InputError if the file cannot be written, or known items would get other vectors than they have.
        """
        rows = np.where(self.places[:, None] >= 0, vectors[self.places], np.float32(0))
        self._keep_known(rows)
        column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
        field = pa.field(self.column, column.type, metadata=_OURS)
        table = self.table.append_column(field, column)
        with writing(self.path, _ADVICE), replacing(self.path) as temporary:
            pq.write_table(table, temporary, write_page_checksum=True)

    def _keep_known(self, rows: np.ndarray) -> None:
        """Puts the vectors that known items had in place of new ones, which rounding may make a little different."""
        if not self.before.size:
            return
        known = (self.item_ids >= 1) & (self.item_ids <= len(self.before))
        kept = self.before[self.item_ids[known] - 1]
        without = ~kept.any(axis=1)  # they get their first ones, as after a day that was not embedded
        kept[without] = rows[known][without]
        farthest = np.abs(rows[known] - kept).max(initial=0)
        if farthest > _NEAR * np.abs(kept).max(initial=0):
            raise InputError(
                f"The vectors of items that were known before would change (by {farthest:.2g} at most), and a model "
                "that learned from those would score by others; embed with the options of the folder that this one was "
                "prepared like, or prepare it without --like and train anew."
            )
        rows[known] = kept

    def write_missing(self, item_file: ItemFile, parts: list[Part]) -> list[str]:
        """Writes items_without_embedding.csv beside it: each item that lacks a part, and which parts it lacks.

        Returns: the names of the items that lack all parts.
        Raises: InputError if the file cannot be written.
        """
        buffer, without = io.StringIO(), []
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["item_id", "item", "missing"])
        for at in np.argsort(self.item_ids, kind="stable"):
            item, row = int(self.item_ids[at]), self.places[at]
            missing = [part.kind for part in parts if row < 0 or not part.present[row]]
            if item and missing:
                original = item_file.originals[row] if item_file.originals and row >= 0 else ""
                writer.writerow([item, original, "+".join(missing)])
                if len(missing) == len(parts):
                    without.append(original or str(item))
        path = self.path.with_name("items_without_embedding.csv")
        with writing(path, _ADVICE):
            write_atomically(path, buffer.getvalue())
        return without


def read_item_info(item_file: ItemFile, column: str, out: Path | None) -> ItemInfo:
    """Reads item_info.parquet without the column that will be written.

    In a prepared folder, whatever `embed` wrote before is left out; where `out` names another file, also a column of
    the same name.

    Args:
      column: name of the new column.
      out: the file to be written; None: item_info.parquet itself.
    Raises: InputError if there is another column of that name, or an item has no row.
    """
    source = item_file.folder / "item_info.parquet"
    path = out or source
    if not source.is_file():
        raise InputError(f"{source} is not a file; write a table there with a row per item.")
    if out and (out.is_dir() or not out.parent.is_dir() or out.resolve() == source.resolve()):
        raise InputError(f"--out {out} cannot be written; name another file, in a folder that exists.")
    if "item_id" not in column_names([source]):
        raise InputError(f"{source}: column item_id is missing; give the column of item ids that name.")
    item_ids = np.concatenate([chunk["item_id"].integers() for chunk in read_columns([source], ["item_id"])] or [[]])
    refuse_duplicates(item_ids.tolist(), source, "item_id")
    check_same_numbering(numbering_of(source), source, numbering_of(item_file.files[0]), item_file.files[0])
    absent = np.setdiff1d(item_file.item_ids, item_ids)
    if absent.size:
        raise InputError(f"{source} has no row for item {absent[0]} of item_feature.parquet; add one.")
    try:
        table = pq.ParquetFile(source, page_checksum_verification=True).read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{source} cannot be read as Parquet: {str(error).splitlines()[0]}.") from None
    known, theirs = ((item_file.manifest or {}).get(key) for key in ("known_items", "known_vectors"))
    if theirs and out is None and column != theirs:
        raise InputError(
            f"{item_file.folder} was prepared like another folder, whose items have {theirs}; embed with that --dim, "
            f"write {column} to another file with --out, or prepare without --like and train anew."
        )
    known = known or 0
    before = np.zeros((known, 0), np.float32)
    if known and out is None and column in table.column_names:
        by_id = table.filter(pc.is_in(table["item_id"], pa.array(range(1, known + 1)))).sort_by("item_id")
        before = np.array(by_id[column].to_pylist(), np.float32)
    recorded = ((item_file.manifest or {}).get("embedding") or {}).get("column")
    for field in table.schema:
        ours = item_file.manifest is not None and (field.metadata == _OURS or field.name == recorded)
        if ours or (out and field.name == column):
            table = table.drop_columns(field.name)
    if column in table.column_names:
        raise InputError(f"{source} has a column {column} already; write the result to another file with --out.")
    row_of_item = {item: row for row, item in enumerate(item_file.item_ids.tolist())}
    places = np.array([row_of_item.get(item, -1) for item in item_ids.tolist()], np.int64)
    return ItemInfo(path, table, item_ids, places, column, before)
