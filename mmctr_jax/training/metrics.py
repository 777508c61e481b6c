"""Metrics, on the host, over all rows at once. Scores are logits; AUC does not depend on a monotone map of them."""

import numpy as np


def auc(labels: np.ndarray, logits: np.ndarray) -> float:
    """Area under the ROC curve (scikit-learn). NaN if a logit is not finite or one class is missing."""
    if not np.isfinite(logits).all() or labels.min() == labels.max():
        return float("nan")
    from sklearn.metrics import roc_auc_score  # takes a second, which scoring without labels need not wait for

    return float(roc_auc_score(labels, logits))


def losses(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """(rows,) float64 binary cross-entropy in nats, from the logits, so that no probability is clipped."""
    logits = logits.astype(np.float64)
    return np.logaddexp(0, logits) - labels * logits


def logloss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean binary cross-entropy in nats."""
    return float(np.mean(losses(labels, logits)))


def grouped_auc(labels: np.ndarray, logits: np.ndarray, groups: np.ndarray) -> float:
    """Mean over groups (users) of their AUC, weighted by rows; groups of one class are left out (Zhu et al. 2017).

    NaN if no group has both classes or a logit is not finite.
    """
    from scipy.stats import rankdata

    if not np.isfinite(logits).all():
        return float("nan")
    _, group = np.unique(groups, return_inverse=True)
    # Ranks within each group, ties averaged: rank (group, score) pairs together, then subtract the group's offset.
    _, dense = np.unique(logits, return_inverse=True)
    rank = rankdata(group.astype(np.int64) * (dense.max() + 1) + dense)
    rows = np.bincount(group)
    rank -= (np.cumsum(rows) - rows)[group]
    positives = np.bincount(group, labels == 1)
    negatives = rows - positives
    both = (positives > 0) & (negatives > 0)
    if not both.any():
        return float("nan")
    positive_ranks = np.bincount(group, np.where(labels == 1, rank, 0))
    areas = (positive_ranks - positives * (positives + 1) / 2)[both] / (positives * negatives)[both]
    return float(np.average(areas, weights=rows[both]))


def first(logits: np.ndarray) -> np.ndarray:
    """(rows,) the logits of the first label. logits: (rows,), or (rows, 1 + L) with L more labels."""
    return logits if logits.ndim == 1 else np.ascontiguousarray(logits[:, 0])


def evaluate_others(labels: dict[str, np.ndarray], logits: np.ndarray) -> dict[str, float | None]:
    """`auc_NAME` of each label besides the first. labels: those that are known, in the order of the model's outputs.

    logits: (rows, L), of these labels.
    """
    found = {f"auc_{name}": auc(values, logits[:, i]) for i, (name, values) in enumerate(labels.items())}
    return {name: value if np.isfinite(value) else None for name, value in found.items()}


def evaluate(labels: np.ndarray, logits: np.ndarray, users: np.ndarray | None = None) -> dict[str, float | None]:
    """AUC, logloss, and grouped AUC where users are known; None where one is not defined (JSON has no NaN)."""
    metrics = {"auc": auc(labels, logits), "logloss": logloss(labels, logits)}
    if users is not None:
        metrics["gauc"] = grouped_auc(labels, logits, users)
    return {name: value if np.isfinite(value) else None for name, value in metrics.items()}
