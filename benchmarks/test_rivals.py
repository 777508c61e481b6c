"""The features of the trees: a row must not see its own click."""

import numpy as np
import pytest
import scipy.sparse as sp

from benchmarks import rivals

ITEMS, ROWS, USERS = 12, 60, 15


@pytest.fixture
def train():
    rng = np.random.default_rng(3)
    history = np.zeros((ROWS, rivals.CLICKS), np.int64)
    for row in range(ROWS):
        clicks = rng.choice(np.arange(1, ITEMS), rng.integers(0, 4), replace=False)
        history[row, rivals.CLICKS - len(clicks) :] = clicks
    user = np.arange(ROWS) % USERS
    return rivals.Rows(history, rng.integers(1, ITEMS, ROWS), user, rng.integers(0, 2, ROWS), np.ones((ROWS, 1), int))


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
    items = rivals.Items(np.random.default_rng(0).normal(size=(ITEMS, 3)), sp.csr_matrix((ITEMS, 2)))
    made = rivals.out_of_fold(train, items, ITEMS)
    column = 7 + 2 * 7  # after lengths, side feature and popularity, and the cosines of two kinds of vectors
    for row in range(ROWS):
        others = np.flatnonzero(train.user % rivals.FOLDS != train.user[row] % rivals.FOLDS)
        assert made[row, column] == pytest.approx(co_clicks(train, others)(row), rel=1e-5, abs=1e-6)


def test_an_unknown_click_or_empty_history_gives_finite_features(train):
    items = rivals.Items(np.zeros((ITEMS, 1)), sp.csr_matrix((ITEMS, 1)))
    train.history[:5] = 0
    assert np.isfinite(rivals.features(train, rivals.count(train, ITEMS), items)).all()
