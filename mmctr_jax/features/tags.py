"""A list of ids per item or row, such as tags, genres or interests: the mean of their learned vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from mmctr_jax.features import lists
from mmctr_jax.features.base import NewItems
from mmctr_jax.features.lists import BEYOND, REST, Lists, Parted
from mmctr_jax.features.summaries import IdSummary, summarise_ids
from mmctr_jax.features.vocabulary import Ids
from mmctr_jax.settings import Width

if TYPE_CHECKING:
    import jax

    from mmctr_jax.data.parquet import Column
    from mmctr_jax.features.base import Fitted
    from mmctr_jax.models.embedding import EmbeddingLayer


class TagsFeature(Ids):
    """A list column: the mean of its non-padding ids' embeddings; the zero vector where there are none (Eq. 2)."""

    kind: Literal["tags"] = "tags"
    length: Width | None = None
    """The first so many ids of a list count. null, for items alone: all."""
    of_rows: ClassVar[bool] = True

    def read(self, column: Column) -> Lists:
        ids, offsets = column.integer_lists()
        return self.check(column, ids, offsets), offsets

    def read_rows(self, column: Column) -> np.ndarray:
        return lists.first(self.read(column), self.length)

    def padding(self, rows: int) -> np.ndarray:
        return np.zeros((rows, self.length), np.int32)

    def schema(self) -> list:
        return [*super().schema(), "list", self.length]

    def request(self) -> dict:
        return super().request() | {"length": self.length}

    # In the item table

    parts: ClassVar[tuple[str, ...]] = ("", BEYOND, REST)

    def held(self, chunks: list[Lists], ids: np.ndarray, num_items: int) -> dict[str, np.ndarray]:
        found = lists.joined(chunks)
        found = found if self.length is None else lists.cut(found, self.length)
        return lists.held(self.name, lists.by_row(found, ids, num_items))

    def of(self, table: dict[str, np.ndarray]) -> Lists:
        return lists.of(table, self.name)

    def extended(self, values: Lists, known: Lists, fitted: Fitted) -> NewItems:
        (ids, offsets), trained = values, len(known[1]) - 1
        unknown = ids >= self.vocab_size
        values = lists.without_padding((np.where(unknown, 0, ids), offsets))
        changed = lists.differ(lists.between(values, 0, trained), known)
        return NewItems(lists.between(values, trained, len(offsets) - 1), changed, int(unknown.sum()))

    def joined(self, known: Lists, new: Lists) -> dict[str, list[np.ndarray]]:
        return {name: [array] for name, array in lists.held(self.name, lists.joined([known, new])).items()}

    # In the model

    def taken(self, items: dict[str, jax.Array], ids: jax.Array) -> jax.Array | Parted:
        import jax.numpy as jnp  # not above: every config imports this file

        values = super().taken(items, ids)
        if self.name + REST not in items:
            return values
        beyond, rest = (jnp.asarray(items[self.name + part]) for part in (BEYOND, REST))
        return Parted(values, beyond[ids], rest)

    def embed(self, layer: EmbeddingLayer, values: jax.Array | Parted, ids: jax.Array | None) -> jax.Array:
        return layer.mean(self.name, values)

    # On pages

    def summarise(self, values: Lists, names: dict[int, str]) -> IdSummary:
        return summarise_ids(self.name, self.kind, values, names)

    def of_target(self, values: Lists) -> tuple[str, np.ndarray, bool]:
        return f"target's number of {self.name}", np.diff(values[1]), True
