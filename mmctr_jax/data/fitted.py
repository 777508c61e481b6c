"""Item features derived from frozen vectors: semantic codes and nearest neighbours.

They are fitted once and kept in the cache folder, in a file named after a fingerprint of the vectors and the settings;
a run keeps what it was trained with in its item table.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances_argmin
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from mmctr_jax.config.schema import CodesFeature, NeighboursFeature
from mmctr_jax.console import log
from mmctr_jax.data.cache import writing_cache
from mmctr_jax.errors import InputError

_FORMAT = 1
_CHUNK = 2**16  # rows at a time
_ROWS_PER_CODE = 256  # that k-means sees; more change its centroids little


Derived = dict[str, np.ndarray]


def derive(vectors: np.ndarray, feature: CodesFeature | NeighboursFeature, cache_dir: str | Path) -> Derived:
    """(V, dim) vectors → `ids`: (V, levels) codes or (V, top_k) item ids, int32; 0 for none. Zero vectors have none.

    For codes also `centroids` (levels, size, dim), codes in `used` (levels,), and `error` (levels,): the squared
    reconstruction error after each level, as a share of the vectors' variance.
    Raises: InputError if there are too few vectors, or the cache folder cannot be written.
    """
    fingerprint = hashlib.sha256(f"{_FORMAT} {feature.model_dump_json()} {vectors.shape}".encode())
    fingerprint.update(np.ascontiguousarray(vectors))
    file = Path(cache_dir) / f"{feature.kind}-{fingerprint.hexdigest()[:24]}.npz"
    arrays = _read(file)
    if arrays is None:
        log.info(f"Fitting {feature.kind} {feature.name} on {len(vectors):,} vectors of {feature.source}.")
        arrays = _codes(vectors, feature) if feature.kind == "codes" else {"ids": neighbours(vectors, feature)}
        _write(file, arrays)
    if feature.kind == "codes":
        shares = ", ".join(f"{error:.3f}" for error in arrays["error"])
        log.info(
            f"Codes {feature.name}: in use {', '.join(map(str, arrays['used']))} of {feature.size}; squared "
            f"reconstruction error {shares} of the vectors' variance, level by level."
        )
    return arrays


def _read(file: Path) -> Derived | None:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception:  # absent or damaged, of many kinds
        return None


def _write(file: Path, arrays: Derived) -> None:
    with writing_cache(file.parent, "data.cache_dir"):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{file.name}", dir=file.parent)
        try:
            with open(handle, "wb") as stream:
                np.savez(stream, **arrays)
            os.replace(temporary, file)
        finally:
            Path(temporary).unlink(missing_ok=True)


def _codes(vectors: np.ndarray, feature: CodesFeature) -> Derived:
    """Residual quantisation: k-means, then k-means of what it leaves, and so on; one level is vector quantisation."""
    known = np.flatnonzero(vectors.any(axis=1))
    if len(known) < feature.size:
        raise InputError(
            f"Feature {feature.name}: {len(known):,} items have a vector in {feature.source}, too few for size "
            f"{feature.size}; lower it."
        )
    residual = vectors[known].astype(np.float32)
    variance = _sum_of_squares(residual - residual.mean(axis=0))
    sample = np.random.default_rng(0).permutation(len(known))[: _ROWS_PER_CODE * feature.size]
    ids = np.zeros((len(vectors), feature.levels), np.int32)
    centroids, error, used = [], [], []
    for level in range(feature.levels):
        # Whole passes over a sample: MiniBatchKMeans was as slow, and left a fifth more error after three levels.
        means = KMeans(feature.size, n_init=1, max_iter=20, random_state=0)
        # One thread: sums in one order, so that every host finds the same centroids.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct vectors than codes: shown in `used`
            means.fit(residual[sample])
            codes = np.empty(len(residual), np.int32)
            for at in range(0, len(residual), _CHUNK):
                part = slice(at, at + _CHUNK)
                codes[part] = means.predict(residual[part])
                residual[part] -= means.cluster_centers_[codes[part]]
        ids[known, level] = 1 + level * feature.size + codes
        centroids.append(means.cluster_centers_)
        error.append(_sum_of_squares(residual) / variance if variance else 0.0)
        used.append(len(np.unique(codes)))
    return {"ids": ids, "centroids": np.stack(centroids), "error": np.array(error), "used": np.array(used)}


def _sum_of_squares(x: np.ndarray) -> float:
    return float(np.square(x, dtype=np.float64).sum())


def encode(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """(V, levels) int32: the codes of (V, dim) vectors by (levels, size, dim) centroids; 0 for the zero vector."""
    levels, size, _ = centroids.shape
    known = np.flatnonzero(vectors.any(axis=1))
    residual = vectors[known].astype(np.float32)
    ids = np.zeros((len(vectors), levels), np.int32)
    for level, means in enumerate(centroids):
        codes = pairwise_distances_argmin(residual, means)
        residual -= means[codes]
        ids[known, level] = 1 + level * size + codes
    return ids


def neighbours(vectors: np.ndarray, feature: NeighboursFeature, among: int | None = None) -> np.ndarray:
    """(V, top_k) int32: the nearest by cosine, nearest first, the item itself left out.

    among: only the first so many items can be neighbours, and only those after them are given any.
    Exact: time grows with the items squared. Raises: InputError if there are too few vectors.
    """
    known = np.flatnonzero(vectors.any(axis=1))
    candidates = known[: np.searchsorted(known, len(vectors) if among is None else among)]
    if len(candidates) <= feature.top_k:
        raise InputError(
            f"Feature {feature.name}: {len(candidates):,} items have a vector in {feature.source}, too few for top_k "
            f"{feature.top_k}; lower it."
        )
    norms = np.linalg.norm(vectors[known].astype(np.float64), axis=1, keepdims=True)  # squares leave float32's range
    unit = (vectors[known] / norms).astype(np.float32)
    search = NearestNeighbors(n_neighbors=feature.top_k + 1, algorithm="brute").fit(unit[: len(candidates)])
    ids = np.zeros((len(vectors), feature.top_k), np.int32)
    for at in range(0 if among is None else len(candidates), len(known), _CHUNK):
        rows = np.arange(at, min(at + _CHUNK, len(known)))
        found = search.kneighbors(unit[rows], return_distance=False)
        itself = found == rows[:, None]
        itself[~itself.any(axis=1), -1] = True  # crowded out by its duplicates, or no candidate: the farthest goes
        ids[known[rows]] = known[found[~itself].reshape(len(rows), feature.top_k)]
    return ids
