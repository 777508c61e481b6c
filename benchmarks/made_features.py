"""Hand-made features of a target and the clicks before it, as a user would make them for LightGBM.

Statistics are rates: so those of all users and those of four fifths of them mean the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse as sp
from sklearn.utils.extmath import randomized_svd

CLICKS, FOLDS, DIM = 16, 5, 64
POWERS = (0.25, 0.5)  # of an item's clicks, by which its column in the SVD is divided; which is better, data decide
WORDS = 64  # of at most so many, each has a column that says whether it is in a list
_NO_FEATURES = ("ID", "user_id", "item_id", "item_seq", "label", "weight")


@dataclass
class Rows:
    """history: (rows, 16) most recent clicks, 0 where there is none; skipped: what was shown before and not clicked,
    likewise; item, user, label (rows,); side (rows, S): what the log and the item file say besides."""

    history: np.ndarray
    skipped: np.ndarray
    item: np.ndarray
    user: np.ndarray
    label: np.ndarray
    side: np.ndarray

    def of(self, chosen: np.ndarray) -> Rows:
        """Some of the rows."""
        return Rows(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


@dataclass
class Items:
    """vectors: (items, E), zero for padding; tags: (items, tags) sparse, TF-IDF, unit rows."""

    vectors: np.ndarray
    tags: sp.csr_matrix


@dataclass
class Counts:
    """What the clicks of some users say. clicks: (items,) the share of users who clicked; share: (items,) how much more
    than other targets it was clicked; svds: (items, 64) each; together, following: sparse (items, items): co-clicks as
    cosines, and the share of an item's clicks after which the column was one of the user's next three."""

    clicks: np.ndarray
    share: np.ndarray
    svds: tuple[np.ndarray, ...]
    together: sp.csr_matrix
    following: sp.csr_matrix


def read_rows(folder: Path, name: str) -> Rows:
    """A split of a prepared folder; the labels of test are in a file of their own."""
    table = pl.read_parquet(folder / f"{name}.parquet")
    if "label" not in table.columns:
        table = table.with_columns(pl.read_parquet(folder / f"{name}_labels.parquet")["label"])
    history, skipped = (_recent(table, name) for name in ("item_seq", "item_seq_skipped"))
    scored = pl.read_parquet_schema(folder / "test.parquet")  # has no label, whatever labels there are
    info = pl.read_parquet(folder / "item_info.parquet")
    columns = [
        column
        for kept in (
            table.select(name for name in table.columns if name in scored),
            table.select("item_id").join(info, on="item_id", how="left"),
        )
        for series in kept.get_columns()
        if series.name not in _NO_FEATURES
        for column in _as_numbers(series, folder / "vocabularies" / f"{series.name}.parquet")
    ]
    side = np.stack(columns, axis=1) if columns else np.zeros((len(table), 0))
    return Rows(history, skipped, *(table[name].to_numpy() for name in ("item_id", "user_id", "label")), side)


def _as_numbers(column: pl.Series, vocabulary: Path) -> list[np.ndarray]:
    """Numbers and numbered categories as they are; lists of a few words as a column for each word."""
    if column.dtype.is_numeric():
        return [column.to_numpy()]
    words = len(pl.read_parquet(vocabulary)) if vocabulary.is_file() else 0
    if column.dtype not in (pl.List, pl.Array) or not 0 < words <= WORDS:
        return []
    lists = column.cast(pl.List(pl.Int64))
    return [lists.list.contains(word).fill_null(False).to_numpy() for word in range(1, words + 1)]


def _recent(table: pl.DataFrame, name: str) -> np.ndarray:
    """(rows, 16) the most recent items of a column of lists; zeros where there is no such column."""
    recent = np.zeros((len(table), CLICKS), np.int64)
    if name not in table.columns:
        return recent
    lists = table[name].cast(pl.List(pl.Int64))
    for row, ids in enumerate(lists.list.eval(pl.element().filter(pl.element() != 0)).list.tail(CLICKS).to_list()):
        recent[row, CLICKS - len(ids) :] = ids
    return recent


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


def read_items(folder: Path) -> Items:
    """The first column of vectors and the first of tags in item_info; none: one of zeros."""
    table = pl.read_parquet(folder / "item_info.parquet").sort("item_id")
    size, ids = int(table["item_id"].max()) + 1, table["item_id"].to_numpy()
    vectors, tags = np.zeros((size, 1), np.float32), sp.csr_matrix((size, 1))
    lists = [s for s in table.get_columns() if s.dtype in (pl.List, pl.Array)]
    if floats := [s for s in lists if s.dtype.inner.is_float()]:
        values = np.array(floats[0].to_list(), np.float32)
        vectors = np.zeros((size, values.shape[1]), np.float32)
        vectors[ids] = values
    if integers := [s for s in lists if s.dtype.inner.is_integer()]:
        long = pl.DataFrame({"item": ids, "tag": integers[0].cast(pl.List(pl.Int64))}).explode("tag").drop_nulls()
        long = long.filter(pl.col("tag") != 0).unique()
        tags = sp.csr_matrix((np.ones(len(long)), (long["item"], long["tag"])), (size, long["tag"].max() + 1))
        tags = tags @ sp.diags(np.log(size / np.maximum(tags.sum(axis=0).A1, 1)))
        norms = np.sqrt(tags.multiply(tags).sum(axis=1)).A1
        tags = sp.csr_matrix(sp.diags(1 / np.where(norms > 0, norms, 1)) @ tags)
    return Items(vectors, tags)


def count(rows: Rows, size: int) -> Counts:
    """The statistics of training rows; of `size` items."""
    clicked = rows.label == 1
    at, column = np.nonzero(rows.history)
    owners = np.concatenate([rows.user[clicked], rows.user[at]])
    users, items = (
        np.unique(owners, return_inverse=True)[1],
        np.concatenate([rows.item[clicked], rows.history[at, column]]),
    )
    matrix = sp.csr_matrix((np.ones(len(items), np.float32), (users, items)), (users.max() + 1, size))
    matrix.data[:] = 1  # a click counts once for each user
    clicks = matrix.sum(axis=0).A1
    scale = sp.diags(1 / np.sqrt(np.maximum(clicks, 1)))
    activity = sp.diags(1 / np.sqrt(matrix.sum(axis=1).A1))
    together = sp.csr_matrix(scale @ (matrix.T @ activity @ matrix) @ scale)
    following = sp.csr_matrix(sp.diags(1 / np.maximum(clicks, 1)) @ _transitions(rows, size))
    shown, wanted = np.bincount(rows.item, minlength=size), rows.label.mean()
    share = (np.bincount(rows.item[clicked], minlength=size) + 5 * wanted) / (shown + 5) / wanted
    svds = tuple(_svd(matrix, np.maximum(clicks, 1) ** -power) for power in POWERS)
    return Counts(clicks / matrix.shape[0], share, svds, together, following)


def _svd(matrix: sp.csr_matrix, scale: np.ndarray) -> np.ndarray:
    """(items, 64) vectors of the items' columns, each of which counts by its scale."""
    rank = min(DIM, min(matrix.shape) - 1)
    _, values, right = randomized_svd(matrix @ sp.diags(scale), rank, random_state=0)
    return right.T * values


def _transitions(rows: Rows, size: int) -> sp.csr_matrix:
    """(items, items): how many users clicked the column at most three clicks after the row."""
    path = np.concatenate([rows.history, np.where(rows.label == 1, rows.item, 0)[:, None]], axis=1)
    steps = [(path[:, :-ahead], path[:, ahead:]) for ahead in (1, 2, 3)]
    before, after = (np.concatenate([step[side].ravel() for step in steps]) for side in (0, 1))
    owners = np.concatenate([np.repeat(rows.user, step[0].shape[1]) for step in steps])
    real = (before > 0) & (after > 0)
    once = pl.DataFrame({"user": owners[real], "before": before[real], "after": after[real]}).unique()
    return sp.csr_matrix((np.ones(len(once), np.float32), (once["before"], once["after"])), (size, size))


def pairs(matrix: sp.csr_matrix, rows: Rows) -> np.ndarray:
    """(rows, 16): the matrix's entry for each click and the target; 0 where there is no click."""
    target = np.repeat(rows.item[:, None], CLICKS, axis=1)
    real = rows.history > 0
    found = np.zeros(real.shape)
    found[real] = np.asarray(matrix[rows.history[real], target[real]]).ravel()
    return found


def _cosines(vectors: np.ndarray, rows: Rows) -> list[np.ndarray]:
    """With the target: of the mean history, the largest, mean, smallest and deviation of the clicks, the last three."""
    unit, real = _unit(vectors), rows.history > 0
    each = np.einsum("nd,nkd->nk", unit[rows.item], unit[rows.history]) * real
    return [mean_cosine(vectors, rows), *_summary(each, real), *each[:, -3:].T]


def _summary(each: np.ndarray, real: np.ndarray) -> list[np.ndarray]:
    """The largest, second largest, smallest, mean and deviation over a row's clicks; 0 without any."""
    clicks = np.maximum(real.sum(axis=1), 1)
    mean = each.sum(axis=1) / clicks
    deviation = np.sqrt((np.square(each - mean[:, None]) * real).sum(axis=1) / clicks)
    ordered = np.sort(np.where(real, each, -np.inf), axis=1)
    extremes = [ordered[:, -1], ordered[:, -2], np.where(real, each, np.inf).min(axis=1)]
    return [*(np.where(np.isfinite(x), x, 0) for x in extremes), mean, deviation]


def mean_cosine(vectors: np.ndarray, rows: Rows) -> np.ndarray:
    """(rows,) cosine of the target's vector and the mean of the clicks'; vectors of padding must be zero."""
    mean = vectors[rows.history].sum(axis=1)
    return (_unit(mean) * _unit(vectors[rows.item])).sum(axis=1)


def features(rows: Rows, counts: Counts, items: Items) -> np.ndarray:
    """(rows, F) hand-made features. A training row's `counts` must not know its user's clicks."""
    parts = []
    for start in range(0, len(rows.item), 50_000):  # (rows, 16, 128) floats at a time
        some = rows.of(np.arange(start, min(start + 50_000, len(rows.item))))
        real, popularity = some.history > 0, np.sqrt(np.maximum(counts.clicks, 1e-6))[some.item]
        columns = [real.sum(axis=1), *some.side.T, counts.clicks[some.item], counts.share[some.item]]
        seen = np.where(real, counts.clicks[some.history], 0)
        columns += [np.diff(items.tags.indptr)[some.item], seen[:, -1], *_summary(seen, real)]
        columns += [(some.history == some.item[:, None]).sum(axis=1)]
        for vectors in (items.vectors, *counts.svds):
            columns += _cosines(vectors, some)
        for matrix in (counts.together, counts.following):
            found = pairs(matrix, some)
            sums, largest = found.sum(axis=1), found.max(axis=1)
            columns += [
                sums,
                largest,
                sums / popularity,
                largest / popularity,
                found[:, -1],
                *_summary(found, real)[3:],
            ]
        target = items.tags[some.item]
        overlap = np.stack([target.multiply(items.tags[some.history[:, k]]).sum(axis=1).A1 for k in range(CLICKS)], 1)
        columns += [overlap.sum(axis=1), *_summary(overlap, real), overlap[:, -1]]
        if rows.skipped.any():
            columns += _of_skipped(replace(some, history=some.skipped), counts, items)
        parts.append(np.stack(columns, axis=1).astype(np.float32))
    return np.concatenate(parts)


def _of_skipped(rows: Rows, counts: Counts, items: Items) -> list[np.ndarray]:
    """How the target is like what was skipped, which is the history of these rows."""
    columns = [(rows.history > 0).sum(axis=1), (rows.history == rows.item[:, None]).sum(axis=1)]
    for vectors in (items.vectors, *counts.svds):
        columns += _cosines(vectors, rows)
    found, target = pairs(counts.together, rows), items.tags[rows.item]
    overlap = [target.multiply(items.tags[rows.history[:, k]]).sum(axis=1).A1 for k in range(CLICKS)]
    return [*columns, found.sum(axis=1), found.max(axis=1), np.sum(overlap, axis=0), np.max(overlap, axis=0)]


def out_of_fold(train: Rows, items: Items, size: int) -> np.ndarray:
    """The features of training rows, each from the clicks of the other four fifths of the users."""
    folds, result = train.user % FOLDS, None
    for fold in range(FOLDS):
        here = np.flatnonzero(folds == fold)
        made = features(train.of(here), count(train.of(folds != fold), size), items)
        result = np.empty((len(folds), made.shape[1]), np.float32) if result is None else result
        result[here] = made
    return result
