"""Semantic codes: a frozen vector as the nearest of k-means centroids, level by level."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from mmctr_jax.errors import InputError
from mmctr_jax.features.base import Fitted, NewItems, unchanged
from mmctr_jax.features.embedding import FromVectors

if TYPE_CHECKING:
    import jax

    from mmctr_jax.models.embedding import EmbeddingLayer

_CHUNK = 2**16  # rows at a time
_ROWS_PER_CODE = 256  # that k-means sees; more change its centroids little


class CodesFeature(FromVectors):
    """The nearest of `size` k-means centroids, and so on for what each level leaves.

    One level is vector quantisation, more are residual quantisation. The codes' embeddings learn, and are summed over
    the levels, as the centroids are. Beside an embedding feature of the same column they join it; alone, replace it.
    """

    kind: Literal["codes"] = "codes"
    levels: Annotated[int, Field(ge=1, le=16)] = 3
    """How many times."""
    size: Annotated[int, Field(ge=2, le=2**20)] = 256
    """Codes per level."""

    @property
    def table_size(self) -> int:
        """Ids of all levels in one table: level l has 1 + l·size … (l + 1)·size, 0 is none."""
        return 1 + self.levels * self.size

    def fit(self, vectors: np.ndarray) -> Fitted:
        """(V, levels) int32 codes, 0 for a zero vector; `centroids` (levels, size, dim).

        Also codes in `used` (levels,), and `error` (levels,): the squared reconstruction error after each level, as a
        share of the vectors' variance.
        Raises: InputError if there are too few vectors.
        """
        from sklearn.cluster import KMeans  # not above: every config imports this file, and few fit codes
        from sklearn.exceptions import ConvergenceWarning
        from threadpoolctl import threadpool_limits

        known = np.flatnonzero(vectors.any(axis=1))
        if len(known) < self.size:
            raise InputError(
                f"Feature {self.name}: {len(known):,} items have a vector in {self.source}, too few for size "
                f"{self.size}; lower it."
            )
        residual = vectors[known].astype(np.float32)
        variance = _sum_of_squares(residual - residual.mean(axis=0))
        sample = np.random.default_rng(0).permutation(len(known))[: _ROWS_PER_CODE * self.size]
        ids = np.zeros((len(vectors), self.levels), np.int32)
        centroids, error, used = [], [], []
        for level in range(self.levels):
            # Whole passes over a sample: MiniBatchKMeans was as slow, and left a fifth more error after three levels.
            means = KMeans(self.size, n_init=1, max_iter=20, random_state=0)
            # One thread: sums in one order, so that every host finds the same centroids.
            with threadpool_limits(1), warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct vectors than codes: see `used`
                means.fit(residual[sample])
                codes = np.empty(len(residual), np.int32)
                for at in range(0, len(residual), _CHUNK):
                    part = slice(at, at + _CHUNK)
                    codes[part] = means.predict(residual[part])
                    residual[part] -= means.cluster_centers_[codes[part]]
            ids[known, level] = 1 + level * self.size + codes
            centroids.append(means.cluster_centers_)
            error.append(_sum_of_squares(residual) / variance if variance else 0.0)
            used.append(len(np.unique(codes)))
        return {"values": ids, "centroids": np.stack(centroids), "error": np.array(error), "used": np.array(used)}

    def quality(self, fitted: Fitted) -> str:
        used, error = ", ".join(map(str, fitted["used"])), ", ".join(f"{x:.3f}" for x in fitted["error"])
        return (
            f"Codes {self.name}: in use {used} of {self.size}; squared reconstruction error {error} of the vectors' "
            "variance, level by level."
        )

    def extended(self, values: np.ndarray, known: np.ndarray, fitted: Fitted) -> NewItems:
        """New items get the codes of training's centroids."""
        return NewItems(encode(values[len(known) :], fitted["centroids"]), unchanged(known))

    def embed(self, layer: EmbeddingLayer, values: jax.Array, ids: jax.Array | None) -> jax.Array:
        return layer.lookup(self.name, values).sum(axis=-2)


def encode(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """(V, levels) int32: the codes of (V, dim) vectors by (levels, size, dim) centroids; 0 for the zero vector."""
    from sklearn.metrics import pairwise_distances_argmin

    levels, size, _ = centroids.shape
    known = np.flatnonzero(vectors.any(axis=1))
    residual = vectors[known].astype(np.float32)
    ids = np.zeros((len(vectors), levels), np.int32)
    if not len(known):
        return ids
    for level, means in enumerate(centroids):
        codes = pairwise_distances_argmin(residual, means)
        residual -= means[codes]
        ids[known, level] = 1 + level * size + codes
    return ids


def _sum_of_squares(x: np.ndarray) -> float:
    return float(np.square(x, dtype=np.float64).sum())
