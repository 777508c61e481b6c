"""How far a figure may be off by chance: the bootstrap (Efron 1979), rows drawn anew with replacement.

Draws depend on the number of rows alone. So figures of several models on the same rows are of the same draws, and the
interval of their difference is that of the paired bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

_DRAWS, _FEWEST = 500, 100
_WORK = 10**8  # rows times draws, at most, where there are draws enough
_BLOCK = 10**6  # weights at a time: tens of megabytes
_SEED = 20242025
_TAIL = 0.025  # on either side of an interval

Figure = Callable[[np.ndarray], np.ndarray]
"""Weights (R, rows) → (R,) values: one for each draw, NaN where it is not defined."""


def count_draws(rows: int) -> int:
    """500, and fewer where rows are very many."""
    return max(_FEWEST, min(_DRAWS, _WORK // rows))


def weights(rows: int) -> Iterator[np.ndarray]:
    """(R, rows) int64 blocks, together `count_draws(rows)` draws: how often each row is drawn, `rows` times in all."""
    rng = np.random.default_rng(_SEED)
    left, fit = count_draws(rows), max(_BLOCK // rows, 1)
    while left:
        size = min(left, fit)
        drawn = rng.integers(0, rows, (size, rows)) + rows * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows)
        left -= size


def area(labels: np.ndarray, scores: np.ndarray) -> Figure:
    """The weighted AUC; ties count half. Rows are put in order once, for all draws."""
    positive, negative = (rows[np.argsort(scores[rows])] for rows in map(np.flatnonzero, (labels == 1, labels == 0)))
    # Of each positive: how many negatives have a lower score, and how many a lower or the same.
    lower, not_higher = (np.searchsorted(scores[negative], scores[positive], side) for side in ("left", "right"))

    def auc(weights_RxN: np.ndarray) -> np.ndarray:
        positives = weights_RxN[:, positive]
        below = np.zeros((len(weights_RxN), len(negative) + 1), np.result_type(weights_RxN, np.int64))
        np.cumsum(weights_RxN[:, negative], axis=1, out=below[:, 1:])
        won = np.einsum("rp,rp->r", positives, below[:, lower] + below[:, not_higher]) / 2
        pairs = positives.sum(axis=1) * below[:, -1]
        return np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)

    return auc


def average(values: np.ndarray) -> Figure:
    """The weighted mean of one value a row."""
    return lambda weights_RxN: weights_RxN @ values / weights_RxN.sum(axis=1)


def values(figures: list[Figure], rows: int) -> np.ndarray:
    """(figures, draws): each figure of each draw, the same draws for all."""
    return np.concatenate([[figure(block) for figure in figures] for block in weights(rows)], axis=1)


def interval(drawn: np.ndarray) -> tuple[float, float] | None:
    """What 95 % of the draws lie between; None where too many are not defined to say (fewer than about four rows of a
    class)."""
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < (1 - _TAIL) * len(drawn):
        return None
    low, high = np.quantile(defined, [_TAIL, 1 - _TAIL])
    return float(low), float(high)


@dataclass(frozen=True)
class Estimate:
    """A figure, and what 95 % of its draws lie between (None: see `interval`)."""

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Compared(Estimate):
    """more: what it is more than the first figure; None for the first, and where that one is not defined."""

    more: Estimate | None


def compare(figures: list[Figure], rows: int) -> list[Compared | None]:
    """Each figure, by the same draws for all; None where it is not defined."""
    whole = [figure(np.ones((1, rows), np.int64))[0] for figure in figures]
    drawn = values(figures, rows)
    found = []
    for i, value in enumerate(whole):
        more = Estimate(float(value - whole[0]), interval(drawn[i] - drawn[0])) if i and np.isfinite(whole[0]) else None
        found.append(Compared(float(value), interval(drawn[i]), more) if np.isfinite(value) else None)
    return found
