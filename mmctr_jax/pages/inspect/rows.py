"""The rows of a split: targets that stand in their own history, rows that are equal or contradict each other."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import polars as pl
import pyarrow as pa

from mmctr_jax.data.cache import Split
from mmctr_jax.formats import count, decimal, percent, shown

Rows = dict[str, pl.DataFrame]
"""Split → its rows, as `read_rows` gives them."""


def read_rows(split: Split, user: np.ndarray | None) -> pl.DataFrame:
    """One split as columns: history, item, key (equal for rows of the same user, history and target), length of the
    history, in_history (whether the target stands there), and label and user, which are null where not known.

    user: (rows,) int64 codes.
    """
    histories = pa.LargeListArray.from_arrays(split.history_offsets, split.history_values)
    frame = pl.DataFrame({"history": pl.from_arrow(histories), "item": split.item})
    with_user = frame if user is None else frame.with_columns(user=user)
    return frame.with_columns(
        key=with_user.hash_rows(),  # 64 bits: of ten million rows, two are taken for equal once in 300,000 times
        length=np.diff(split.history_offsets),
        in_history=pl.col("history").list.contains(pl.col("item")),
        label=pl.lit(None, pl.UInt8) if split.label is None else split.label,
        user=pl.lit(None, pl.Int64) if user is None else user,
    )


def is_known(column: pl.Series) -> bool:
    """Whether the label or the user is, in this split."""
    return column.null_count() == 0


@dataclass(frozen=True)
class OwnHistory:
    """Rows of a split whose target stands in its own history. What concerns labels is None where they are not known."""

    rows: int
    share: float = shown("of all rows", percent)
    share_of_label: list[float | None] | None  # of the rows of label 0, and of label 1
    label_mean: float | None = shown("label mean", decimal)
    label_mean_of_others: float | None = shown("label mean of the others", decimal)


def in_own_history(rows: pl.DataFrame) -> OwnHistory:
    """Counts them."""
    own, others = rows.filter("in_history"), rows.filter(~pl.col("in_history"))
    of_label = [rows.filter(pl.col("label") == label)["in_history"].mean() for label in (0, 1)]
    return OwnHistory(
        rows=len(own),
        share=len(own) / len(rows),
        share_of_label=of_label if is_known(rows["label"]) else None,
        label_mean=own["label"].mean(),
        label_mean_of_others=others["label"].mean(),
    )


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


def repeats(rows: Rows) -> Repeats:
    """Counts equal rows. Splits are in the order of time."""
    by_key = {
        name: r.group_by("key").agg(yes=(pl.col("label") == 1).sum(), no=(pl.col("label") == 0).sum(), rows=pl.len())
        for name, r in rows.items()
    }

    def compare(split: str, of: str | None = None) -> Repeated:
        size, earlier = len(rows[split]), of or split
        common = by_key[split].join(by_key[earlier], on="key", suffix="_there")
        repeated = common["rows"].sum() if of else size - len(common)
        contradicting = None
        if is_known(rows[split]["label"]) and is_known(rows[earlier]["label"]):
            yes, no = common.filter(pl.col("no_there") > 0), common.filter(pl.col("yes_there") > 0)
            contradicting = yes["yes"].sum() + no["no"].sum()
        share = None if contradicting is None else contradicting / size
        return Repeated(split, of, size, repeated, repeated / size, contradicting, share)

    by = ["user", "history", "target"]
    return Repeats(
        by=by if is_known(rows["train"]["user"]) else by[1:],
        within=[compare(name) for name in rows],
        across=[compare(later, earlier) for earlier, later in combinations(rows, 2)],
    )
