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
class Seen:
    """What training met of each item."""

    clicks: np.ndarray  # (V,) int64: rows of label 1 that have it as target
    known: np.ndarray  # (V,) bool: it is a target, or stands in a history


def read_seen(train: Split, num_items: int) -> Seen:
    """From the rows that a run was trained on; `num_items` counts the padding item 0."""
    known = np.zeros(num_items, bool)
    known[train.item] = known[train.history_values] = True
    return Seen(np.bincount(train.item[train.label == 1], minlength=num_items), known)


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


def slicings(split: Split, side: dict[str, np.ndarray], seen: Seen | None) -> Iterator[Slicing]:
    """By history length, however much of it the model sees; by clicks on the target in train, and by whether training
    met the target at all; by each side
    feature that is one number a row.

    side: name → (rows,) values. seen: None leaves out what needs the rows of train.
    """
    lengths = np.diff(split.history_offsets)
    ends = bins.doubling(lengths.max())
    yield Slicing(LENGTH, "clicks", bins.names(ends), np.searchsorted(ends, lengths))
    if seen is not None:
        clicks = seen.clicks[split.item]
        ends = bins.fourfold(clicks.max())
        yield Slicing(POPULARITY, "clicks", bins.names(ends), np.searchsorted(ends, clicks))
        yield Slicing(KNOWN, "target", ["new", "known"], seen.known[split.item].astype(np.int64))
    yield from (side_feature(name, values) for name, values in side.items() if values.ndim == 1)
