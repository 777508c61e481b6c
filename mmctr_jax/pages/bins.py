"""Bins that rows fall into: by the length of their history, by clicks on their target, by the value of a feature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def doubling(largest: int) -> list[int]:
    """Largest values of the bins 0, 1, 2, 3–4, 5–8, 9–16, …, up to the one that holds `largest`; at least two bins."""
    return [0, *(2**i for i in range(max(int(largest) - 1, 0).bit_length() + 1))]


def fourfold(largest: int) -> list[int]:
    """Largest values of the bins 0, 1–3, 4–15, 16–63, …, up to the one that holds `largest`."""
    return [4**i - 1 for i in range((int(largest).bit_length() + 1) // 2 + 1)]


def names(ends: list[int]) -> list[str]:
    """What bins of whole numbers are called, from the largest value of each: [0, 1, 4] → 0, 1, 2–4."""
    starts = [0, *(end + 1 for end in ends)]
    return [f"{end:,}" if start == end else f"{start:,}–{end:,}" for start, end in zip(starts, ends, strict=False)]


@dataclass(frozen=True)
class ValueBins:
    """A bin for each value of a feature, or for each range of its values."""

    starts: np.ndarray  # the smallest value of each
    ranges: bool  # all values from a start to the next; else the starts alone
    left_out: int = 0  # different values that are in none

    @property
    def names(self) -> list[int | str]:
        """The values, or what the ranges are called."""
        return [f"from {start:.4g}" for start in self.starts] if self.ranges else self.starts.tolist()

    def place(self, values: np.ndarray) -> np.ndarray:
        """(rows,) index of the bin that each value is in; -1: in none."""
        place = np.maximum(np.searchsorted(self.starts, values, side="right") - 1, 0)
        return np.where(~np.isnan(values) if self.ranges else self.starts[place] == values, place, -1)


def by_value(values: np.ndarray, most: float = np.inf, ordered: bool = False) -> ValueBins:
    """At most so many bins of (rows,) values: the most frequent values; of floats and what is ordered, quantiles."""
    found, frequency = np.unique(values[~np.isnan(values)], return_counts=True)
    if ordered or np.issubdtype(values.dtype, np.floating):
        few = len(found) <= most
        return ValueBins(found if few else np.unique(np.nanquantile(values, np.arange(most) / most)), ranges=True)
    kept = found if len(found) <= most else np.sort(found[np.argsort(-frequency, kind="stable")[:most]])
    return ValueBins(kept, ranges=False, left_out=len(found) - len(kept))
