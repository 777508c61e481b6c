"""One id per item, row or click, such as a category, a level or a device: a learned vector for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from mmctr_jax.features.vocabulary import Ids

if TYPE_CHECKING:
    import jax

    from mmctr_jax.data.parquet import Column
    from mmctr_jax.models.embedding import EmbeddingLayer


class CategoricalFeature(Ids):
    """An integer column. Id 0 is padding: a zero vector that never learns."""

    kind: Literal["categorical"] = "categorical"
    hash: Annotated[int, Field(ge=2, le=2**31 - 1)] | None = None
    """The column holds values, texts or integers of any size, instead of ids: each becomes one of the ids 1 … hash − 1
    by its hash, in training as in serving, and null becomes 0. No vocabulary is kept, and no value is ever new; values
    that meet in an id share its vector."""
    of_rows: ClassVar[bool] = True
    of_clicks: ClassVar[bool] = True

    @model_validator(mode="before")
    @classmethod
    def _hash_is_the_vocabulary(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or raw.get("hash") is None:
            return raw
        if raw.get("vocab_size") not in (None, raw["hash"]):
            raise ValueError(f"{raw.get('name')} has both hash and vocab_size; drop one of the two")
        return raw | {"vocab_size": raw["hash"]}

    def read(self, column: Column) -> np.ndarray:
        """(rows,) int32."""
        if self.hash is not None:
            return column.hashed(self.hash)
        return self.check(column, column.integers())

    def schema(self) -> list:
        return super().schema() + (["hash"] if self.hash is not None else [])

    def request(self) -> dict:
        return super().request() | ({"hash": self.hash} if self.hash is not None else {})

    def embed(self, layer: EmbeddingLayer, values: jax.Array, ids: jax.Array | None) -> jax.Array:
        return layer.lookup(self.name, values)

    def of_target(self, values: np.ndarray) -> tuple[str, np.ndarray, bool]:
        return f"target's {self.name}", values, False
