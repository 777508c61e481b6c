"""What a user would take instead of a network, on the same rows: popularity, co-clicks, an SVD, and LightGBM.

python -m benchmarks.run rivals --data data/prepared/movielens
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse as sp
from sklearn.metrics import log_loss
from sklearn.utils.extmath import randomized_svd

from benchmarks.harness import Table, duration
from mmctr_jax.pages.intervals import area, compare
from mmctr_jax.training.metrics import evaluate

CLICKS, FOLDS, DIM, LEAVES = 16, 5, 64, (15, 31, 63)
_NO_FEATURES = ("ID", "user_id", "item_id", "item_seq", "label", "weight")


@dataclass
class Rows:
    """history: (rows, 16) most recent clicks, 0 where there is none; item, user, label (rows,); side (rows, S)."""

    history: np.ndarray
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
    """What the clicks of some users say. clicks, share: (items,); svd: (items, 64); together, following: sparse
    (items, items): co-clicks as cosines, and how often the column was one of the next three clicks after the row."""

    clicks: np.ndarray
    share: np.ndarray
    svd: np.ndarray
    together: sp.csr_matrix
    following: sp.csr_matrix


def read_rows(folder: Path, name: str) -> Rows:
    """A split of a prepared folder; the labels of test are in a file of their own."""
    table = pl.read_parquet(folder / f"{name}.parquet")
    if "label" not in table.columns:
        table = table.with_columns(pl.read_parquet(folder / f"{name}_labels.parquet")["label"])
    lists = table["item_seq"].cast(pl.List(pl.Int64)) if table["item_seq"].dtype != pl.List else table["item_seq"]
    clicked = lists.list.eval(pl.element().filter(pl.element() != 0)).list.tail(CLICKS).to_list()
    history = np.zeros((len(table), CLICKS), np.int64)
    for row, clicks in enumerate(clicked):
        history[row, CLICKS - len(clicks) :] = clicks
    side = [name for name in table.columns if name not in _NO_FEATURES and table[name].dtype.is_integer()]
    columns = (table[name].to_numpy() for name in ("item_id", "user_id", "label"))
    return Rows(history, *columns, table.select(side).to_numpy())


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
    clicked = rows.of(rows.label == 1)
    at, column = np.nonzero(rows.history)
    users = np.unique(np.concatenate([clicked.user, rows.user[at]]), return_inverse=True)[1]
    items = np.concatenate([clicked.item, rows.history[at, column]])
    matrix = sp.csr_matrix((np.ones(len(items), np.float32), (users, items)), (users.max() + 1, size))
    matrix.data[:] = 1  # a click counts once for each user
    clicks = matrix.sum(axis=0).A1
    scale = sp.diags(1 / np.sqrt(np.maximum(clicks, 1)))
    rank = min(DIM, min(matrix.shape) - 1)
    _, values, right = randomized_svd(matrix @ scale, rank, random_state=0)
    activity = sp.diags(1 / np.sqrt(matrix.sum(axis=1).A1))
    together = sp.csr_matrix(scale @ (matrix.T @ activity @ matrix) @ scale)
    before, after = clicked.history[:, -3:], np.repeat(clicked.item[:, None], 3, axis=1)
    real = before > 0
    following = sp.csr_matrix((np.ones(real.sum()), (before[real], after[real])), (size, size))
    shown = np.bincount(rows.item, minlength=size)
    share = (np.bincount(clicked.item, minlength=size) + 5 * rows.label.mean()) / (shown + 5)
    return Counts(clicks, share, right.T * values, together, following)


def _pairs(matrix: sp.csr_matrix, rows: Rows) -> np.ndarray:
    """(rows, 16): the matrix's entry for each click and the target; 0 where there is no click."""
    target = np.repeat(rows.item[:, None], CLICKS, axis=1)
    real = rows.history > 0
    found = np.zeros(real.shape)
    found[real] = np.asarray(matrix[rows.history[real], target[real]]).ravel()
    return found


def _cosines(vectors: np.ndarray, rows: Rows, mean: np.ndarray) -> list[np.ndarray]:
    """With the target: of the mean history, the largest, mean and smallest of the clicks, and of the last three."""
    unit, real = _unit(vectors), rows.history > 0
    each = np.einsum("nd,nkd->nk", unit[rows.item], unit[rows.history]) * real
    average = each.sum(axis=1) / np.maximum(real.sum(axis=1), 1)
    largest, smallest = (f(np.where(real, each, -s * 2), axis=1) for f, s in ((np.max, 1), (np.min, -1)))
    return [mean, largest, average, smallest, *each[:, -3:].T]


def mean_cosine(vectors: np.ndarray, rows: Rows) -> np.ndarray:
    """(rows,) cosine of the target's vector and the mean of the clicks'; vectors of padding must be zero."""
    mean = vectors[rows.history].sum(axis=1)
    return (_unit(mean) * _unit(vectors[rows.item])).sum(axis=1)


def features(rows: Rows, counts: Counts, items: Items) -> np.ndarray:
    """(rows, F) hand-made features. A training row's `counts` must not know its user's clicks."""
    parts = []
    for start in range(0, len(rows.item), 50_000):  # (rows, 16, 128) floats at a time
        some = rows.of(np.arange(start, min(start + 50_000, len(rows.item))))
        real, popularity = some.history > 0, np.sqrt(np.maximum(counts.clicks, 1))
        clicks = real.sum(axis=1)
        seen = np.where(real, counts.clicks[some.history], 0)
        columns = [clicks, *some.side.T, counts.clicks[some.item], counts.share[some.item]]
        columns += [np.diff(items.tags.indptr)[some.item], seen[:, -1], seen.sum(axis=1) / np.maximum(clicks, 1)]
        for vectors in (items.vectors, counts.svd):
            columns += _cosines(vectors, some, mean_cosine(vectors, some))
        for matrix in (counts.together, counts.following):
            found = _pairs(matrix, some)
            for weighed in (found, found / popularity[some.item][:, None]):
                columns += [weighed.sum(axis=1), weighed.max(axis=1)]
        target = items.tags[some.item]
        overlap = np.stack([target.multiply(items.tags[some.history[:, k]]).sum(axis=1).A1 for k in range(CLICKS)], 1)
        columns += [overlap.sum(axis=1), overlap.max(axis=1), overlap.sum(axis=1) / np.maximum(clicks, 1)]
        parts.append(np.stack(columns, axis=1).astype(np.float32))
    return np.concatenate(parts)


def out_of_fold(train: Rows, items: Items, size: int) -> np.ndarray:
    """The features of training rows, each from the clicks of the other four fifths of the users."""
    folds, result = train.user % FOLDS, None
    for fold in range(FOLDS):
        here = np.flatnonzero(folds == fold)
        made = features(train.of(here), count(train.of(folds != fold), size), items)
        result = np.empty((len(folds), made.shape[1]), np.float32) if result is None else result
        result[here] = made
    return result


def trees(train, valid, test, labels, valid_labels) -> tuple[np.ndarray, np.ndarray]:
    """(valid, test) probabilities of LightGBM, with the number of leaves that is best on validation."""
    try:
        import lightgbm
    except ImportError:
        raise SystemExit("rivals needs LightGBM; install it with: pip install '.[rivals]'") from None
    best = None
    for leaves in LEAVES:
        settings = {"num_leaves": leaves, "learning_rate": 0.05, "n_estimators": 4000, "min_child_samples": 50}
        model = lightgbm.LGBMClassifier(**settings, subsample=0.8, subsample_freq=1, colsample_bytree=0.8, verbose=-1)
        stop = lightgbm.early_stopping(100, verbose=False)
        model.fit(train, labels, eval_X=valid, eval_y=valid_labels, eval_metric="auc", callbacks=[stop])
        auc = model.best_score_["valid_0"]["auc"]
        if best is None or auc > best[0]:
            best = auc, model
    return best[1].predict_proba(valid)[:, 1], best[1].predict_proba(test)[:, 1]


def main(argv: list[str]) -> None:
    """Prints one table; test is scored once for each rival. Predictions are compared with LightGBM's by a bootstrap."""
    parser = argparse.ArgumentParser(prog="rivals", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a prepared folder")
    parser.add_argument(
        "--predictions", type=Path, help="of the test file, by `mmctr predict`: compared with LightGBM's"
    )
    args = parser.parse_args(argv)
    train, valid, test = (read_rows(args.data, name) for name in ("train", "valid", "test"))
    items = read_items(args.data)
    size = len(items.vectors)
    start = time.perf_counter()
    counts = count(train, size)
    counted = time.perf_counter() - start
    table = Table("rival", "time", "validation AUC", "test AUC", "test logloss")

    def row(name, seconds, of_valid, of_test, loss="–"):
        aucs = [evaluate(r.label, s.astype(np.float32))["auc"] for r, s in ((valid, of_valid), (test, of_test))]
        table.row(name, duration(seconds), *(f"{auc:.4f}" for auc in aucs), loss)

    row("popularity", counted, counts.clicks[valid.item], counts.clicks[test.item])
    row("co-clicks", counted, *(_pairs(counts.together, rows).sum(axis=1) for rows in (valid, test)))
    row("text vectors, cosine", counted, *(mean_cosine(items.vectors, rows) for rows in (valid, test)))
    row("SVD of clicks, cosine", counted, *(mean_cosine(counts.svd, rows) for rows in (valid, test)))
    made = [out_of_fold(train, items, size), *(features(rows, counts, items) for rows in (valid, test))]
    of_valid, of_test = trees(*made, train.label, valid.label)
    row("LightGBM", time.perf_counter() - start, of_valid, of_test, f"{log_loss(test.label, of_test):.4f}")
    if args.predictions:
        ours = pl.read_parquet(args.predictions)["score"].to_numpy()
        compared = compare([area(test.label, scores) for scores in (of_test, ours)], len(ours))[1]
        more, (low, high) = compared.more.value, compared.more.interval
        print(f"{args.predictions}: test AUC {compared.value:.4f}, {more:+.4f} ({low:+.4f} to {high:+.4f}) on LightGBM")
