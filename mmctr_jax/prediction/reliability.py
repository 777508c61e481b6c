"""How far scores are probabilities: the calibration curve, and the error that it shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_BINS = 15


@dataclass(frozen=True)
class CalibrationCurve:
    """At most 15 bins of equal count, from the lowest scores to the highest; arrays are (bins,)."""

    rows: np.ndarray
    score: np.ndarray  # mean
    label: np.ndarray  # mean

    @property
    def error(self) -> float:
        """Σ n_b/n·|mean score − label mean| (Naeini et al. 2015)."""
        return float(np.average(np.abs(self.score - self.label), weights=self.rows))


def calibration_curve(labels: np.ndarray, scores: np.ndarray) -> CalibrationCurve:
    """labels, scores: (rows,) of 0 and 1, and of probabilities."""
    place = _bins(scores)
    rows, *sums = (np.bincount(place, weights)[np.unique(place)] for weights in (None, scores, labels))
    return CalibrationCurve(rows, *(total / rows for total in sums))


def error_by_chance(scores: np.ndarray) -> float:
    """The error to expect if scores were the true probabilities: E|x| = √(2/π)·σ of a bin's label mean, normal."""
    deviation = np.sqrt(np.bincount(_bins(scores), scores * (1 - scores)))  # of a bin's number of clicks
    return float(math.sqrt(2 / math.pi) * deviation.sum() / len(scores))


def _bins(scores: np.ndarray) -> np.ndarray:
    """(rows,) int64 bin of each score: bins of equal count, but equal scores share one."""
    _, inverse, count = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - count / 2  # of the equal ones, in order
    return (_BINS * middle / len(scores)).astype(np.int64)[inverse]
