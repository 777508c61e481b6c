"""What must be known of a whole log before a sample can be made: sums over its shards, whatever they are.

A shard holds whole users, and shards follow each other in the order of users. What is found of each is added up by
`+`, so that the result does not depend on where one shard ends and the next begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from typing import Any, Protocol, TypeVar

import numpy as np
import polars as pl

from mmctr_jax.prepare.draws import keys_of_users, mixed
from mmctr_jax.prepare.encoding import respelled, respelled_lists
from mmctr_jax.prepare.log import Log, all_keys, in_order
from mmctr_jax.prepare.options import Options
from mmctr_jax.prepare.samples import Histories, candidates, most_recent, with_earlier
from mmctr_jax.prepare.split import SPLITS, TRAIN, Cuts, split_log
from mmctr_jax.prepare.sums import Sum

_SAMPLE = 1_000_000  # rows that times and numbers are measured on; all, where there are no more
_SAMPLE_OF_GAPS = 20_000
FOLDS = 5  # of users, whose rows see only what those of others say of an item
T = TypeVar("T")


class Shard:
    """Whole users of a log."""

    def __init__(self, log: Log, repeated: int, seed: int):
        """Takes a sorted log that has lost so many rows that repeated others."""
        self.log, self.repeated = log, repeated
        self._seed = seed

    @property
    def folds(self) -> np.ndarray:
        """(U,) int64 from 0 to FOLDS - 1: the fold of each user."""
        return (self.keys % np.uint64(FOLDS)).astype(np.int64)

    @cached_property
    def keys(self) -> np.ndarray:
        """(U,) uint64 of the users."""
        return keys_of_users(self.log.users, self._seed)


class Shards(Protocol):
    """A log in shards, here or on other machines."""

    whole: bool  # whether there is but one, of which each split becomes one file

    def total(self, find: Callable[[int, Shard], T]) -> T:
        """The sum of what is found of each shard, by its number."""

    def each(self, work: Callable[[int, Shard, Any], T], arguments: Sequence[Any] | None = None) -> list[T]:
        """What is returned for each shard, and an argument of its own."""


class LocalShards:
    """Shards in this process's memory; one of them, but in tests."""

    def __init__(self, shards: Sequence[Shard]):
        """Takes the shards, in the order of their users."""
        self._shards, self.whole = shards, len(shards) == 1

    def total(self, find: Callable[[int, Shard], T]) -> T:
        """See `Shards`."""
        return reduce(add, (find(number, shard) for number, shard in enumerate(self._shards)))

    def each(self, work: Callable[[int, Shard, Any], T], arguments: Sequence[Any] | None = None) -> list[T]:
        """See `Shards`."""
        given = [None] * len(self._shards) if arguments is None else arguments
        return [work(number, *pair) for number, pair in enumerate(zip(self._shards, given, strict=True))]


def keys_of_rows(log: Log, keys: np.ndarray) -> np.ndarray:
    """(R,) uint64: of each interaction, by its user's key and its place among the user's interactions."""
    first = np.searchsorted(log.user, np.arange(len(log.users)))
    return mixed(keys[log.user], np.arange(len(log.user)) - first[log.user])


class Sample:
    """The values with the smallest keys: of a log, the same ones however it was cut into shards."""

    def __init__(self, keys: np.ndarray, values: np.ndarray, most: int = _SAMPLE):
        """Keeps at most so many of these values. keys: (n,) uint64; values: (n, …)."""
        order = np.argpartition(keys, most)[:most] if len(keys) > most else np.arange(len(keys))
        self._keys, self._values, self._most = keys[order], values[order], most

    def __add__(self, other: Sample) -> Sample:
        both = np.concatenate([self._keys, other._keys]), np.concatenate([self._values, other._values])
        return Sample(*both, self._most)

    @property
    def values(self) -> np.ndarray:
        """(n, …) in the order of their keys."""
        return self._values[np.argsort(self._keys, kind="stable")]


@dataclass(frozen=True)
class Ids(Sum):
    """Ids of a source."""

    values: pl.Series

    def __add__(self, other: Ids) -> Ids:
        return Ids(all_keys(self.values, other.values))


@dataclass(frozen=True)
class Counts(Sum):
    """How often there is a value."""

    frame: pl.DataFrame  # value, count

    @classmethod
    def of(cls, values: pl.Series) -> Counts:
        """Of values, lists of them as if they were one list, nulls left out."""
        values = values.explode() if isinstance(values.dtype, pl.List) else values
        return cls(values.drop_nulls().cast(pl.String).to_frame("value").group_by("value").len("count"))

    def __add__(self, other: Counts) -> Counts:
        return Counts(pl.concat([self.frame, other.frame]).group_by("value").agg(pl.col("count").sum()))


@dataclass(frozen=True)
class Look(Sum):
    """What is known of a log at first sight."""

    rows: int
    repeated: int
    clicks: int
    tied: int  # clicks at the same time as another one of their user
    alone: int  # clicks without an earlier one
    asked: int  # rows from `Options.since` on
    short: int  # of these, rows with fewer earlier clicks than `Options.least_history`
    users: dict[int, pl.Series]  # by shard
    keys: dict[int, np.ndarray]  # of users, by shard
    items: Ids
    times: Sample
    recent: Sample  # times of clicks, from `Options.since` on
    longest: dict[str, dict[int, int]]  # of each list, by shard


def look(number: int, shard: Shard, options: Options, lists: Sequence[str]) -> Look:
    """Looks at a shard."""
    log = shard.log
    same = (np.diff(log.user) == 0) & (np.diff(log.time) == 0)
    tied = (np.append(same, False) | np.append(False, same))[: len(log.user)] & log.click
    lengths = Histories(log).lengths
    asked = np.ones_like(log.click) if options.since is None else log.time >= options.since
    recent = log.click & asked
    keys = keys_of_rows(log, shard.keys)
    return Look(
        rows=len(log.user),
        repeated=shard.repeated,
        clicks=int(log.click.sum()),
        tied=int(tied.sum()),
        alone=int(((lengths == 0) & log.click).sum()),
        asked=int(asked.sum()),
        short=int((asked & (lengths < options.least_history)).sum()),
        users={number: log.users},
        keys={number: shard.keys},
        items=Ids(log.items),
        times=Sample(keys, log.time),
        recent=Sample(keys[recent], log.time[recent]),
        longest={name: {number: int(log.side[name].list.len().max() or 0)} for name in lists},
    )


@dataclass(frozen=True)
class Selection:
    """Which interactions take part, and in what: the same for every shard."""

    options: Options
    items: pl.Series  # (V,) the source's ids of all items, in order
    cuts: Cuts
    rates: bool = False  # whether logs get `EARLIER` among their numbers, and items are counted by fold
    kept: np.ndarray | None = None  # (V,) bool: items that are not rare; None: all
    targets: np.ndarray | None = None  # (V,) bool: what samples to validate and test on may be of; None: all

    def of(self, shard: Shard) -> tuple[Log, np.ndarray, list[np.ndarray]]:
        """A shard's log, without rare items and with items by their place in `items`.

        Returns: the log; (R,) each interaction's split; by split, the interactions that become samples, as row numbers.
        """
        log = shard.log.with_items(self.items)
        may = candidates(log, self.options)
        part = split_log(log, may & log.click, shard.keys, self.cuts, self.options)
        if self.kept is not None and not (kept := self.kept[log.item]).all():
            log, part = log.select(kept), part[kept]
            may = candidates(log, self.options)  # histories are shorter now
        if self.targets is not None:
            may &= (part == TRAIN) | self.targets[log.item]
        if self.rates:
            log = with_earlier(log)
        codes = range(len(SPLITS))
        return log, part, [most_recent(log, np.flatnonzero(may & (part == c)), self.options.per_user) for c in codes]


@dataclass(frozen=True)
class Totals(Sum):
    """What is known of a log once its splits are."""

    rows: int
    clicks: np.ndarray  # (V,) in training
    item_rows: np.ndarray  # (V,) in training
    user_rows: dict[int, np.ndarray]  # (U,) in training, by shard
    present: dict[int, np.ndarray]  # (U,) rows of each user, by shard
    samples: np.ndarray  # (splits,)
    clicked: np.ndarray  # (splits,) of these
    values: dict[str, Counts]  # of each categorical column, in training
    known_values: dict[str, int]  # of all rows, that are not null
    new_values: dict[str, int]  # of these, that an earlier vocabulary does not have
    example: dict[str, Ids]  # of those
    by_fold: np.ndarray  # (2, folds, V) clicks and rows in training, by the fold of users; V is 0 without `rates`
    numbers: dict[str, Sample]  # of each numeric column, in training
    gaps: Sample | None  # for samples of training, the array of times from each click to the sample


def count(
    number: int,
    shard: Shard,
    selection: Selection,
    categorical: Sequence[str],
    earlier: dict[str, pl.DataFrame],
    with_gaps: bool,
) -> Totals:
    """Counts what a shard has.

    Args:
      categorical: columns that have a vocabulary.
      earlier: their vocabularies in an earlier preparation, if there is one.
      with_gaps: whether times since clicks are a feature.
    """
    log, part, rows = selection.of(shard)
    options, training = selection.options, part == TRAIN
    histories, keys = Histories(log), keys_of_rows(log, shard.keys)
    items, users = len(selection.items), len(log.users)
    values, known, new, example = {}, {}, {}, {}
    for name in categorical:
        column = log.side[name]
        if name in earlier:
            column = respelled_column(column, earlier[name])
            each = column.explode() if isinstance(column.dtype, pl.List) else column
            strange = each.filter(each.is_not_null() & ~each.is_in(earlier[name]["value"].implode()))
            known[name], new[name] = len(each) - each.null_count(), len(strange)
            example[name] = Ids(in_order(strange.unique()))
        values[name] = Counts.of(column.filter(pl.Series(training)))
    return Totals(
        rows=len(log.user),
        clicks=np.bincount(log.item[log.click & training], minlength=items),
        item_rows=np.bincount(log.item[training], minlength=items),
        user_rows={number: np.bincount(log.user[training], minlength=users)},
        present={number: np.bincount(log.user, minlength=users)},
        samples=np.array([len(of_split) for of_split in rows]),
        clicked=np.array([int(log.click[of_split].sum()) for of_split in rows]),
        values=values,
        known_values=known,
        new_values=new,
        example=example,
        by_fold=_by_fold(log, training, shard.folds, items) if selection.rates else np.zeros((2, FOLDS, 0), np.int64),
        numbers={name: Sample(keys[training], column[training]) for name, column in log.numeric.items()},
        gaps=_gaps(log, rows[TRAIN], keys, histories, options.history) if with_gaps else None,
    )


def _by_fold(log: Log, training: np.ndarray, folds: np.ndarray, items: int) -> np.ndarray:
    cell = folds[log.user] * items + log.item
    cells = [cell[training & log.click], cell[training]]
    return np.stack([np.bincount(some, minlength=FOLDS * items) for some in cells]).reshape(2, FOLDS, items)


def respelled_column(values: pl.Series, known: pl.DataFrame) -> pl.Series:
    """A column's values, or those within its lists, as an earlier preparation spelled them."""
    return (respelled_lists if isinstance(values.dtype, pl.List) else respelled)(values, known)


def _gaps(log: Log, rows: np.ndarray, keys: np.ndarray, histories: Histories, length: int) -> Sample:
    some = np.sort(Sample(keys[rows], rows, _SAMPLE_OF_GAPS).values)
    offsets, clicked = histories.places(some, length)
    gaps = (np.repeat(log.time[some], np.diff(offsets)) - log.time[clicked]).astype(np.float64)
    each = np.empty(len(some), object)
    each[:] = np.split(gaps, offsets[1:-1]) if len(some) else []
    return Sample(keys[some], each, _SAMPLE_OF_GAPS)
