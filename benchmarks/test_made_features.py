"""The features of the trees: a row must not see its own click."""

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from benchmarks import made_features

ITEMS, ROWS, USERS = 12, 60, 15


@pytest.fixture
def train():
    rng = np.random.default_rng(3)
    history = np.zeros((ROWS, made_features.CLICKS), np.int64)
    for row in range(ROWS):
        clicks = rng.choice(np.arange(1, ITEMS), rng.integers(0, 4), replace=False)
        history[row, made_features.CLICKS - len(clicks) :] = clicks
    user = np.arange(ROWS) % USERS
    item, label = rng.integers(1, ITEMS, ROWS), rng.integers(0, 2, ROWS)
    return made_features.Rows(history, history[::-1], item, user, label, np.ones((ROWS, 1), int))


def co_clicks(rows, others):
    """The weighted co-click cosine of each click and the target, summed, from sets of what each user clicked."""
    clicked = {}
    for row in others:
        chosen = clicked.setdefault(rows.user[row], set())
        chosen |= set(rows.history[row]) - {0} | ({rows.item[row]} if rows.label[row] else set())
    clicks = {item: sum(item in chosen for chosen in clicked.values()) for item in range(1, ITEMS)}

    def together(a, b):
        weights = [len(chosen) ** -0.5 for chosen in clicked.values() if a in chosen and b in chosen]
        return sum(weights) / np.sqrt(clicks[a] * clicks[b]) if weights else 0

    return lambda row: sum(together(click, rows.item[row]) for click in rows.history[row] if click)


def test_features_of_a_training_row_come_from_other_users(train):
    items = made_features.Items(np.random.default_rng(0).normal(size=(ITEMS, 3)), sp.csr_matrix((ITEMS, 2)))
    made = made_features.out_of_fold(train, items, ITEMS)
    column = 12 + 3 * 9  # after what is of the target or the history alone, and the cosines of three kinds of vectors
    for row in range(ROWS):
        others = np.flatnonzero(train.user % made_features.FOLDS != train.user[row] % made_features.FOLDS)
        assert made[row, column] == pytest.approx(co_clicks(train, others)(row), rel=1e-5, abs=1e-6)


def test_an_unknown_click_or_empty_history_gives_finite_features(train):
    items = made_features.Items(np.zeros((ITEMS, 1)), sp.csr_matrix((ITEMS, 1)))
    train.history[:5] = 0
    assert np.isfinite(made_features.features(train, made_features.count(train, ITEMS), items)).all()


def test_what_the_log_and_the_item_file_say_are_features(tmp_path):
    """Numbers as they are, of the target's too, and a column for each word of a short vocabulary."""
    rows = {"ID": [0, 1], "user_id": [1, 2], "item_id": [2, 1], "item_seq": [[1], []], "device": [1, 2]}
    rows = pl.DataFrame(rows | {"likes": [[2, 3], []], "click_gap": [[1.0], []]})
    rows.write_parquet(tmp_path / "test.parquet")
    rows.with_columns(label=pl.Series([0, 1]), other=pl.Series([1, 1])).write_parquet(tmp_path / "train.parquet")
    (tmp_path / "vocabularies").mkdir()
    pl.DataFrame({"id": [1, 2, 3]}).write_parquet(tmp_path / "vocabularies" / "likes.parquet")
    pl.DataFrame({"item_id": [1, 2], "price": [3.5, 7.0]}).write_parquet(tmp_path / "item_info.parquet")
    found = made_features.read_rows(tmp_path, "train")
    np.testing.assert_array_equal(found.side, [[1, 0, 1, 1, 7.0], [2, 0, 0, 0, 3.5]])


def test_followers_are_counted_once_for_each_user(train):
    counts = made_features.count(train, ITEMS)
    clickers, steps = {}, set()
    for history, item, user, label in zip(train.history, train.item, train.user, train.label, strict=True):
        path = [*history[history > 0], *([item] if label else [])]
        for i, before in enumerate(path):
            clickers.setdefault(before, set()).add(user)
            steps |= {(user, before, after) for after in path[i + 1 : i + 4]}
    expected = np.zeros((ITEMS, ITEMS))
    for _, before, after in steps:
        expected[before, after] += 1 / len(clickers[before])
    np.testing.assert_allclose(counts.following.toarray(), expected, rtol=1e-6)
