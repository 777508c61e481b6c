"""The rows of a split, cut in slices: by what is known of a row before its score."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mmctr_jax.data.cache import Split

LENGTH, POPULARITY, KNOWN = "history length", "target's clicks in train", "new or known target"
_VALUES = 20  # of a side feature, shown


@dataclass(frozen=True)
class Seen:
    """What training met of each item."""

    clicks: np.ndarray  # (V,) int64: rows of label 1 that have it as target
    known: np.ndarray  # (V,) bool: it is a target, or stands in a history

    def equals(self, other: Seen) -> bool:
        return np.array_equal(self.clicks, other.clicks) and np.array_equal(self.known, other.known)


def read_seen(train: Split, num_items: int) -> Seen:
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


def history_lengths(split: Split) -> Slicing:
    """0, 1, 2, 3–4, 5–8, 9–16, … clicks, however many of them the model sees."""
    lengths = np.diff(split.history_offsets)
    ends = [0, *(2**i for i in range(max(int(lengths.max()) - 1, 0).bit_length() + 1))]
    names = [str(end) if end < 3 else f"{end // 2 + 1:,}–{end:,}" for end in ends]
    return Slicing(LENGTH, "clicks", names, np.searchsorted(ends, lengths))


def popularity(split: Split, seen: Seen) -> Slicing:
    """0, 1–3, 4–15, 16–63, … clicks on the target in train."""
    clicks = seen.clicks[split.item]
    starts = [0, 1]
    while starts[-1] <= clicks.max():
        starts.append(4 * starts[-1])
    names = ["0", *(f"{start:,}–{4 * start - 1:,}" for start in starts[1:])]
    return Slicing(POPULARITY, "clicks", names, np.searchsorted(starts, clicks, side="right") - 1)


def new_and_known(split: Split, seen: Seen) -> Slicing:
    """An item is known if it is a target in train or stands in a history there."""
    return Slicing(KNOWN, "target", ["new", "known"], seen.known[split.item].astype(np.int64))


def side_feature(name: str, levels: np.ndarray) -> Slicing:
    """By value: the most frequent ones."""
    found, place, frequency = np.unique(levels, return_inverse=True, return_counts=True)
    shown = np.sort(np.argsort(-frequency, kind="stable")[:_VALUES])
    new_place = np.full(len(found), -1)
    new_place[shown] = np.arange(len(shown))
    return Slicing(name, "value", [str(value) for value in found[shown]], new_place[place], len(found) - len(shown))


def slicings(split: Split, side: list[tuple[str, np.ndarray]], seen: Seen | None) -> Iterator[Slicing]:
    """side: name and (rows,) values of each side feature. seen: None leaves out what needs the rows of train."""
    yield history_lengths(split)
    if seen is not None:
        yield popularity(split, seen)
        yield new_and_known(split, seen)
    for name, levels in side:
        yield side_feature(name, levels)
