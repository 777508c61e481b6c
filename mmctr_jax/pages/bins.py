"""Bins that rows fall into: by the length of their history, by clicks on their target, by the value of a feature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_QUANTILES = 10  # bins of a feature whose values are floats


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
    """The values of a feature: each of the most frequent ones; of floats, ranges that hold about as many rows each."""

    names: list[int | str]  # the values, or what the ranges are called
    ends: np.ndarray  # the largest value of each
    left_out: int = 0  # different values in none

    def place(self, values: np.ndarray) -> np.ndarray:
        """(rows,) index of the bin that each value is in; -1: in none."""
        place = np.searchsorted(self.ends, values)
        return place if np.issubdtype(values.dtype, np.floating) else np.where(np.isin(values, self.ends), place, -1)


def by_value(values: np.ndarray, shown: int) -> ValueBins:
    """Of (rows,) values; at most `shown` of them, ascending."""
    if np.issubdtype(values.dtype, np.floating):
        ends = np.unique(np.quantile(values, np.arange(1, _QUANTILES) / _QUANTILES, method="lower"))
        return ValueBins([*(f"up to {end:.4g}" for end in ends), "more"], np.append(ends, np.inf))
    found, frequency = np.unique(values, return_counts=True)
    kept = np.sort(found[np.argsort(-frequency, kind="stable")[:shown]])
    return ValueBins(kept.tolist(), kept, len(found) - len(kept))
