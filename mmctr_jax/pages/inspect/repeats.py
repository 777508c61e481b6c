"""Rows that stand where they should not: twice, in two splits, with both labels, or with the answer in the history."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from mmctr_jax.pages.inspect.rows import Rows, equal_rows


def in_own_history(rows: dict[str, Rows]) -> dict[str, dict[str, Any]]:
    """Per split: share of the rows whose target stands in its own history, by label too, and label means of both."""
    found = {}
    for name, r in rows.items():
        inside, label = r.in_history, r.split.label
        found[name] = {"rows": int(inside.sum()), "share": float(inside.mean())}
        if label is not None:
            found[name]["share_of_label"] = [_mean(inside[label == value]) for value in (0, 1)]
            found[name]["label_mean"] = _mean(label[inside])
            found[name]["label_mean_of_others"] = _mean(label[~inside])
    return found


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def repeats(rows: dict[str, Rows]) -> dict[str, Any]:
    """Equal rows have the same user, history and target, or history and target alone where users are not known (`by`).

    within: per split, rows that repeat an earlier one of it, and rows that have an equal with the other label.
    across: per pair of splits, rows of the later one that stand in the earlier one too, and those that stand there
    with the other label. Null where labels are not known.
    """
    numbers = equal_rows(rows)
    size = max(int(n.max()) for n in numbers.values()) + 1
    total = {name: np.bincount(n, minlength=size) for name, n in numbers.items()}
    positive = {
        name: np.bincount(n[rows[name].split.label == 1], minlength=size)
        for name, n in numbers.items()
        if rows[name].split.label is not None
    }
    within, across = [], []
    for name, count in total.items():
        contradicting = None
        if name in positive:
            contradicting = int(count[(positive[name] > 0) & (positive[name] < count)].sum())
        repeated = len(rows[name]) - int((count > 0).sum())
        within.append({"split": name, **_shares(len(rows[name]), repeated, contradicting)})
    for earlier, later in combinations(total, 2):
        contradicting = None
        if earlier in positive and later in positive:
            negative = {name: total[name] - positive[name] for name in (earlier, later)}
            contradicting = int(
                positive[later][negative[earlier] > 0].sum() + negative[later][positive[earlier] > 0].sum()
            )
        repeated = int(total[later][total[earlier] > 0].sum())
        across.append({"split": later, "of": earlier, **_shares(len(rows[later]), repeated, contradicting)})
    by = ["history", "target"] if rows["train"].user is None else ["user", "history", "target"]
    return {"by": by, "within": within, "across": across}


def _shares(rows: int, repeated: int, contradicting: int | None) -> dict[str, Any]:
    return {
        "rows": rows,
        "repeated": repeated,
        "repeated_share": repeated / rows,
        "contradicting": contradicting,
        "contradicting_share": None if contradicting is None else contradicting / rows,
    }
