"""Whether a classifier can tell the rows of one split from another's: its cross-validated AUC, and by what it does."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from mmctr_jax.console import log
from mmctr_jax.pages.inspect.row_features import SEED, Feature
from mmctr_jax.pages.inspect.rows import Rows

_FOLDS = 3


def drift(features: list[Feature], rows: dict[str, Rows], sample: dict[str, np.ndarray]) -> dict[str, Any]:
    """Per later split: {"auc", "rows", "train_rows", "features": [{"feature", "drop", "means"}]}, most telling first.

    A feature's drop is what the AUC loses when the feature is shuffled. Rows of a user are in one fold, so that the
    classifier cannot know a row by its user's others.
    """
    used = [f for f in features if f.between_splits]
    columns = {
        name: np.stack([f.values[name] if f.sampled else f.values[name][sample[name]] for f in used], axis=1)
        for name in rows
    }
    found = {}
    for name in rows:
        if name != "train":
            log.info(f"Telling train from {name} ...")
            # One thread: with more, OpenMP waits in a spin for those that other programs keep from a core.
            with threadpool_limits(1, "openmp"):
                found[name] = _compare(columns["train"], columns[name], _folds(rows, sample, ("train", name)))
            means = {split: _means(columns[split]) for split in ("train", name)}
            for i, feature in enumerate(used):
                found[name]["features"][i] |= {
                    "feature": feature.name,
                    "means": {split: value[i] for split, value in means.items()},
                }
            found[name]["features"].sort(key=lambda f: -(f["drop"] or 0))
    return found


def _folds(rows: dict[str, Rows], sample: dict[str, np.ndarray], names: tuple[str, str]) -> np.ndarray:
    """(rows,) number of the fold: at random by user, by row where users are not known."""
    rng = np.random.default_rng(SEED)
    if rows["train"].user is None:
        return rng.integers(0, _FOLDS, sum(len(sample[name]) for name in names))
    users = np.concatenate([rows[name].user[sample[name]] for name in names])
    return rng.integers(0, _FOLDS, users.max() + 1)[users]


def _compare(a: np.ndarray, b: np.ndarray, fold: np.ndarray) -> dict[str, Any]:
    values, is_b = np.concatenate([a, b]).astype(np.float32), np.repeat([0, 1], [len(a), len(b)])
    rng = np.random.default_rng(SEED)
    areas, drops = [], []
    for number in range(_FOLDS):
        held = fold == number
        if min(len(np.unique(is_b[held])), len(np.unique(is_b[~held]))) < 2:
            continue
        # Balanced, or a few thousand rows against 200,000 would be too light to grow a tree for.
        model = HistGradientBoostingClassifier(
            learning_rate=0.2,
            max_iter=40,
            max_leaf_nodes=8,
            early_stopping=False,
            class_weight="balanced",
            random_state=SEED,
        )
        model.fit(values[~held], is_b[~held])
        x, y = values[held], is_b[held]
        areas.append(roc_auc_score(y, model.decision_function(x)))
        drops.append([])
        for i in range(x.shape[1]):
            shuffled = x.copy()
            shuffled[:, i] = rng.permutation(x[:, i])
            drops[-1].append(areas[-1] - roc_auc_score(y, model.decision_function(shuffled)))
    drop = np.mean(drops, axis=0) if drops else [None] * values.shape[1]
    return {
        "auc": float(np.mean(areas)) if areas else None,
        "rows": len(b),
        "train_rows": len(a),
        "features": [{"drop": None if d is None else float(d)} for d in drop],
    }


def _means(values: np.ndarray) -> list[float | None]:
    """By column, of the values that are known."""
    known = [column[~np.isnan(column)] for column in values.T.astype(np.float64)]
    return [float(column.mean()) if len(column) else None for column in known]
