"""A second history of a row, such as what the user bought: the mean of the items' vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from mmctr_jax.features.base import Feature
from mmctr_jax.settings import Width

if TYPE_CHECKING:
    import jax

    from mmctr_jax.data.parquet import Column
    from mmctr_jax.models.embedding import EmbeddingLayer


class ItemsFeature(Feature):
    """A column of lists of item ids, oldest first. Their vectors are those of target and clicks."""

    kind: Literal["items"] = "items"
    length: Width = 16
    """The most recent so many of a list count."""
    num_items: Width | None = None
    """Filled in by training."""

    of_rows: ClassVar[bool] = True
    of_items: ClassVar[bool] = True

    def read(self, column: Column) -> np.ndarray:
        """(rows, length) int32, the most recent at the left, zeros behind."""
        ids, offsets = column.integer_lists()
        wrong = np.flatnonzero((ids < 0) | (ids >= self.num_items))
        if wrong.size:
            row = np.searchsorted(offsets, wrong[0], side="right") - 1
            raise column.refuse(row, f"id {ids[wrong[0]]}; item_info has ids 0 … {self.num_items - 1}.")
        at = offsets[1:, None] - 1 - np.arange(self.length)
        values = ids[np.clip(at, 0, max(len(ids) - 1, 0))] if len(ids) else np.zeros(at.shape, np.int64)
        return np.where(at >= offsets[:-1, None], values, 0).astype(np.int32)

    def padding(self, rows: int) -> np.ndarray:
        return np.zeros((rows, self.length), np.int32)

    def schema(self) -> list:
        return [self.name, self.kind, self.length, self.num_items]

    def made_up(self, rows: int, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(0, self.num_items, (rows, self.length)).astype(np.int32)

    def request(self) -> dict:
        return {"name": self.name, "kind": self.kind, "length": self.length}

    def of_new_items(self, num_items: int) -> ItemsFeature:
        return self.model_copy(update={"num_items": num_items})

    def embed(self, layer: EmbeddingLayer, values: jax.Array, ids: jax.Array | None) -> jax.Array:
        import jax.numpy as jnp  # not above: every config imports this file

        real = (ids != 0)[..., None]
        count = jnp.maximum(real.sum(axis=-2), 1).astype(layer.dtype)
        return jnp.where(real, values, 0).sum(axis=-2) / count
