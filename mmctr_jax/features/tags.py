"""A list of ids per item, such as tags or genres: the mean of their learned vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from mmctr_jax.errors import InputError
from mmctr_jax.features.vocabulary import Ids

if TYPE_CHECKING:
    import jax

    from mmctr_jax.data.parquet import Column
    from mmctr_jax.models.embedding import EmbeddingLayer

_MOST_BYTES = 2**29  # of a table of lists that is mostly padding
_Lists = tuple[np.ndarray, np.ndarray]  # flat ids, and (rows + 1,) offsets


class TagsFeature(Ids):
    """A list column: the mean of its non-padding ids' embeddings; the zero vector where there are none (Eq. 2)."""

    kind: Literal["tags"] = "tags"

    def read(self, column: Column) -> _Lists:
        ids, offsets = column.integer_lists()
        return self.check(column, ids, offsets), offsets

    def join(self, chunks: list[_Lists]) -> np.ndarray:
        """(rows, L) int32, each list at the left of its row, zeros behind; L is the longest list, at least 1."""
        lengths = np.concatenate([np.diff(offsets) for _, offsets in chunks])
        longest, total = int(lengths.max()), int(lengths.sum())
        if 4 * longest * len(lengths) > max(_MOST_BYTES, 16 * 4 * total):
            raise InputError(
                f"Column {self.name}: the list of row {int(lengths.argmax())} has {longest:,} ids, and so wide a "
                f"table of {len(lengths):,} rows takes {4 * longest * len(lengths) / 2**30:.1f} GiB for {total:,} ids; "
                "shorten the longest lists."
            )
        padded = np.zeros((len(lengths), max(int(lengths.max()), 1)), np.int32)
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate([ids for ids, _ in chunks])
        return padded

    def embed(self, layer: EmbeddingLayer, values: jax.Array, ids: jax.Array | None) -> jax.Array:
        return layer.mean(self.name, values)

    def of_target(self, values: np.ndarray) -> tuple[str, np.ndarray, bool]:
        return f"target's number of {self.name}", (values > 0).sum(axis=1), True
