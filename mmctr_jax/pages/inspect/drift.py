"""Whether a classifier can tell the rows of one split from another's: its cross-validated AUC, and by what it does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.inspection import permutation_importance
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from mmctr_jax.console import log
from mmctr_jax.formats import decimal, shown
from mmctr_jax.pages.inspect.row_features import SEED, Feature
from mmctr_jax.pages.inspect.rows import Rows, is_known

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


def drift(features: list[Feature], rows: Rows, sample: dict[str, np.ndarray]) -> dict[str, Drift]:
    """By later split. Rows of a user are in one fold, so that the classifier cannot know a row by its user's others."""
    used = [f for f in features if f.between_splits]
    columns = {}
    for name, drawn in sample.items():
        columns[name] = np.stack([f.values[name] if f.sampled else f.values[name][drawn] for f in used], axis=1)
    means = {name: [pl.Series(x, nan_to_null=True).mean() for x in columns[name].T] for name in rows}
    found = {}
    for name in (name for name in rows if name != "train"):
        log.info(f"Telling train from {name} ...")
        names = ("train", name)
        values = np.concatenate([columns[split] for split in names]).astype(np.float32)
        users = np.concatenate([rows[split]["user"].to_numpy()[sample[split]] for split in names])
        groups = users if is_known(rows["train"]["user"]) else np.arange(len(values))
        # One thread: with more, OpenMP waits in a spin for those that other programs keep from a core.
        with threadpool_limits(1, "openmp"):
            auc, drops = _tell_apart(values, np.arange(len(values)) >= len(columns["train"]), groups)
        told = [DriftFeature(f.name, drops[i], {split: means[split][i] for split in names}) for i, f in enumerate(used)]
        told.sort(key=lambda f: -(f.drop or 0))
        found[name] = Drift(auc, len(columns[name]), len(columns["train"]), told)
    return found


def _tell_apart(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> tuple[float | None, list[float | None]]:
    """The mean AUC over the folds, and by how much it drops when a column is shuffled, column by column."""
    areas, drops = [], []
    fold = np.random.default_rng(SEED).integers(0, _FOLDS, groups.max() + 1)[groups]
    for held in (fold == number for number in range(_FOLDS)):
        if min(len(np.unique(y[rows])) for rows in (held, ~held)) < 2:
            continue
        # Balanced, or a few thousand rows against 200,000 would be too light to grow a tree for.
        settings = {"learning_rate": 0.2, "max_iter": 40, "max_leaf_nodes": 8, "class_weight": "balanced"}
        model = HistGradientBoostingClassifier(**settings, early_stopping=False, random_state=SEED)
        model.fit(x[~held], y[~held])
        areas.append(roc_auc_score(y[held], model.decision_function(x[held])))
        without = permutation_importance(model, x[held], y[held], scoring="roc_auc", n_repeats=1, random_state=SEED)
        drops.append(without.importances_mean)
    return (float(np.mean(areas)), np.mean(drops, axis=0).tolist()) if areas else (None, [None] * x.shape[1])
