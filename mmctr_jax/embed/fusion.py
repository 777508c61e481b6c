"""Parts → one vector per item: side by side, then a PCA fitted on the items that training knows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA, IncrementalPCA

from mmctr_jax.console import Progress
from mmctr_jax.data.kept import zeros_for_now
from mmctr_jax.embed.parts import CHUNK_ROWS, Part, row_chunks
from mmctr_jax.errors import InputError

FULL_PCA_BYTES = 2**31  # of the fitted matrix in float64; a larger one is fitted piece by piece
_NO_VARIANCE = 1e-10  # of a component, relative to the first: what rounding float32 leaves (squared, times many)


@dataclass(frozen=True)
class Fused:
    """The result of `fuse`."""

    vectors: np.ndarray  # (items, dim) float32; zeros for an item without any part
    explained_variance: float  # share of the fitted items' variance that `dim` components keep
    fitted_items: int


def fuse(parts: list[Part], training: np.ndarray, dim: int, whiten: bool, l2: Collection[str]) -> Fused:
    """A PCA of the parts side by side.

    Args:
      parts: one or more, rows in the same order. An item that lacks one has zeros there; one that lacks all is left
        out of the fit and gets a zero vector.
      training: (items,) bool, the items to fit on.
      whiten: scale each component to unit variance over the fitted items.
      l2: of "parts" (each part's rows to unit length first) and "result" (the final rows to unit length).
    Raises: InputError if the fitted items cannot give `dim` components.
    """
    present = np.any([part.present for part in parts], axis=0)
    fitted = np.flatnonzero(training & present)
    width = sum(part.width for part in parts)
    largest = min(len(fitted), width)
    if len(fitted) < 2 or dim > largest:
        raise InputError(
            f"--dim {dim} is more than {len(fitted):,} items to fit on, with {width:,} numbers each, can give; "
            + (f"the largest possible value is {largest}." if len(fitted) > 1 else "at least two items are needed.")
        )
    unit_parts = "parts" in l2
    with np.errstate(invalid="ignore"):  # shares of no variance at all: refused below
        pca = _fit(parts, fitted, dim, whiten, unit_parts)
    spread = pca.explained_variance_
    if not spread[0] > 0:
        raise InputError("All items to fit on have the same vector: there is nothing to tell them apart by.")
    if whiten and spread[-1] <= _NO_VARIANCE * spread[0]:
        raise InputError(
            f"--whiten would blow up rounding errors at --dim {dim}: only {(spread > _NO_VARIANCE * spread[0]).sum()} "
            "components have any variance, the largest possible value."
        )
    vectors = zeros_for_now((len(present), dim))
    for chunk in row_chunks(len(present)):
        rows = np.arange(len(present))[chunk][present[chunk]]
        if rows.size:
            result = pca.transform(_side_by_side(parts, rows, unit_parts))
            vectors[rows] = _unit_length(result) if "result" in l2 else result
    return Fused(vectors, float(pca.explained_variance_ratio_.sum()), len(fitted))


def _fit(parts: list[Part], rows: np.ndarray, dim: int, whiten: bool, unit_parts: bool) -> PCA | IncrementalPCA:
    """The exact PCA in float64; for a matrix of more than FULL_PCA_BYTES, the incremental one."""
    width = sum(part.width for part in parts)
    if len(rows) * width * 8 <= FULL_PCA_BYTES:
        # By eigenvectors of the covariance where it is the smaller matrix: neither copies the data nor approximates.
        pca = PCA(dim, whiten=whiten, svd_solver="covariance_eigh" if len(rows) > width else "full")
        matrix = np.empty((len(rows), width))
        for chunk in row_chunks(len(rows)):
            matrix[chunk] = _side_by_side(parts, rows[chunk], unit_parts)
        return pca.fit(matrix)
    pca = IncrementalPCA(dim, whiten=whiten)
    with Progress("PCA", len(rows), "items") as progress:
        for piece in np.array_split(rows, max(len(rows) // max(CHUNK_ROWS, dim), 1)):
            pca.partial_fit(_side_by_side(parts, piece, unit_parts), check_input=False)
            progress.advance(len(piece))
    return pca


def _side_by_side(parts: list[Part], rows: np.ndarray, unit_parts: bool) -> np.ndarray:
    """(rows, width) float64."""
    blocks = [np.asarray(part.vectors[rows], np.float64) for part in parts]
    return np.concatenate([_unit_length(block) if unit_parts else block for block in blocks], axis=1)


def _unit_length(rows: np.ndarray) -> np.ndarray:
    """Each row over its length; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)
