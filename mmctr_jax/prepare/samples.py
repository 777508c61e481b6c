"""A log of interactions → sample rows, chunk by chunk: histories, targets, negatives. Arrays in, tables out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from mmctr_jax.prepare.draws import mixed, uniform
from mmctr_jax.prepare.log import Log
from mmctr_jax.prepare.negatives import NegativeSampler, user_item_keys
from mmctr_jax.prepare.options import Options
from mmctr_jax.prepare.source import EARLIER

_ROWS_PER_CHUNK = 32_768  # interactions, each with its negatives: a row group
_PLACE = 2**32  # the click's place among its negatives: a number that no draw of a negative has


class Histories:
    """Each interaction's earlier clicks: those of the same user at strictly earlier times."""

    def __init__(self, log: Log, clicked: np.ndarray | None = None):
        """Finds where in the list of all clicks each interaction's history begins and ends.

        clicked: (R,) bool, the interactions that histories hold; None: all clicks.
        """
        clicked = log.click if clicked is None else clicked
        rows = np.arange(len(log.user))
        new_user = np.append(True, np.diff(log.user) != 0)[: len(rows)]
        new_time = new_user | np.append(True, np.diff(log.time) != 0)[: len(rows)]
        before = np.cumsum(clicked) - clicked
        # All users' clicks, one user's together, oldest first; _first and _end are places in that list.
        self._clicked = np.flatnonzero(clicked)
        self._end = before[np.maximum.accumulate(np.where(new_time, rows, 0))]
        self._first = before[np.maximum.accumulate(np.where(new_user, rows, 0))]

    @property
    def lengths(self) -> np.ndarray:
        """(R,) how many earlier clicks there are."""
        return self._end - self._first

    def places(self, rows: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """The `length` most recent earlier clicks of these interactions, oldest first, as row numbers of the log.

        Returns: (rows + 1,) offsets, and (clicks,) of all of them.
        """
        end = self._end[rows]
        start = np.maximum(self._first[rows], end - length)
        offsets = np.concatenate([[0], np.cumsum(end - start)])
        at = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], end - start)
        return offsets, self._clicked[at]


def with_earlier(log: Log) -> Log:
    """The log with `EARLIER` among its numbers."""
    clicks, rows = Histories(log).lengths, Histories(log, np.ones_like(log.click)).lengths
    rate = np.divide(clicks, rows, out=np.full(len(rows), np.nan), where=rows > 0)
    return replace(log, numeric=log.numeric | dict(zip(EARLIER, (rows.astype(np.float64), rate), strict=True)))


@dataclass(frozen=True)
class RowValues:
    """What samples have besides users, items and labels, by name; R: interactions of the log."""

    rows: dict[str, np.ndarray | pa.Array]  # (R,) of the interaction
    items: dict[str, np.ndarray]  # (V + 1,) of the target, by item; or (folds + 1, V + 1), by the row's fold, too
    fold: np.ndarray  # (R,) which fold an interaction's user is in; the last one: it is not in training
    clicks: dict[str, np.ndarray]  # (R,) of the clicks of the history
    histories: dict[str, Histories]  # second ones
    labels: dict[str, np.ndarray]  # (R,) bool: other labels of the interaction; of sampled negatives they are 0
    gap: float | None = None  # the unit of time from a click to the sample; None: it is no feature


def _taken(values: np.ndarray | pa.Array, rows: np.ndarray) -> pa.Array:
    """Some values, as Parquet has them: null where a number is not known."""
    return values.take(pa.array(rows)) if isinstance(values, pa.Array) else pa.array(values[rows], from_pandas=True)


def _lists(offsets: np.ndarray, values: np.ndarray | pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values))


def candidates(log: Log, options: Options) -> np.ndarray:
    """(R,) bool: which interactions may become samples; all of these have `options.least_history` earlier clicks.

    Clicks may, with `options.only_new` only a user's first on each item, and where the log's own non-clicks are the
    negatives, these too. With `options.since`, all of them from that time on.
    """
    may = log.click.copy()
    if options.only_new:
        clicks = np.flatnonzero(log.click)
        _, first = np.unique(user_item_keys(log.user, log.item, len(log.items))[clicks], return_index=True)
        may = np.zeros_like(log.click)
        may[clicks[first]] = True
    if options.negatives is None:
        may |= ~log.click
    if options.since is not None:
        may &= log.time >= options.since
    return may & (Histories(log).lengths >= options.least_history)


def most_recent(log: Log, rows: np.ndarray, count: int | None) -> np.ndarray:
    """The last `count` of each user's rows; None: all of them. rows: (n,) in order."""
    if count is None:
        return rows
    last = np.flatnonzero(np.append(np.diff(log.user[rows]) != 0, True))  # of each user
    from_end = last[np.searchsorted(last, np.arange(len(rows)))] - np.arange(len(rows))
    return rows[from_end < count]


def sample_tables(
    log: Log,
    rows: np.ndarray,
    keys: np.ndarray,
    user_id: np.ndarray,
    histories: Histories,
    sampler: NegativeSampler,
    given: RowValues,
    options: Options,
) -> Iterator[tuple[int, pa.Table]]:
    """The samples of some interactions, in order, chunk by chunk.

    A click's negatives share its history, side features and weight. It stands among them at a random place, so that
    the order of rows says nothing about the label.

    Args:
      log: items are those of the prepared files.
      rows: (n,) the interactions, as row numbers of `log`.
      keys: (R,) uint64 of each interaction, which negatives are drawn by.
      user_id: (U,) of the users.
    Yields: the number of interactions in the chunk, and their table: user_id, item_seq, item_id, what is given, weight
      (if the log has it), label.
    """
    for start in range(0, len(rows), _ROWS_PER_CHUNK):
        row = rows[start : start + _ROWS_PER_CHUNK]
        target, label = log.item[row].astype(np.int64), log.click[row].astype(np.int64)
        if options.negatives:
            drawn = sampler.draw(log.user[row], options.negatives, keys[row])
            group = np.concatenate([target[:, None], drawn], axis=1)  # the click first
            place = (uniform(mixed(keys[row], _PLACE)) * group.shape[1]).astype(np.int64)
            every = np.arange(len(group))
            group[every, 0], group[every, place] = group[every, place], group[every, 0]
            label = (np.arange(group.shape[1]) == place[:, None]).astype(np.int64)
            there = group >= 0
            row, target, label = np.repeat(row, there.sum(axis=1)), group[there], label[there]
        offsets, clicked = histories.places(row, options.history)
        fold = given.fold[row]
        columns = {
            "user_id": user_id[log.user[row]],
            "item_seq": _lists(offsets, log.item[clicked].astype(np.int64)),
            "item_id": target,
            **{name: _taken(values, row) for name, values in given.rows.items()},
            **{name: of[target] if of.ndim == 1 else of[fold, target] for name, of in given.items.items()},
            **{f"click_{name}": _lists(offsets, _taken(values, clicked)) for name, values in given.clicks.items()},
        }
        if given.gap is not None:
            gaps = (np.repeat(log.time[row], np.diff(offsets)) - log.time[clicked]) / given.gap
            columns["click_gap"] = _lists(offsets, gaps.astype(np.float32))
        for name, second in given.histories.items():
            ends, found = second.places(row, options.history)
            columns[f"item_seq_{name}"] = _lists(ends, log.item[found].astype(np.int64))
        for name, values in given.labels.items():
            columns[name] = (
                (values[row] & (label == 1)).astype(np.int64) if options.negatives else values[row].astype(np.int64)
            )
        if log.weight is not None:
            columns["weight"] = log.weight[row]
        yield min(_ROWS_PER_CHUNK, len(rows) - start), pa.table(columns | {"label": label})
