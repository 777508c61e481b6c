"""How well a single feature predicts the label: AUC of the smoothed label mean of its values.

Within training it is cross-fitted: two random halves, each scored by the means of the other. Validation and test are
scored by the means of all training rows. Counting per value gives the AUC of all rows without sorting rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mmctr_jax.formats import shown
from mmctr_jax.pages.inspect.row_features import BINS, Feature, first_half
from mmctr_jax.pages.inspect.rows import Rows, is_known
from mmctr_jax.pages.intervals import area

POSITION = "row position"
_SMOOTHING = 10.0  # rows at the overall mean that each value is given
_STRIDES = (2, 3, 4, 5, 8, 10)  # rows written in turns, such as one positive and three negatives


@dataclass(frozen=True)
class Auc:
    """Of one feature in one split."""

    auc: float | None  # None where a class is missing
    positives: int
    negatives: int

    def error(self, auc: float = 0.5) -> float:
        """Standard error of such an AUC (Hanley and McNeil 1982); at 0.5 the exact one of scores that know nothing."""
        q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
        spread = auc * (1 - auc) + (self.positives - 1) * (q1 - auc**2) + (self.negatives - 1) * (q2 - auc**2)
        return math.sqrt(max(spread, 0) / (self.positives * self.negatives))


@dataclass(frozen=True)
class LabelAuc:
    """Of one feature alone, by split; None for a test split without labels."""

    feature: str = shown("AUC")
    train: Auc
    valid: Auc
    test: Auc | None = None
    every: dict[str, int] | None = None  # of the rows' order, by split: remainder by n, or 0: parts of the file

    @property
    def splits(self) -> dict[str, Auc]:
        """By name, those with labels."""
        return {name: auc for name in ("train", "valid", "test") if (auc := getattr(self, name))}


def label_aucs(features: list[Feature], rows: Rows, sample: dict[str, np.ndarray]) -> list[LabelAuc]:
    """Of each feature, and last of the rows' order."""
    labelled = {name: r["label"].to_numpy() for name, r in rows.items() if is_known(r["label"])}
    found = []
    for feature in features:
        labels = {name: y[sample[name]] if feature.sampled else y for name, y in labelled.items()}
        codes = feature.codes()
        train = codes["train"], labels["train"]
        areas = {name: transferred(*train, codes[name], y) for name, y in labels.items() if name != "train"}
        areas["train"] = cross_fitted(*train)
        found.append(LabelAuc(feature.name, **{name: _record(areas[name], y) for name, y in labels.items()}))
    order, every = {}, {}  # a split's own: cross-fitted in each
    for name, y in labelled.items():
        place = np.arange(len(y))
        patterns = {0: place * BINS // len(y)} | {stride: place % stride for stride in _STRIDES}
        areas = {by: cross_fitted(codes, y) for by, codes in patterns.items()}
        every[name] = max(areas, key=lambda by: areas[by] or 0)
        order[name] = _record(areas[every[name]], y)
    return [*found, LabelAuc(POSITION, **order, every=every)]


def auc_of_counts(scores: np.ndarray, positives: np.ndarray, negatives: np.ndarray) -> float | None:
    """AUC where positives[i] and negatives[i] rows have scores[i]; ties count half. None if a class is missing."""
    auc = area(np.repeat([1, 0], len(scores)), np.tile(scores, 2))(np.concatenate([positives, negatives])[None])[0]
    return float(auc) if np.isfinite(auc) else None


def cross_fitted(codes: np.ndarray, labels: np.ndarray) -> float | None:
    """The mean AUC of two random halves, each scored by the label means of the other."""
    first = first_half(len(codes))
    areas = [transferred(codes[fit], labels[fit], codes[~fit], labels[~fit]) for fit in (first, ~first)]
    return None if None in areas else sum(areas) / 2


def transferred(codes: np.ndarray, labels: np.ndarray, to_codes: np.ndarray, to_labels: np.ndarray) -> float | None:
    """The AUC of other rows, scored by the smoothed label means of these; codes are small integers."""
    size = int(max(codes.max(initial=0), to_codes.max(initial=0))) + 1
    (negatives, positives), (to_negatives, to_positives) = (
        np.bincount(c + size * y.astype(np.int64), minlength=2 * size).reshape(2, size)
        for c, y in ((codes, labels), (to_codes, to_labels))
    )
    overall = positives.sum() / max(len(codes), 1)  # that of a code without rows
    means = (positives + _SMOOTHING * overall) / (positives + negatives + _SMOOTHING)
    return auc_of_counts(means, to_positives, to_negatives)


def _record(auc: float | None, labels: np.ndarray) -> Auc:
    positives = int(labels.sum(dtype=np.int64))
    return Auc(auc, positives, len(labels) - positives)
