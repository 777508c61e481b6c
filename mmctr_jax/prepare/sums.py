"""Things that are found of parts, and added up to be those of the whole."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np


class Sum:
    """Fields that are added up one by one: counts, arrays, samples; of dictionaries, the values of each key."""

    def __add__(self, other: Any) -> Any:
        return type(self)(*(_added(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)))


def _added(one: Any, other: Any) -> Any:
    if one is None:
        return other
    if isinstance(one, dict):
        return {
            key: _added(one[key], other[key]) if key in one and key in other else (one | other)[key]
            for key in dict.fromkeys([*one, *other])
        }
    return one + other


class Histogram:
    """How often there is each whole number from 0."""

    def __init__(self, counts: np.ndarray | None = None):
        """counts: (n,) of 0 … n - 1; None: there are no numbers."""
        self._counts = np.zeros(0, np.int64) if counts is None else counts

    def __add__(self, other: Histogram) -> Histogram:
        counts = np.zeros(max(len(self._counts), len(other._counts)), np.int64)
        for each in (self._counts, other._counts):
            counts[: len(each)] += each
        return Histogram(counts)

    def mean(self) -> float:
        """The mean of the numbers."""
        return float(self._counts @ np.arange(len(self._counts)) / self._counts.sum())

    def quantile(self, share: float) -> int:
        """The largest whole number up to the quantile, as `numpy.quantile` has it."""
        place = (self._counts.sum() - 1) * share
        low, high = (np.searchsorted(np.cumsum(self._counts), at, side="right") for at in (int(place), int(place) + 1))
        return int(low + (place - int(place)) * (min(high, len(self._counts) - 1) - low))
