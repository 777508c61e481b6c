"""Intervals by resampling: each draw is what scikit-learn says of the rows so drawn, and 95 % is about 95 %."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from mmctr_jax.pages import intervals as bootstrap

ROWS = st.lists(st.tuples(st.booleans(), st.integers(-3, 3), st.floats(0, 10)), min_size=2, max_size=40)


@settings(deadline=None)
@given(ROWS)
def test_the_weighted_auc_is_scikit_learns_ties_and_zeros_included(rows):
    labels, scores, weights = (np.array(column) for column in zip(*rows, strict=True))
    found = bootstrap.area(labels, scores)(weights[None])
    if min((weights * labels).sum(), (weights * ~labels).sum()) < 1e-6:
        return
    assert found == pytest.approx([roc_auc_score(labels, scores, sample_weight=weights)], abs=1e-9)


def test_without_a_class_there_is_no_auc():
    area = bootstrap.area(np.array([0, 1, 0]), np.array([1.0, 2.0, 3.0]))
    assert np.isnan(area(np.array([[1, 0, 2], [0, 3, 0], [1, 1, 1]]))).tolist() == [True, True, False]


def test_a_draw_has_as_many_rows_as_there_are_and_any_row_may_come(monkeypatch):
    monkeypatch.setattr(bootstrap, "_BLOCK", 1000)
    blocks = list(bootstrap.weights(7))
    assert [len(block) for block in blocks] == [142, 142, 142, 74]  # 500 draws, no more than 1000 weights at once
    drawn = np.concatenate(blocks)
    assert (drawn.sum(axis=1) == 7).all() and drawn.min() == 0
    # A row's number of times is binomial (7, 1/7), and not that of another draw.
    assert drawn.mean(axis=0) == pytest.approx(np.ones(7), abs=0.15)
    assert drawn.var(axis=0) == pytest.approx(np.full(7, 6 / 7), abs=0.25)
    assert len(np.unique(drawn, axis=0)) > 350


def test_the_same_number_of_rows_has_the_same_draws():
    for one, two in zip(bootstrap.weights(50), bootstrap.weights(50), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("rows", "draws"), [(1, 500), (200_000, 500), (400_000, 250), (10**6, 100), (10**9, 100)])
def test_many_rows_have_fewer_draws(rows, draws):
    assert bootstrap.count_draws(rows) == draws


def test_every_draws_figures_are_those_of_the_rows_drawn():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 60), rng.integers(1, 10, 60) / 10
    losses = -np.where(labels == 1, np.log(scores), np.log(1 - scores))
    found = bootstrap.values([bootstrap.area(labels, scores), bootstrap.average(losses)], 60)
    assert found.shape == (2, 500)
    drawn = np.concatenate(list(bootstrap.weights(60)))
    for i in range(0, 500, 9):
        rows = np.repeat(np.arange(60), drawn[i])
        assert found[0, i] == pytest.approx(roc_auc_score(labels[rows], scores[rows]))
        assert found[1, i] == pytest.approx(log_loss(labels[rows], scores[rows]))


def test_the_interval_leaves_one_draw_in_forty_on_either_side():
    values = np.random.default_rng(0).permutation(np.arange(401.0))
    assert bootstrap.interval(values) == (10.0, 390.0)
    values[values == 200] = np.nan
    assert bootstrap.interval(values) == pytest.approx((10.0, 390.0), abs=0.5)


def test_where_a_class_is_often_not_drawn_there_is_no_interval():
    scores = np.arange(100.0)
    for positives, known in ((2, False), (5, True)):
        labels = np.arange(100) % 20 < 1
        labels[np.flatnonzero(labels)[positives:]] = False
        drawn = bootstrap.values([bootstrap.area(labels, scores)], 100)[0]
        assert (bootstrap.interval(drawn) is not None) == known, positives


def test_ninety_five_intervals_of_a_hundred_hold_the_truth():
    """Normal scores one deviation apart: the AUC is Φ(1/√2)."""
    rng = np.random.default_rng(1)
    truth, held, trials = 0.760250, 0, 200
    for _ in range(trials):
        labels = rng.integers(0, 2, 120)
        drawn = bootstrap.values([bootstrap.area(labels, rng.normal(size=120) + labels)], 120)[0]
        low, high = bootstrap.interval(drawn)
        held += low <= truth <= high
    assert 0.90 <= held / trials <= 0.985


def test_a_difference_of_alike_models_is_known_better_than_either():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 400)
    scores = rng.normal(size=400) + labels
    other = scores + 0.1 * rng.normal(size=400)
    drawn = bootstrap.values([bootstrap.area(labels, x) for x in (scores, other, scores)], 400)
    low, high = bootstrap.interval(drawn[1] - drawn[0])
    alone = bootstrap.interval(drawn[0])
    assert 0 < high - low < (alone[1] - alone[0]) / 4
    assert bootstrap.interval(drawn[2] - drawn[0]) == (0.0, 0.0)
