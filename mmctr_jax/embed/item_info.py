"""item_info.parquet with a new column of vectors, and the list of items that lack one.

The file is written again some rows at a time: the vectors of very many items need not fit into memory.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmctr_jax.data.kept import zeros_for_now
from mmctr_jax.data.numbering import check_same_numbering, numbering_of
from mmctr_jax.data.parquet import batches, column_names, read_columns
from mmctr_jax.embed.item_file import ItemFile, refuse_duplicates
from mmctr_jax.embed.parts import Part, row_chunks
from mmctr_jax.errors import InputError
from mmctr_jax.files import replacing, write_atomically, writing

_ROWS = 2**17  # of the file at once; a row group
_ADVICE = "make room there, or name another file with --out"
_NEAR = 1e-3  # of the largest number in the vectors: what the same fit on the same items may differ by
_OURS = {b"written_by": b"mmctr_jax.embed"}  # metadata of the column, by which a later call recognises it


@dataclass(frozen=True)
class ItemInfo:
    """item_info.parquet as it will be written again, without the new column."""

    path: Path  # where it will be written
    source: Path  # the file as it is
    left_out: frozenset[str]  # columns of it that are not written again
    item_ids: np.ndarray  # (rows,) int64
    places: np.ndarray  # (rows,) row of the item in the `ItemFile`; -1: padding item 0, or an item unknown there
    column: str  # name of the new column
    before: np.ndarray  # (known, dim) the column's vectors of items 1 … known, which keep them; dim 0: there are none

    def write(self, vectors: np.ndarray) -> None:
        """Writes the table with the vectors; rows of padding and unknown items get zeros.

        Args:
          vectors: (items, dim) float32, in the order of the `ItemFile`.
        Raises: InputError if the file cannot be read or written, or known items would get other vectors than they have.
        """
        schema = pq.read_schema(self.source)
        others = [at for at, name in enumerate(schema.names) if name not in self.left_out]
        new = pa.field(self.column, pa.list_(pa.float32(), vectors.shape[1]), metadata=_OURS)
        schema = pa.schema([*(schema.field(at) for at in others), new], schema.metadata)
        largest = max((np.abs(self.before[chunk]).max(initial=0) for chunk in row_chunks(len(self.before))), default=0)
        start = 0
        with (
            writing(self.path, _ADVICE),
            replacing(self.path) as temporary,
            pq.ParquetWriter(temporary, schema, write_page_checksum=True) as file,
        ):
            for batch in _batches(self.source):
                here = slice(start, start + len(batch))
                places, start = self.places[here], here.stop
                if not np.array_equal(batch.column("item_id"), self.item_ids[here]):
                    raise InputError(f"{self.source} was changed meanwhile, and is as it is now; embed again.")
                rows = np.where(places[:, None] >= 0, vectors[places], np.float32(0))
                self._keep_known(rows, self.item_ids[here], largest)
                column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), type=new.type)
                file.write_batch(pa.record_batch([*(batch.column(at) for at in others), column], schema=schema))

    def _keep_known(self, rows: np.ndarray, item_ids: np.ndarray, largest: float) -> None:
        """Puts the vectors that known items had in place of new ones, which rounding may make a little different.

        largest: number in any of the vectors that they had.
        """
        known = (item_ids >= 1) & (item_ids <= len(self.before))
        if not self.before.size or not known.any():
            return
        kept = self.before[item_ids[known] - 1]
        without = ~kept.any(axis=1)  # they get their first ones, as after a day that was not embedded
        kept[without] = rows[known][without]
        farthest = np.abs(rows[known] - kept).max(initial=0)
        if farthest > _NEAR * largest:
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
    refuse_duplicates(item_ids, source, "item_id")
    check_same_numbering(numbering_of(source), source, numbering_of(item_file.files[0]), item_file.files[0])
    absent = np.setdiff1d(item_file.item_ids, item_ids)
    if absent.size:
        raise InputError(f"{source} has no row for item {absent[0]} of item_feature.parquet; add one.")
    schema = pq.read_schema(source)
    known, theirs = ((item_file.manifest or {}).get(key) for key in ("known_items", "known_vectors"))
    if theirs and out is None and column != theirs:
        raise InputError(
            f"{item_file.folder} was prepared like another folder, whose items have {theirs}; embed with that --dim, "
            f"write {column} to another file with --out, or prepare without --like and train anew."
        )
    before = np.zeros((known or 0, 0), np.float32)
    if known and out is None and column in schema.names:
        before = _vectors_of_known(source, column, known)
    recorded = ((item_file.manifest or {}).get("embedding") or {}).get("column")
    left_out = set()
    for field in schema:
        ours = item_file.manifest is not None and (field.metadata == _OURS or field.name == recorded)
        if ours or (out and field.name == column):
            left_out.add(field.name)
    if column in schema.names and column not in left_out:
        raise InputError(f"{source} has a column {column} already; write the result to another file with --out.")
    order = np.argsort(item_file.item_ids)
    at = np.minimum(np.searchsorted(item_file.item_ids, item_ids, sorter=order), len(order) - 1)
    places = np.where(item_file.item_ids[order[at]] == item_ids, order[at], -1)
    return ItemInfo(path, source, frozenset(left_out), item_ids, places, column, before)


def _batches(source: Path) -> Iterator[pa.RecordBatch]:
    """Its rows, checked against the sums that the file may have of its pages. Raises: InputError."""
    try:
        yield from batches(pq.ParquetFile(source, page_checksum_verification=True), _ROWS)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{source} cannot be read as Parquet: {str(error).splitlines()[0]}.") from None


def _vectors_of_known(source: Path, column: str, known: int) -> np.ndarray:
    """(known, dim) float32 vectors of items 1 … known."""
    before = None
    for chunk in read_columns([source], ["item_id", column]):
        ids = chunk["item_id"].integers()
        vectors = np.array(chunk[column].array.to_pylist(), np.float32)
        if before is None:
            before = zeros_for_now((known, vectors.shape[1]))
        here = (ids >= 1) & (ids <= known)
        before[ids[here] - 1] = vectors[here]
    return before
