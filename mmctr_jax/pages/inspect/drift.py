"""Whether a classifier can tell the rows of one split from another's: its cross-validated AUC, and by what it does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from mmctr_jax.console import log
from mmctr_jax.formats import decimal, shown
from mmctr_jax.pages.inspect.row_features import SEED, Feature
from mmctr_jax.pages.inspect.rows import Rows

_FOLDS = 3


@dataclass(frozen=True)
class DriftFeature:
    """What a feature has to do with it."""

    feature: str = shown("feature")
    drop: float | None = shown("AUC lost without", decimal)  # when the feature is shuffled
    means: dict[str, float | None]  # by split, of the values that are known


@dataclass(frozen=True)
class Drift:
    """Of a later split against train; an AUC is None where a split has too few rows to learn from."""

    auc: float | None
    rows: int
    train_rows: int
    features: list[DriftFeature]  # the most telling first


def drift(features: list[Feature], rows: dict[str, Rows], sample: dict[str, np.ndarray]) -> dict[str, Drift]:
    """By later split. Rows of a user are in one fold, so that the classifier cannot know a row by its user's others."""
    used = [f for f in features if f.between_splits]
    columns = {name: np.stack([f.of_sample(name, sample) for f in used], axis=1) for name in rows}
    found = {}
    for name in (name for name in rows if name != "train"):
        log.info(f"Telling train from {name} ...")
        # One thread: with more, OpenMP waits in a spin for those that other programs keep from a core.
        with threadpool_limits(1, "openmp"):
            auc, drops = _tell_apart(columns["train"], columns[name], _folds(rows, sample, ("train", name)))
        told = [
            DriftFeature(f.name, drops[i], {split: _mean(columns[split][:, i]) for split in ("train", name)})
            for i, f in enumerate(used)
        ]
        told.sort(key=lambda f: -(f.drop or 0))
        found[name] = Drift(auc, len(columns[name]), len(columns["train"]), told)
    return found


def _folds(rows: dict[str, Rows], sample: dict[str, np.ndarray], names: tuple[str, str]) -> np.ndarray:
    """(rows,) number of the fold: at random by user, by row where users are not known."""
    rng = np.random.default_rng(SEED)
    if rows["train"].user is None:
        return rng.integers(0, _FOLDS, sum(len(sample[name]) for name in names))
    users = np.concatenate([rows[name].user[sample[name]] for name in names])
    return rng.integers(0, _FOLDS, users.max() + 1)[users]


def _tell_apart(a: np.ndarray, b: np.ndarray, fold: np.ndarray) -> tuple[float | None, list[float | None]]:
    """The mean AUC over the folds, and by how much it drops when a column is shuffled, column by column."""
    values, is_b = np.concatenate([a, b]).astype(np.float32), np.repeat([0, 1], [len(a), len(b)])
    rng = np.random.default_rng(SEED)
    areas, drops = [], []
    for number in range(_FOLDS):
        held = fold == number
        if min(len(np.unique(is_b[held])), len(np.unique(is_b[~held]))) < 2:
            continue
        # Balanced, or a few thousand rows against 200,000 would be too light to grow a tree for.
        settings = {"learning_rate": 0.2, "max_iter": 40, "max_leaf_nodes": 8, "class_weight": "balanced"}
        model = HistGradientBoostingClassifier(**settings, early_stopping=False, random_state=SEED)
        model.fit(values[~held], is_b[~held])
        x, y = values[held], is_b[held]
        areas.append(roc_auc_score(y, model.decision_function(x)))
        drops.append([])
        for i in range(x.shape[1]):
            shuffled = x.copy()
            shuffled[:, i] = rng.permutation(x[:, i])
            drops[-1].append(areas[-1] - roc_auc_score(y, model.decision_function(shuffled)))
    if not areas:
        return None, [None] * values.shape[1]
    return float(np.mean(areas)), np.mean(drops, axis=0).tolist()


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)].astype(np.float64)
    return float(known.mean()) if len(known) else None
