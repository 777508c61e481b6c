"""A list of ids per item or row, such as tags, genres or interests: the mean of their learned vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from mmctr_jax.console import log
from mmctr_jax.errors import InputError
from mmctr_jax.features.vocabulary import Ids
from mmctr_jax.settings import Width

if TYPE_CHECKING:
    import jax

    from mmctr_jax.data.parquet import Column
    from mmctr_jax.models.embedding import EmbeddingLayer

_MOST_BYTES = 2**29  # of a table of lists that is mostly padding
_FEW = 16  # ids of a list; so many are never too many
_Lists = tuple[np.ndarray, np.ndarray]  # flat ids, and (rows + 1,) offsets


def costs_too_much(lengths: np.ndarray) -> bool:
    """Whether a table of lists as wide as the longest of these (rows,) lengths is far more than its ids."""
    longest = int(lengths.max(initial=0))
    return longest > _FEW and longest * len(lengths) > 16 * int(lengths.sum())


def _is_large(lengths: np.ndarray) -> bool:
    return 4 * int(lengths.max(initial=0)) * len(lengths) > _MOST_BYTES


class TagsFeature(Ids):
    """A list column: the mean of its non-padding ids' embeddings; the zero vector where there are none (Eq. 2)."""

    kind: Literal["tags"] = "tags"
    length: Width | None = None
    """The first so many ids of a list count. null, for items alone: all."""
    of_rows: ClassVar[bool] = True

    def read(self, column: Column) -> _Lists:
        ids, offsets = column.integer_lists()
        return self.check(column, ids, offsets), offsets

    def join(self, chunks: list[_Lists]) -> np.ndarray:
        """(rows, L) int32, each list at the left of its row, zeros behind; L is the longest list, at least 1."""
        lengths = np.concatenate([np.diff(offsets) for _, offsets in chunks])
        longest, total = int(lengths.max(initial=0)), int(lengths.sum())
        if self.length is not None:
            return np.concatenate([self._cut(*chunk, min(self.length, max(longest, 1))) for chunk in chunks])
        if costs_too_much(lengths):
            what = f"Column {self.name}: the list of row {int(lengths.argmax())} has {longest:,} ids, and "
            do = "give the feature a length, of which longer lists have the first ids alone."
            if _is_large(lengths):
                size = 4 * longest * len(lengths) / 2**30
                raise InputError(
                    f"{what}so wide a table of {len(lengths):,} rows takes {size:.1f} GiB for {total:,} ids; {do}"
                )
            log.warning(f"{what}steps take as long as if all had so many ({total / len(lengths):.1f} on average); {do}")
        padded = np.zeros((len(lengths), max(int(lengths.max()), 1)), np.int32)
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate([ids for ids, _ in chunks])
        return padded

    def read_rows(self, column: Column) -> np.ndarray:
        return self._cut(*self.read(column), self.length)

    @staticmethod
    def _cut(ids: np.ndarray, offsets: np.ndarray, length: int) -> np.ndarray:
        """(rows, length) int32: the first ids of each list, zeros behind."""
        at = offsets[:-1, None] + np.arange(length)
        values = ids[np.minimum(at, max(len(ids) - 1, 0))] if len(ids) else np.zeros(at.shape, np.int32)
        return np.where(at < offsets[1:, None], values, 0).astype(np.int32)

    def padding(self, rows: int) -> np.ndarray:
        return np.zeros((rows, self.length), np.int32)

    def schema(self) -> list:
        return [*super().schema(), "list", self.length]

    def request(self) -> dict:
        return super().request() | {"length": self.length}

    def embed(self, layer: EmbeddingLayer, values: jax.Array, ids: jax.Array | None) -> jax.Array:
        return layer.mean(self.name, values)

    def of_target(self, values: np.ndarray) -> tuple[str, np.ndarray, bool]:
        return f"target's number of {self.name}", (values > 0).sum(axis=1), True
