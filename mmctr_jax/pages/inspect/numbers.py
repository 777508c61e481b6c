"""A folder → all numbers of the page, as plain data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mmctr_jax.console import log
from mmctr_jax.data.lengths import default_lengths
from mmctr_jax.pages.inspect.drift import drift
from mmctr_jax.pages.inspect.folder import Folder
from mmctr_jax.pages.inspect.items import embeddings, tags
from mmctr_jax.pages.inspect.label_auc import label_aucs
from mmctr_jax.pages.inspect.repeats import in_own_history, repeats
from mmctr_jax.pages.inspect.row_features import SAMPLE, SEED, row_features, samples
from mmctr_jax.pages.inspect.rows import Rows, read_rows

_LENGTHS = (8, 16, 32, 64, 128)  # to which padding is reckoned
_POINTS = 60  # of the popularity curve
_VALUES = 30  # of a side feature, shown


def measure(folder: Folder) -> dict[str, Any]:
    """Every number of the page; what is not defined is null."""
    users = folder.users or {}
    rows = {name: read_rows(name, s, users.get(name), folder.num_items) for name, s in folder.splits.items()}
    sample = samples(rows)
    features = row_features(folder, rows, sample)
    log.info("Predicting the label from single features ...")
    return _plain(
        {
            "name": folder.name,
            "sample": {"at_most": SAMPLE, "seed": SEED, "rows": {name: len(s) for name, s in sample.items()}},
            "splits": _splits(rows, folder.num_items),
            "histories": {name: _lengths(r.length) for name, r in rows.items()},
            "padding": _padding(rows["train"].length, folder.max_history),
            "popularity": _popularity(rows["train"], folder.num_items),
            "levels": [_levels(rows, s.name, folder.names[s.name]) for s in folder.features.side],
            "label_auc": list(label_aucs(features, rows, sample)),
            "drift": drift(features, rows, sample),
            "target_in_history": in_own_history(rows),
            "repeats": repeats(rows),
            "embeddings": embeddings(folder),
            "tags": tags(folder),
            "constant": _constant(rows, [s.name for s in folder.features.side], folder.features.label),
        }
    )


def _splits(rows: dict[str, Rows], num_items: int) -> dict[str, dict[str, Any]]:
    """An item is seen in training if it is a target there or stands in a history there."""
    train = rows["train"]
    targets = {name: np.bincount(r.split.item, minlength=num_items) for name, r in rows.items()}
    seen = (targets["train"] > 0) | (train.occurrences > 0)
    found = {}
    for name, r in rows.items():
        mine = targets[name] > 0
        found[name] = {
            "rows": len(r),
            "label_mean": None if r.split.label is None else float(r.split.label.mean()),
            "items": int(mine.sum()),
            "items_in_histories": int((r.occurrences > 0).sum()),
            "unseen_items": float((mine & ~seen).sum() / mine.sum()),
            "unseen_item_rows": float((~seen[r.split.item]).mean()),
        }
        if r.user is not None:
            users = np.unique(r.user)
            new = ~np.isin(users, train.user)
            found[name] |= {
                "users": len(users),
                "rows_per_user": len(r) / len(users),
                "unseen_users": float(new.mean()),
                "unseen_user_rows": float(np.isin(r.user, users[new]).mean()),
            }
    return found


def _lengths(length: np.ndarray) -> dict[str, Any]:
    """Bins are 0, 1, 2, 3–4, 5–8, 9–16, …, by their largest length."""
    ends = [0, *(2**i for i in range(max(int(length.max()) - 1, 0).bit_length() + 1))]
    heights = np.bincount(np.searchsorted(ends, length), minlength=len(ends))
    return {
        "mean": float(length.mean()),
        **{f"p{q}": float(np.quantile(length, q / 100)) for q in (50, 90, 99)},
        "max": int(length.max()),
        "empty": float((length == 0).mean()),
        "bins": [{"up_to": end, "rows": int(n)} for end, n in zip(ends, heights, strict=True)],
    }


def _padding(length: np.ndarray, max_history: int | None) -> list[dict[str, Any]]:
    """Per N: share of histories cut, share of the positions that are padding, and what length buckets would need."""
    longest = max(int(length.max()), 1)
    found = []
    for n in sorted({*(n for n in _LENGTHS if n < longest), longest, max_history or longest}):
        kept = np.minimum(length, n)
        buckets = np.array(default_lengths(n))
        positions = int(buckets[np.searchsorted(buckets, kept)].sum())
        found.append(
            {
                "length": n,
                "configured": n == max_history,
                "cut": float((length > n).mean()),
                "padding": 1 - int(kept.sum()) / (len(length) * n),
                "bucketed": positions / (len(length) * n),
            }
        )
    return found


def _popularity(train: Rows, num_items: int) -> dict[str, Any]:
    """Clicks (rows of label 1) and rows by target item, each sorted by itself, at ranks even on a log scale."""
    item, label = train.split.item, train.split.label
    clicks, targets = (
        -np.sort(-np.bincount(item[chosen], minlength=num_items)[1:])
        for chosen in (label == 1, np.ones(len(item), bool))
    )
    ranks = np.unique(np.geomspace(1, len(clicks), _POINTS).round().astype(int))
    top = {share: clicks[: math.ceil(share * len(clicks))].sum() for share in (0.01, 0.1)}
    total = max(int(clicks.sum()), 1)
    return {
        "items": len(clicks),
        "clicks": int(clicks.sum()),
        "without_click": int((clicks == 0).sum()),
        "top_1_percent": float(top[0.01] / total),
        "top_10_percent": float(top[0.1] / total),
        "curve": [{"rank": int(r), "clicks": int(clicks[r - 1]), "rows": int(targets[r - 1])} for r in ranks],
    }


def _levels(rows: dict[str, Rows], name: str, names: dict[int, str]) -> dict[str, Any]:
    """Rows and label mean by value, of the values that are most frequent in training."""
    values, frequency = np.unique(rows["train"].split.side[name], return_counts=True)
    shown = np.sort(values[np.argsort(-frequency, kind="stable")[:_VALUES]])
    found = [{"value": int(v), "name": names.get(int(v)), "splits": {}} for v in shown]
    for split, r in rows.items():
        for entry in found:
            chosen = r.split.side[name] == entry["value"]
            mean = float(r.split.label[chosen].mean()) if r.split.label is not None and chosen.any() else None
            entry["splits"][split] = {"rows": int(chosen.sum()), "label_mean": mean}
    return {"feature": name, "distinct": len(values), "values": found}


def _constant(rows: dict[str, Rows], side: list[str], label: str) -> list[dict[str, Any]]:
    """Side features and labels that have one value in a whole split."""
    found = []
    for split, r in rows.items():
        columns = {name: r.split.side[name] for name in side}
        if r.split.label is not None:
            columns[label] = r.split.label
        for name, values in columns.items():
            if (values == values[0]).all():
                found.append({"split": split, "column": name, "value": int(values[0])})
    return found


def _plain(value: Any) -> Any:
    """For JSON: floats of six digits, null for what is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
