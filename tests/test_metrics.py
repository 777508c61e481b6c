"""Metrics against scikit-learn, group by group."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from mmctr_jax.config import TrainConfig
from mmctr_jax.training.metrics import auc, evaluate, grouped_auc, logloss
from mmctr_jax.training.plateau import Plateau

rows = st.lists(st.tuples(st.integers(0, 1), st.integers(-4, 4), st.integers(0, 3)), min_size=1, max_size=40)


@given(rows)
@settings(deadline=None)
def test_grouped_auc_is_the_weighted_mean_of_each_groups_auc(rows):
    labels, scores, groups = (np.array(column) for column in zip(*rows, strict=True))
    logits = scores / 2.0
    total = weight = 0.0
    for group in set(groups.tolist()):
        mine = groups == group
        if len(set(labels[mine].tolist())) == 2:
            total += roc_auc_score(labels[mine], logits[mine]) * mine.sum()
            weight += mine.sum()
    result = grouped_auc(labels, logits, groups)
    assert math.isnan(result) if weight == 0 else result == pytest.approx(total / weight, abs=1e-12)


def test_logloss_is_scikit_learns():
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 2, 500), rng.normal(size=500).astype(np.float32)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert logloss(labels, logits) == pytest.approx(log_loss(labels, probabilities), abs=1e-12)
    assert logloss(np.array([0]), np.array([1000.0], np.float32)) == 1000.0  # no probability is clipped


def test_auc_of_what_cannot_be_ranked_is_nan():
    assert math.isnan(auc(np.array([0, 1]), np.array([0.0, np.nan])))
    assert math.isnan(auc(np.array([1, 1]), np.array([0.0, 1.0])))
    assert math.isnan(grouped_auc(np.array([0, 1]), np.array([0.0, np.inf]), np.array([1, 1])))
    one_class_each = evaluate(np.array([0, 1]), np.array([0.0, 1.0]), np.array([1, 2]))
    assert one_class_each["auc"] == 1.0 and one_class_each["gauc"] is None  # None, for JSON has no NaN


def run(aucs, **config):
    config = TrainConfig(learning_rate=1e-3, **config)
    plateau = Plateau(config.learning_rate)
    improved = [plateau.update(value, step, config) for step, value in enumerate(aucs, start=1)]
    return plateau, improved, plateau.exhausted(config)


def test_plateau_lowers_the_rate_and_counts_patience():
    plateau, improved, exhausted = run([0.6, 0.7, 0.65, 0.7, 0.8, 0.1, 0.1], patience=3)
    assert improved == [True, True, False, False, True, False, False]
    assert (plateau.best, plateau.best_step, plateau.bad_validations) == (0.8, 5, 2)
    assert plateau.learning_rate == 1e-6  # 1e-3 fell four times by a tenth, down to the floor
    assert not exhausted
    assert run([0.8, 0.1, 0.1, 0.1], patience=3)[2]


def test_plateau_has_a_floor_and_never_raises_the_rate():
    assert run([0.8] + [0.1] * 9, patience=99)[0].learning_rate == 1e-6
    config = TrainConfig(learning_rate=1e-8)
    plateau = Plateau(config.learning_rate)
    plateau.update(0.5, 1, config), plateau.update(0.5, 2, config)
    assert plateau.learning_rate == 1e-8


def test_an_improvement_is_more_than_min_delta():
    assert run([0.7, 0.7 + 5e-7])[1] == [True, False]
    assert run([0.7, 0.7 + 2e-6])[1] == [True, True]


def test_of_the_logloss_less_is_better():
    plateau, improved, exhausted = run([0.6, 0.5, 0.55, 0.5, 0.45, 0.7], patience=1, monitor="logloss")
    assert improved == [True, True, False, False, True, False] and exhausted
    assert (plateau.best, plateau.best_step) == (0.45, 5)
    assert not any(run([None, math.nan], monitor="gauc")[1])


def test_nan_is_never_an_improvement():
    plateau, improved, _ = run([math.nan, 0.6, math.nan])
    assert improved == [False, True, False] and plateau.best == 0.6
