"""How well a single feature predicts the label: AUC of the smoothed label mean of its values.

Within training it is cross-fitted: two random halves, each scored by the means of the other. Validation and test are
scored by the means of all training rows. Counting per value gives the AUC of all rows without sorting rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from mmctr_jax.pages.inspect.row_features import BINS, Feature, first_half
from mmctr_jax.pages.inspect.rows import Rows

POSITION = "row position"
_SMOOTHING = 10.0  # rows at the overall mean that each value is given
_STRIDES = (2, 3, 4, 5, 8, 10)  # rows written in turns, such as one positive and three negatives


def auc_of_counts(scores: np.ndarray, positives: np.ndarray, negatives: np.ndarray) -> float | None:
    """AUC where positives[i] and negatives[i] rows have scores[i]; ties count half. Null if a class is missing."""
    _, rank = np.unique(scores, return_inverse=True)
    positives, negatives = np.bincount(rank, positives), np.bincount(rank, negatives)
    pairs = positives.sum() * negatives.sum()
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / pairs) if pairs else None


def standard_error(auc: float, positives: int, negatives: int) -> float:
    """Of an AUC (Hanley and McNeil 1982); at 0.5 the exact one of scores that know nothing."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    return math.sqrt(max(spread, 0) / (positives * negatives))


def _counts(codes: np.ndarray, labels: np.ndarray, size: int) -> np.ndarray:
    """(2, size): rows of label 0, and of label 1, by code."""
    return np.bincount(codes + size * labels.astype(np.int64), minlength=2 * size).reshape(2, size)


def _means(counts: np.ndarray) -> np.ndarray:
    """(size,) smoothed share of label 1; the overall share for a code without rows."""
    overall = counts[1].sum() / max(counts.sum(), 1)
    return (counts[1] + _SMOOTHING * overall) / (counts.sum(axis=0) + _SMOOTHING)


def cross_fitted(codes: np.ndarray, labels: np.ndarray) -> float | None:
    """The mean AUC of two random halves, each scored by the label means of the other."""
    first = first_half(len(codes))
    size = int(codes.max()) + 1
    a, b = (_counts(codes[half], labels[half], size) for half in (first, ~first))
    areas = [auc_of_counts(_means(fit), score[1], score[0]) for fit, score in ((a, b), (b, a))]
    return None if None in areas else sum(areas) / 2


def transferred(codes: np.ndarray, labels: np.ndarray, to_codes: np.ndarray, to_labels: np.ndarray) -> float | None:
    """The AUC of other rows, scored by the label means of these."""
    size = int(max(codes.max(), to_codes.max())) + 1
    scored = _counts(to_codes, to_labels, size)
    return auc_of_counts(_means(_counts(codes, labels, size)), scored[1], scored[0])


def label_aucs(
    features: list[Feature], rows: dict[str, Rows], sample: dict[str, np.ndarray]
) -> Iterator[dict[str, Any]]:
    """Per feature, and last for the rows' order: {"feature", split: {"auc", "positives", "negatives"}}."""
    labelled = {name: r.split.label for name, r in rows.items() if r.split.label is not None}
    for feature in features:
        labels = {name: y[sample[name]] if feature.sampled else y for name, y in labelled.items()}
        codes = feature.codes()
        found: dict[str, Any] = {"feature": feature.name}
        for name, y in labels.items():
            if name == "train":
                area = cross_fitted(codes["train"], y)
            else:
                area = transferred(codes["train"], labels["train"], codes[name], y)
            found[name] = _record(area, y)
        yield found
    # An order is a split's own: cross-fitted in each.
    found = {"feature": POSITION, "every": {}}
    for name, y in labelled.items():
        areas = {by: cross_fitted(codes, y) for by, codes in _orders(len(y)).items()}
        best = max(areas, key=lambda by: areas[by] or 0)
        found[name] = _record(areas[best], y)
        found["every"][name] = best
    yield found


def _orders(rows: int) -> dict[int, np.ndarray]:
    """Codings of the place in the file: n → its remainder by n; 0 → the part of the file, of 32."""
    place = np.arange(rows)
    return {0: place * BINS // rows} | {stride: place % stride for stride in _STRIDES}


def _record(area: float | None, labels: np.ndarray) -> dict[str, Any]:
    positives = int(labels.sum(dtype=np.int64))
    return {"auc": area, "positives": positives, "negatives": len(labels) - positives}
