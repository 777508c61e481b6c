"""What the values of an item feature look like, in a few numbers: of vectors, and of ids (tags, categories, codes).

Everything is computed from plain arrays by item id; the padding item 0 is left out. What is not defined is None.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmctr_jax.features.lists import Lists, between
from mmctr_jax.formats import count, decimal, percent, shown

_BARS = 24  # of the histogram of norms
_SHOWN = 20  # most used ids
_NAMED = 10  # items with a zero vector


@dataclass(frozen=True)
class NormHistogram:
    """Items by the norm of their vector."""

    edges: list[float]  # one more than bars
    items: list[int]


@dataclass(frozen=True)
class Norms:
    """Euclidean norms of the vectors that are not zero."""

    mean: float
    deviation: float
    min: float
    max: float
    histogram: NormHistogram


def _norm_cell(norm: Norms | None) -> str:
    if norm is None:
        return "–"
    return f"{decimal(norm.mean)} ± {decimal(norm.deviation)}, {decimal(norm.min)} – {decimal(norm.max)}"


@dataclass(frozen=True)
class VectorSummary:
    """One vector an item."""

    feature: str = shown("feature")
    dim: int = shown("width", count)
    items: int = shown("items", count)
    zero: int = shown("zero vectors", count)
    zero_share: float  # of all items
    zero_items: list[int]  # the first ones' ids
    constant_dims: int = shown("constant dimensions", count)  # the same in all items
    equal: int = shown("equal vectors", count)  # items that share their vector, not a zero one, with another item
    equal_share: float  # of all items
    equal_groups: int = shown("in groups", count)
    largest_group: int = shown("largest group", count)
    norm: Norms | None = shown("norm, from – to", _norm_cell)  # None where every vector is zero


@dataclass(frozen=True)
class IdUse:
    """An id, and the items that have it."""

    id: int = shown("id", str)
    name: str | None = shown("name", lambda name: name or "")  # what the id stands for, where that is known
    items: int = shown("items", count)
    share: float = shown("share", percent)  # of all items


@dataclass(frozen=True)
class IdSummary:
    """One id or several an item."""

    feature: str = shown("feature")
    kind: str
    items: int = shown("items", count)
    without: int = shown("without any", count)
    per_item: list[int]  # number of items with 0, 1, 2, 3–4, 5–8, 9–16, … ids
    mean_per_item: float = shown("ids an item", decimal)
    used: int = shown("different ids", count)
    used_once: int = shown("used once", count)
    same_in_all_items: bool
    most_used: list[IdUse]


def summarise_vectors(feature: str, vectors_VxD: np.ndarray) -> VectorSummary:
    """`vectors_VxD`: float32 vectors by item id, row 0 being padding."""
    vectors_VxD = vectors_VxD[1:]
    norms = np.linalg.norm(vectors_VxD.astype(np.float64), axis=1)
    zero = np.flatnonzero(norms == 0)
    whole = np.ascontiguousarray(vectors_VxD[norms > 0] + np.float32(0))  # −0 + 0 = 0: equal in bytes too
    _, times = np.unique(whole.view(np.dtype((np.void, whole.itemsize * whole.shape[1]))), return_counts=True)
    shared = times[times > 1]
    return VectorSummary(
        feature=feature,
        dim=vectors_VxD.shape[1],
        items=len(norms),
        zero=len(zero),
        zero_share=len(zero) / len(norms),
        zero_items=(zero[:_NAMED] + 1).tolist(),
        constant_dims=int((np.ptp(vectors_VxD, axis=0) == 0).sum()),
        equal=int(shared.sum()),
        equal_share=float(shared.sum() / len(norms)),
        equal_groups=len(shared),
        largest_group=int(shared.max(initial=0)),
        norm=_norms(norms[norms > 0]),
    )


def _norms(norms: np.ndarray) -> Norms | None:
    if not len(norms):
        return None
    heights, edges = np.histogram(norms, bins=_BARS)
    ends = float(norms.min()), float(norms.max())
    return Norms(float(norms.mean()), float(norms.std()), *ends, NormHistogram(edges.tolist(), heights.tolist()))


def summarise_ids(feature: str, kind: str, lists: Lists, names: dict[int, str]) -> IdSummary:
    """`lists`: of ids by item id, none of them 0; item 0 is padding. `names`: id → what it stands for."""
    ids, offsets = between(lists, 1, len(lists[1]) - 1)
    per_item, items = np.diff(offsets), len(offsets) - 1
    uses = np.bincount(ids, minlength=1)
    in_order = ids[np.lexsort((ids, np.repeat(np.arange(items), per_item)))]
    same = (per_item == per_item[:1]).all() and (in_order == np.tile(in_order[: offsets[:2][-1]], items)).all()
    most = [int(i) for i in np.argsort(-uses, kind="stable")[:_SHOWN] if uses[i]]
    return IdSummary(
        feature=feature,
        kind=kind,
        items=items,
        without=int((per_item == 0).sum()),
        per_item=np.bincount(np.where(per_item, 1 + np.ceil(np.log2(np.maximum(per_item, 1))), 0).astype(int)).tolist(),
        mean_per_item=float(per_item.mean()),
        used=int((uses > 0).sum()),
        used_once=int((uses == 1).sum()),
        same_in_all_items=bool(same),
        most_used=[IdUse(i, names.get(i), int(uses[i]), float(uses[i] / items)) for i in most],
    )
