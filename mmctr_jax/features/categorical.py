"""One id per item or row, such as a category, a level or a device: a learned vector for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from mmctr_jax.features.vocabulary import Ids

if TYPE_CHECKING:
    import jax

    from mmctr_jax.data.parquet import Column
    from mmctr_jax.models.embedding import EmbeddingLayer


class CategoricalFeature(Ids):
    """An integer column. Id 0 is padding: a zero vector that never learns."""

    kind: Literal["categorical"] = "categorical"
    of_rows: ClassVar[bool] = True

    def read(self, column: Column) -> np.ndarray:
        """(rows,) int32."""
        return self.check(column, column.integers())

    def embed(self, layer: EmbeddingLayer, values: jax.Array, ids: jax.Array | None) -> jax.Array:
        return layer.lookup(self.name, values)

    def of_target(self, values: np.ndarray) -> tuple[str, np.ndarray, bool]:
        return f"target's {self.name}", values, False
