"""The rows of a split, cut in slices: by what is known of a row before its score."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mmctr_jax.data.cache import Split
from mmctr_jax.pages import bins

LENGTH, POPULARITY, KNOWN = "history length", "target's clicks in train", "new or known target"
_VALUES = 20  # of a side feature, shown


@dataclass(frozen=True)
class Slicing:
    """Slices that no two of share a row."""

    by: str
    unit: str  # of the names
    names: list[str]
    place: np.ndarray  # (rows,) int64 index into `names`; -1: in none that is shown
    left_out: int = 0  # values that are not shown


def side_feature(name: str, values: np.ndarray) -> Slicing:
    """By value: the most frequent ones, or ranges of floats."""
    found = bins.by_value(values, _VALUES)
    return Slicing(name, "value", list(map(str, found.names)), found.place(values), found.left_out)


def slicings(split: Split, side: dict[str, np.ndarray], train: Split | None) -> Iterator[Slicing]:
    """By history length, however much of it the model sees; by clicks on the target in train, and by whether training
    met the target at all; by each side feature that is one number a row.

    side: name → (rows,) values. train: the rows that a run was trained on; None leaves out what needs them.
    """
    lengths = np.diff(split.history_offsets)
    ends = bins.doubling(lengths.max())
    yield Slicing(LENGTH, "clicks", bins.names(ends), np.searchsorted(ends, lengths))
    if train is not None:
        clicks = np.bincount(train.item[train.label == 1], minlength=split.item.max() + 1)[split.item]
        ends = bins.fourfold(clicks.max())
        yield Slicing(POPULARITY, "clicks", bins.names(ends), np.searchsorted(ends, clicks))
        known = np.isin(split.item, train.item) | np.isin(split.item, train.history_values)
        yield Slicing(KNOWN, "target", ["new", "known"], known.astype(np.int64))
    yield from (side_feature(name, values) for name, values in side.items() if values.ndim == 1)
