"""The items: their vectors, their tags and categories. The padding item 0 is left out."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmctr_jax.pages.inspect.folder import Folder

_BARS = 24
_SHOWN = 20  # most used tags
_NAMED = 10  # items with a zero vector


def embeddings(folder: Folder) -> list[dict[str, Any]]:
    """Per embedding feature: norms, zero vectors, equal vectors, dimensions that are the same in all items."""
    return [
        {"feature": f.name, **_embedding(folder.items[f.name][1:])}
        for f in folder.features.item_features
        if f.kind == "embedding"
    ]


def _embedding(vectors_VxD: np.ndarray) -> dict[str, Any]:
    norms = np.linalg.norm(vectors_VxD.astype(np.float64), axis=1)
    zero = np.flatnonzero(norms == 0)
    found = {
        "dim": vectors_VxD.shape[1],
        "items": len(norms),
        "zero": len(zero),
        "zero_share": len(zero) / len(norms),
        "zero_items": (zero[:_NAMED] + 1).tolist(),
        "constant_dims": int((np.ptp(vectors_VxD, axis=0) == 0).sum()),
    }
    whole = np.ascontiguousarray(vectors_VxD[norms > 0] + np.float32(0))  # −0 + 0 = 0: equal in bytes too
    _, times = np.unique(whole.view(np.dtype((np.void, whole.itemsize * whole.shape[1]))), return_counts=True)
    shared = times[times > 1]
    found |= {
        "equal": int(shared.sum()),
        "equal_share": float(shared.sum() / len(norms)),
        "equal_groups": len(shared),
        "largest_group": int(shared.max(initial=0)),
    }
    norms = norms[norms > 0]
    if not len(norms):
        return found | {"norm": None}
    heights, edges = np.histogram(norms, bins=_BARS)
    return found | {
        "norm": {
            "mean": float(norms.mean()),
            "deviation": float(norms.std()),
            "min": float(norms.min()),
            "max": float(norms.max()),
            "histogram": {"edges": edges.tolist(), "items": heights.tolist()},
        }
    }


def tags(folder: Folder) -> list[dict[str, Any]]:
    """Per tags or categorical feature: how many an item has, which are used most, which once."""
    return [
        {"feature": f.name, "kind": f.kind, **_tags(folder.items[f.name][1:], folder.names[f.name])}
        for f in folder.features.item_features
        if f.kind != "embedding"
    ]


def _tags(ids: np.ndarray, names: dict[int, str]) -> dict[str, Any]:
    ids_VxL = ids.reshape(len(ids), -1)
    per_item = (ids_VxL > 0).sum(axis=1)
    uses = np.bincount(ids_VxL[ids_VxL > 0], minlength=1)
    most = np.argsort(-uses, kind="stable")[:_SHOWN]
    return {
        "items": len(ids),
        "without": int((per_item == 0).sum()),
        "per_item": np.bincount(per_item).tolist(),
        "mean_per_item": float(per_item.mean()),
        "used": int((uses > 0).sum()),
        "used_once": int((uses == 1).sum()),
        "same_in_all_items": bool((np.sort(ids_VxL, axis=1) == np.sort(ids_VxL[:1], axis=1)).all()),
        "most_used": [
            {"id": int(i), "name": names.get(int(i)), "items": int(uses[i]), "share": float(uses[i] / len(ids))}
            for i in most
            if uses[i]
        ],
    }
