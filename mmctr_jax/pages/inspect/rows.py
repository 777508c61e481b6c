"""The rows of a split: history lengths, targets that stand in their own history, rows that are equal or contradict."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import polars as pl
import pyarrow as pa

from mmctr_jax.data.cache import Split
from mmctr_jax.formats import count, decimal, percent, shown


@dataclass(frozen=True)
class Rows:
    """One split's rows, and what was found of them; arrays are (rows,) unless said otherwise."""

    split: Split
    user: np.ndarray | None  # int64 codes
    length: np.ndarray  # of the history, int64
    in_history: np.ndarray  # bool: the target stands in its own history
    key: np.ndarray  # uint64, equal for rows of the same user, history and target
    occurrences: np.ndarray  # (V,) int64: how often an item stands in a history

    def __len__(self) -> int:
        return self.split.rows

    def histories(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the rows with these indices: flat items and (rows + 1,) offsets."""
        starts, lengths = self.split.history_offsets[rows], self.length[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return self.split.history_values[np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])], offsets


def read_rows(split: Split, user: np.ndarray | None, num_items: int) -> Rows:
    """user: (rows,) int64 codes; None where users are not known."""
    histories = pa.LargeListArray.from_arrays(split.history_offsets, split.history_values)
    frame = pl.DataFrame({"history": pl.from_arrow(histories), "item": split.item})
    if user is not None:
        frame = frame.with_columns(user=user)
    return Rows(
        split=split,
        user=user,
        length=np.diff(split.history_offsets),
        in_history=frame.select(pl.col("history").list.contains(pl.col("item"))).to_series().to_numpy(),
        key=frame.hash_rows().to_numpy(),  # 64 bits: of ten million rows, two are taken for equal once in 300,000 times
        occurrences=np.bincount(split.history_values, minlength=num_items),
    )


def equal_rows(rows: dict[str, Rows]) -> dict[str, np.ndarray]:
    """Split → (rows,) int64: one number for equal rows, in whichever split they stand; numbers count from 0."""
    _, numbers = np.unique(np.concatenate([r.key for r in rows.values()]), return_inverse=True)
    return dict(zip(rows, np.split(numbers, np.cumsum([len(r) for r in rows.values()])[:-1]), strict=True))


@dataclass(frozen=True)
class OwnHistory:
    """Rows of a split whose target stands in its own history."""

    rows: int
    share: float = shown("of all rows", percent)
    share_of_label: list[float | None] | None  # of the rows of label 0, and of label 1
    label_mean: float | None = shown("label mean", decimal)
    label_mean_of_others: float | None = shown("label mean of the others", decimal)


def in_own_history(rows: Rows) -> OwnHistory:
    """What concerns labels is None where they are not known."""
    inside, label = rows.in_history, rows.split.label
    labels = None, None, None
    if label is not None:
        labels = [_mean(inside[label == value]) for value in (0, 1)], _mean(label[inside]), _mean(label[~inside])
    return OwnHistory(int(inside.sum()), float(inside.mean()), *labels)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


@dataclass(frozen=True)
class Repeated:
    """Rows of a split that stand in it, or in an earlier one, already; and those that do with the other label."""

    split: str
    of: str | None  # the earlier split; None: rows that repeat an earlier one of their own split
    rows: int = shown("rows", count)
    repeated: int = shown("repeated", count)
    repeated_share: float = shown("share", percent)
    contradicting: int | None = shown("with the other label", count)  # None where labels are not known
    contradicting_share: float | None


@dataclass(frozen=True)
class Repeats:
    """Equal rows, within each split and between an earlier and a later one."""

    by: list[str]  # what equal rows have in common: (user where known,) history, target
    within: list[Repeated]
    across: list[Repeated]


def repeats(rows: dict[str, Rows]) -> Repeats:
    """Counts equal rows. Splits are in the order of time."""
    numbers = equal_rows(rows)
    size = max(int(n.max()) for n in numbers.values()) + 1
    total = {name: np.bincount(n, minlength=size) for name, n in numbers.items()}
    clicked = {
        name: np.bincount(n[rows[name].split.label == 1], minlength=size)
        for name, n in numbers.items()
        if rows[name].split.label is not None
    }

    def count(split: str, of: str | None = None) -> Repeated:
        everything, earlier = len(rows[split]), of or split
        repeated = everything - np.count_nonzero(total[split]) if of is None else total[split][total[of] > 0].sum()
        contradicting = None
        if split in clicked and earlier in clicked:
            clicked_there, not_clicked_there = clicked[earlier] > 0, total[earlier] > clicked[earlier]
            not_clicked = total[split] - clicked[split]
            contradicting = int(clicked[split][not_clicked_there].sum() + not_clicked[clicked_there].sum())
        share = None if contradicting is None else contradicting / everything
        return Repeated(split, of, everything, int(repeated), float(repeated / everything), contradicting, share)

    by = ["user", "history", "target"]
    return Repeats(
        by=by if rows["train"].user is not None else by[1:],
        within=[count(name) for name in rows],
        across=[count(later, earlier) for earlier, later in combinations(rows, 2)],
    )
