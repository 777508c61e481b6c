"""The items whose frozen vectors are nearest: the mean of their id embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from mmctr_jax.errors import InputError
from mmctr_jax.features.base import Fitted, NewItems, unchanged
from mmctr_jax.features.embedding import FromVectors

if TYPE_CHECKING:
    import jax

    from mmctr_jax.models.embedding import EmbeddingLayer

_CHUNK = 2**16  # rows at a time


class NeighboursFeature(FromVectors):
    """The `top_k` nearest items by cosine, as item ids; items with a zero vector take no part."""

    kind: Literal["neighbours"] = "neighbours"
    top_k: Annotated[int, Field(ge=1, le=1000)] = 5
    """How many."""
    lists_neighbours: ClassVar[bool] = True

    def fit(self, vectors: np.ndarray) -> Fitted:
        return {"values": self._nearest(vectors)}

    def extended(self, values: np.ndarray, known: np.ndarray, fitted: Fitted) -> NewItems:
        """Neighbours of new items are items of training, whose id embeddings have learned."""
        return NewItems(self._nearest(values, among=len(known))[len(known) :], unchanged(known))

    def _nearest(self, vectors: np.ndarray, among: int | None = None) -> np.ndarray:
        """(V, top_k) int32: the nearest by cosine, nearest first, the item itself left out.

        among: only the first so many items can be neighbours, and only those after them are given any.
        Exact: time grows with the items squared. Raises: InputError if there are too few vectors.
        """
        from sklearn.neighbors import NearestNeighbors  # not above: every config imports this file

        known = np.flatnonzero(vectors.any(axis=1))
        candidates = known[: np.searchsorted(known, len(vectors) if among is None else among)]
        if len(candidates) <= self.top_k:
            raise InputError(
                f"Feature {self.name}: {len(candidates):,} items have a vector in {self.source}, too few for top_k "
                f"{self.top_k}; lower it."
            )
        norms = np.linalg.norm(vectors[known].astype(np.float64), axis=1, keepdims=True)  # squares may leave float32
        unit = (vectors[known] / norms).astype(np.float32)
        search = NearestNeighbors(n_neighbors=self.top_k + 1, algorithm="brute").fit(unit[: len(candidates)])
        ids = np.zeros((len(vectors), self.top_k), np.int32)
        for at in range(0 if among is None else len(candidates), len(known), _CHUNK):
            rows = np.arange(at, min(at + _CHUNK, len(known)))
            found = search.kneighbors(unit[rows], return_distance=False)
            itself = found == rows[:, None]
            itself[~itself.any(axis=1), -1] = True  # crowded out by its duplicates, or no candidate: the farthest goes
            ids[known[rows]] = known[found[~itself].reshape(len(rows), self.top_k)]
        return ids

    def embed(self, layer: EmbeddingLayer, values: jax.Array, ids: jax.Array | None) -> jax.Array:
        return layer.mean(layer.features.item, values)
