"""Lists of ids, one for each item, in the item table.

As a rule they are an array as wide as the longest list. Where few lists are long, most of it would be padding: then it
is as wide as most lists are, and the ids beyond that stand in another array, one list's behind the other's. So a table
takes what its ids take, whatever the longest list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mmctr_jax.errors import InputError

if TYPE_CHECKING:
    import jax

Lists = tuple[np.ndarray, np.ndarray]
"""(T,) int32 ids of V lists, and (V + 1,) int64 where each begins, and the last one ends."""

BEYOND, REST = "/beyond", "/rest"
"""What follows a feature's name in the item table: (V, 2) int32, where the ids of each list that its array has no room
for begin in the rest, and how many they are; and the rest, (T,) int32."""


class Parted(NamedTuple):
    """Lists of items (…) on a device, some of them too long for an array."""

    first: jax.Array  # (…, L) ids, 0 behind the last
    beyond: jax.Array  # (…, 2) where those that follow begin in `rest`, and how many they are
    rest: jax.Array  # (T,) ids


_FEW = 16  # ids of a list: so many are never too many
_TIMES = 4  # as many numbers as ids an array may have


def held(name: str, lists: Lists) -> dict[str, np.ndarray]:
    """The arrays by name that the lists of all items are in their table.

    (V, L) int32, each list at the left of its row, zeros behind, L at least 1; and where that would be mostly zeros, of
    a lower L, with those of `BEYOND` and `REST`.

    Raises: InputError where the rest cannot be numbered.
    """
    ids, offsets = lists
    rows, longest = len(offsets) - 1, max(int(np.diff(offsets).max(initial=0)), 1)
    if longest <= _FEW or longest * rows <= _TIMES * np.count_nonzero(ids):
        return {name: first(lists, longest)}
    ids, offsets = lists = without_padding(lists)
    lengths = np.diff(offsets)
    width = max(int(np.quantile(lengths, 1 - 1 / _TIMES, method="inverted_cdf")), 1)
    counts = np.maximum(lengths - width, 0)
    ends = np.cumsum(counts)
    if not ends[-1]:
        return {name: first(lists, width)}
    if ends[-1] > np.iinfo(np.int32).max:
        raise InputError(f"Column {name} has {len(ids):,} ids in its lists, too many; give the feature a length.")
    beyond = np.stack([np.where(counts, ends - counts, 0), counts], axis=1).astype(np.int32)
    return {name: first(lists, width), name + BEYOND: beyond, name + REST: ids[_places(lists) >= width]}


def of(table: dict[str, np.ndarray], name: str) -> Lists:
    """The lists of a table, without padding, whichever way it holds them."""
    array = table[name]
    if name + REST not in table:
        return flat(array)
    counts, rest = table[name + BEYOND][:, 1].astype(np.int64), table[name + REST]
    in_first = (array != 0).sum(axis=1)
    offsets = _offsets(in_first + counts)
    ids, is_rest = np.empty(offsets[-1], np.int32), np.zeros(offsets[-1], bool)
    is_rest[np.repeat(offsets[:-1] + in_first - (np.cumsum(counts) - counts), counts) + np.arange(len(rest))] = True
    ids[is_rest], ids[~is_rest] = rest, array[array != 0]
    return ids, offsets


def flat(array: np.ndarray) -> Lists:
    """Of an array of ids (V, …), zeros being padding."""
    array = array.reshape(len(array), -1)
    return array[array != 0], _offsets((array != 0).sum(axis=1))


def first(lists: Lists, width: int) -> np.ndarray:
    """(V, width) int32: the first ids of each list, zeros behind."""
    ids, offsets = cut(lists, width)
    values = np.zeros((len(offsets) - 1, width), np.int32)
    values[np.arange(width) < np.diff(offsets)[:, None]] = ids
    return values


def cut(lists: Lists, length: int) -> Lists:
    """The first so many ids of each list."""
    ids, offsets = lists
    lengths = np.diff(offsets)
    if lengths.max(initial=0) <= length:
        return lists
    return ids[_places(lists) < length], _offsets(np.minimum(lengths, length))


def without_padding(lists: Lists) -> Lists:
    """The ids that are not 0."""
    ids, offsets = lists
    return ids[ids != 0], np.concatenate([[0], np.cumsum(ids != 0)])[offsets]


def joined(parts: list[Lists]) -> Lists:
    """The lists of all parts, one part's behind the other's."""
    lengths = np.concatenate([np.diff(offsets) for _, offsets in parts])
    return np.concatenate([ids for ids, _ in parts]).astype(np.int32), _offsets(lengths)


def between(lists: Lists, start: int, end: int) -> Lists:
    """The lists of rows `start` … `end` − 1."""
    ids, offsets = lists
    return ids[offsets[start] : offsets[end]], offsets[start : end + 1] - offsets[start]


def by_row(lists: Lists, at: np.ndarray, rows: int) -> Lists:
    """Of so many rows, the one at[i] has the i-th list, and one that is not among them an empty list."""
    ids, offsets = lists
    lengths = np.zeros(rows, np.int64)
    lengths[at] = np.diff(offsets)
    moved = _offsets(lengths)
    result = np.empty_like(ids)
    result[np.repeat(moved[at] - offsets[:-1], np.diff(offsets)) + np.arange(len(ids))] = ids
    return result, moved


def differ(a: Lists, b: Lists) -> np.ndarray:
    """(V,) bool: whether two lists are of other ids, or in another order."""
    lengths, others = np.diff(a[1]), np.diff(b[1])
    result = lengths != others
    of_a, of_b = (lists[0][np.repeat(~result, n)] for lists, n in ((a, lengths), (b, others)))
    result[np.repeat(np.flatnonzero(~result), lengths[~result])[of_a != of_b]] = True
    return result


def _places(lists: Lists) -> np.ndarray:
    """(T,) of each id its place in its list."""
    ids, offsets = lists
    return np.arange(len(ids)) - np.repeat(offsets[:-1], np.diff(offsets))


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
