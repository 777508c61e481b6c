"""What every source of vectors makes and fusion takes: one vector per item and kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

CHUNK_ROWS = 4096


def row_chunks(rows: int) -> Iterator[slice]:
    for start in range(0, rows, CHUNK_ROWS):
        yield slice(start, min(start + CHUNK_ROWS, rows))


@dataclass(frozen=True)
class Part:
    """The vectors of all items, in the item_file's order. A row of zeros is an item without this text or picture."""

    kind: str  # "text" or "image"
    source: str  # as the user named it
    vectors: np.ndarray  # (items, width) of any float type, perhaps memory-mapped
    sha256: str  # of all that the vectors were made from
    details: dict[str, Any] = field(default_factory=dict)  # what else the manifest records of it

    @property
    def width(self) -> int:
        return self.vectors.shape[1]

    @cached_property
    def present(self) -> np.ndarray:
        """(items,) bool."""
        rows = row_chunks(len(self.vectors))
        return np.concatenate([(self.vectors[chunk] != 0).any(axis=1) for chunk in rows])
