"""One pass over the histories of a split: lengths, keys of equal rows, targets that stand in their own history."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mmctr_jax.console import Progress
from mmctr_jax.data.cache import Split

_ROWS_PER_BLOCK = 65_536
_SEEDS = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)  # of the two halves of a key


@dataclass(frozen=True)
class Rows:
    """One split's rows, and what was found of them; arrays are (rows,) unless said otherwise."""

    split: Split
    user: np.ndarray | None  # int64 codes
    length: np.ndarray  # of the history, int64
    in_history: np.ndarray  # bool: the target stands in its own history
    key: np.ndarray  # (rows, 2) uint64, equal for rows of the same user, history and target
    occurrences: np.ndarray  # (V,) int64: how often an item stands in a history

    def __len__(self) -> int:
        return self.split.rows

    def histories(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the rows with these indices: flat items and (rows + 1,) offsets."""
        starts, lengths = self.split.history_offsets[rows], self.length[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return self.split.history_values[np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])], offsets


def read_rows(name: str, split: Split, user: np.ndarray | None, num_items: int) -> Rows:
    key = np.empty((split.rows, 2), np.uint64)
    in_history = np.empty(split.rows, bool)
    occurrences = np.zeros(num_items, np.int64)
    with Progress(f"Comparing {name}", split.rows, "rows") as progress:
        for rows, history, offsets in _blocks(split):
            item = split.item[rows]
            lengths = np.diff(offsets)
            occurrences += np.bincount(history, minlength=num_items)
            in_history[rows] = _sums((history == np.repeat(item, lengths)).astype(np.int64), offsets) > 0
            # A click and its place, and a user and target, packed into 64 bits each without loss.
            place = np.arange(len(history), dtype=np.uint64) - np.repeat(offsets[:-1], lengths).astype(np.uint64)
            clicks = history.astype(np.uint64) | place << 32
            target = item.astype(np.uint64)
            if user is not None:
                target |= user[rows].astype(np.uint64) << 32
            for half, seed in enumerate(_SEEDS):
                key[rows, half] = _mixed(_sums(_mixed(clicks ^ seed), offsets) + _mixed(~target ^ seed))
            progress.advance(len(item))
    return Rows(split, user, np.diff(split.history_offsets), in_history, key, occurrences)


def _blocks(split: Split) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Consecutive rows, their clicks, and offsets into these."""
    for start in range(0, split.rows, _ROWS_PER_BLOCK):
        offsets = split.history_offsets[start : start + _ROWS_PER_BLOCK + 1]
        history = split.history_values[offsets[0] : offsets[-1]]
        yield slice(start, start + len(offsets) - 1), history, offsets - offsets[0]


def _sums(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(rows,) sum over each row's values, modulo 2⁶⁴."""
    total = np.zeros(len(values) + 1, values.dtype)
    np.cumsum(values, out=total[1:])
    return total[offsets[1:]] - total[offsets[:-1]]


def _mixed(x: np.ndarray) -> np.ndarray:
    """A bijection of 64 bits that lets each depend on all: SplitMix64's last step (Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> 30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> 27)) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> 31)


def equal_rows(rows: dict[str, Rows]) -> dict[str, np.ndarray]:
    """Split → (rows,) int64: one number for equal rows, in whichever split they stand; numbers count from 0."""
    keys = np.concatenate([r.key for r in rows.values()])
    order = np.lexsort(keys.T)
    number = np.empty(len(keys), np.int64)
    number[order] = np.cumsum(np.any(np.diff(keys[order], axis=0, prepend=keys[order[:1]]) != 0, axis=1))
    return dict(zip(rows, np.split(number, np.cumsum([len(r) for r in rows.values()])[:-1]), strict=True))
