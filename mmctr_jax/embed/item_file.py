"""The items that get vectors: item_feature.parquet, and which of them the manifest counts as training items."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmctr_jax.data.parquet import column_names, part_files, read_columns, read_whole
from mmctr_jax.errors import InputError
from mmctr_jax.prepare.folder import read_manifest


@dataclass(frozen=True)
class ItemFile:
    """The items of a folder, in the order of item_feature.parquet, which is the order of every `Part`."""

    folder: Path
    files: list[Path]
    manifest: dict[str, Any] | None  # None: a folder that prepare did not write
    item_ids: np.ndarray  # (items,) int64
    originals: list[str] | None  # the source's own ids, from column `item`; None where there is no such column

    def __len__(self) -> int:
        """The number of items."""
        return len(self.item_ids)

    def name(self, row: int) -> str:
        """The id by which users know the item in a row: the source's own, if it is there."""
        return self.originals[row] if self.originals else str(self.item_ids[row])

    @property
    def training(self) -> np.ndarray:
        """(items,) bool: the items that vectors may be fitted on; all of them where no manifest says which.

        In a folder that was prepared like another, those that the other's were fitted on.
        """
        if self.manifest is None:
            return np.ones(len(self), bool)
        return self.item_ids <= self.manifest.get("fitted_items", self.manifest["training_items"])

    def texts(self) -> list[str]:
        """The titles, empty for items without one. Raises: InputError if there is no title at all."""
        texts = [(text or "").strip() for text in text_column(self.files, "item_title")]
        if not any(texts):
            raise InputError(f"{self.files[0]}: column item_title has no text at all; name another source with --text.")
        return texts


def read_item_file(folder: Path) -> ItemFile:
    """Reads the items of a folder.

    Raises: InputError if item_feature.parquet is not as it must be: each item once, numbered from 1.
    """
    files = part_files(folder / "item_feature.parquet")
    _require(files, "item_id")
    chunks = [chunk["item_id"] for chunk in read_columns(files, ["item_id"])]
    for chunk in chunks:
        wrong = np.flatnonzero(chunk.integers() < 1)
        if wrong.size:
            raise chunk.refuse(wrong[0], f"item {chunk.integers()[wrong[0]]}; items are numbered from 1.")
    if not chunks:
        raise InputError(f"{files[0]} has no rows; it must have one row per item.")
    item_ids = np.concatenate([chunk.integers() for chunk in chunks])
    originals = text_column(files, "item") if "item" in column_names(files) else None
    refuse_duplicates(item_ids, files[0], "item_id")
    if originals is not None:
        if None in originals:
            raise InputError(f"{files[0]}: column item is null in row {originals.index(None)}; give each item its id.")
        refuse_duplicates(originals, files[0], "item")
    manifest = read_manifest(folder)
    if manifest is not None and not isinstance(manifest.get("training_items"), int):
        raise InputError(f"{folder / 'manifest.json'} does not say training_items; prepare the data again.")
    return ItemFile(folder, files, manifest, item_ids, originals)


def text_column(files: list[Path], column: str) -> list[str | None]:
    """A column of text, or of integers as text. Raises: InputError if it is missing, or of another type."""
    _require(files, column)
    values = read_whole(files, column)
    kind = values.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not (is_text or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise InputError(f"{files[0]}: column {column} has type {kind}; it must be text.")
    try:
        return values.cast(pa.large_string()).to_pylist()
    except UnicodeDecodeError:
        raise InputError(
            f"{files[0]}: column {column} holds text that is not UTF-8; write it again as UTF-8."
        ) from None


def _require(files: list[Path], column: str) -> None:
    for file in files:
        names = column_names([file])
        if column not in names:
            raise InputError(f"{file}: column {column} is missing (it has {', '.join(names)}); add it.")


def refuse_duplicates(keys: list | np.ndarray, file: Path, column: str) -> None:
    """Raises: InputError, with both rows, if a key stands in the column twice."""
    if isinstance(keys, np.ndarray):
        if (np.diff(np.sort(keys)) > 0).all():
            return
        keys = keys.tolist()
    rows: dict = {}
    for row, key in enumerate(keys):
        first = rows.setdefault(key, row)
        if first != row:
            raise InputError(f"{file}: {column} {key} stands in rows {first} and {row}; keep one of them.")
