"""Bins that rows fall into: by the length of their history, by clicks on their target, by the value of a feature."""

from __future__ import annotations

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


def most_frequent(values: np.ndarray, shown: int) -> tuple[np.ndarray, int]:
    """The `shown` most frequent values, ascending, and the number of different values."""
    found, frequency = np.unique(values, return_counts=True)
    return np.sort(found[np.argsort(-frequency, kind="stable")[:shown]]), len(found)
