"""A part: one vector per item from one source, a text encoder for instance. Sources make parts, fusion joins them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

CHUNK_ROWS = 4096  # of items: what is in memory at once


def row_chunks(rows: int) -> Iterator[slice]:
    """0 … rows in slices of CHUNK_ROWS, the last one shorter."""
    for start in range(0, rows, CHUNK_ROWS):
        yield slice(start, min(start + CHUNK_ROWS, rows))


@dataclass(frozen=True)
class Part:
    """One vector for each item of an `ItemFile`, in its order. A row of zeros is an item without text or picture."""

    kind: str  # "text" or "image"
    source: str  # as the user named it
    vectors: np.ndarray  # (items, width) of any float type, perhaps memory-mapped
    sha256: str  # of everything that the vectors were made from
    details: dict[str, Any] = field(default_factory=dict)  # what else the manifest records of it

    @property
    def width(self) -> int:
        """Numbers per vector."""
        return self.vectors.shape[1]

    @cached_property
    def present(self) -> np.ndarray:
        """(items,) bool: which items have a vector."""
        rows = row_chunks(len(self.vectors))
        return np.concatenate([(self.vectors[chunk] != 0).any(axis=1) for chunk in rows])
