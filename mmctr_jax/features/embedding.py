"""A frozen vector per item, e.g. of its text and picture: taken as it is, or through a learned square map."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from mmctr_jax.features.base import Feature
from mmctr_jax.features.summaries import VectorSummary, summarise_vectors
from mmctr_jax.settings import Name, Width

if TYPE_CHECKING:
    import jax

    from mmctr_jax.data.parquet import Column
    from mmctr_jax.models.embedding import EmbeddingLayer


class EmbeddingFeature(Feature):
    """A list-of-floats column; `model.project_mm` says whether it passes through a learned map (Eq. 3)."""

    kind: Literal["embedding"] = "embedding"
    dim: Width
    """Length of every vector."""
    bits: Literal[16, 32] = 32
    """How many bits of each number are kept, in memory and on the devices. 16: half of both; numbers are rounded to
    eleven binary digits."""
    is_vector: ClassVar[bool] = True

    def read(self, column: Column) -> np.ndarray:
        """(rows, dim) float32 or float16. Raises: InputError at a number that is too large for float16."""
        vectors = column.vectors(self.dim)
        if self.bits == 32:
            return vectors
        wrong = np.flatnonzero((np.abs(vectors) > np.finfo(np.float16).max).any(axis=1))
        if wrong.size:
            raise column.refuse(wrong[0], "a number beyond 65,504 in the vector; 16 bits do not hold it, say bits: 32.")
        return vectors.astype(np.float16)

    def width(self, embedding_dim: int) -> int:
        return self.dim

    def embed(self, layer: EmbeddingLayer, values: jax.Array, ids: jax.Array | None) -> jax.Array:
        return layer.project(self.name, values, ids)

    def summarise(self, values: np.ndarray, names: dict[int, str]) -> VectorSummary:
        return summarise_vectors(self.name, values)


class FromVectors(Feature):
    """What is derived from a column of frozen vectors."""

    name: Name
    """Name of the feature; there is no such column."""
    source: Name
    """The list-of-floats column of item_info that it is made of; a zero vector gives nothing."""
    dim: Width
    """Length of every vector."""
    is_derived: ClassVar[bool] = True

    @property
    def column(self) -> EmbeddingFeature:
        return EmbeddingFeature(name=self.source, dim=self.dim)

    def describe(self) -> str:
        return f"{self.name} ({self.kind} of {self.source})"
