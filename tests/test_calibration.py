"""Calibration: right on average, order kept, used only for the checkpoint that it was fitted for."""

import json
import logging
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from synthetic import raw_config

from mmctr_jax.config import parse_config
from mmctr_jax.errors import InputError
from mmctr_jax.prediction import calibration
from mmctr_jax.prediction.predict import predict
from mmctr_jax.training import metrics
from mmctr_jax.training.loop import train


def clicks(seed, rows, slope=0.4, intercept=-1.0, spread=3.0):
    """Logits that are too sure of themselves, and labels that follow slope · logit + intercept."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, rows)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-(slope * logits + intercept)))).astype(np.uint8)
    labels[:10] = np.arange(10) % 2
    return labels, logits.astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_platt_is_the_line_of_the_least_logloss_and_keeps_the_auc(seed, scale):
    labels, logits = clicks(seed, 400)
    logits = logits * np.float32(scale)
    fitted = calibration.fit("platt", 7, labels, logits)
    best = minimize(lambda p: metrics.logloss(labels, p[0] * logits / scale + p[1]), [1.0, 0.0], method="BFGS")
    assert metrics.logloss(labels, fitted.apply(logits)) <= best.fun + 1e-7
    assert metrics.auc(labels, fitted.apply(logits)) == pytest.approx(metrics.auc(labels, logits), abs=1e-12)


def test_platt_finds_the_line_that_labels_follow():
    labels, logits = clicks(0, 200_000)
    fitted = calibration.fit("platt", 7, labels, logits)
    assert fitted.slope == pytest.approx(0.4, abs=0.01) and fitted.intercept == pytest.approx(-1.0, abs=0.02)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_isotonic_is_the_rising_fit_of_the_labels_and_never_certain(seed):
    labels, logits = clicks(seed, 300)
    fitted = calibration.fit("isotonic", 7, labels, logits)
    probabilities = 1 / (1 + np.exp(-fitted.apply(logits)))
    plain = IsotonicRegression().fit_transform(logits.astype(np.float64), labels)
    np.testing.assert_allclose(probabilities, np.clip(plain, 1 / 302, 301 / 302), atol=1e-9)
    anywhere = np.sort(np.random.default_rng(seed).normal(0, 10, 200))
    assert (np.diff(fitted.apply(anywhere)) >= 0).all() and np.isfinite(fitted.apply(anywhere)).all()


@pytest.mark.parametrize("kind", calibration.KINDS)
def test_cross_fitting_shows_each_row_by_a_fit_on_the_other_folds(kind):
    labels, logits = clicks(3, 500)
    shown = calibration.cross_fitted(kind, labels, logits)
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(logits, labels))
    assert sorted(np.concatenate([fold for _, fold in folds])) == list(range(500))
    for rest, fold in folds:
        by_others = calibration.fit(kind, 0, labels[rest], logits[rest]).apply(logits[fold])
        np.testing.assert_array_equal(shown[fold], by_others)
    assert metrics.logloss(labels, shown) < metrics.logloss(labels, logits)  # they were too sure


@pytest.mark.parametrize("kind", calibration.KINDS)
def test_what_is_kept_comes_back_bit_for_bit_and_for_its_checkpoint_only(kind, tmp_path):
    labels, logits = clicks(1, 300)
    fitted = calibration.fit(kind, 7, labels, logits)
    assert calibration.read(tmp_path, 7) is None
    calibration.write(tmp_path, fitted)
    assert calibration.read(tmp_path, 7) == fitted and calibration.read(tmp_path, 8) is None
    np.testing.assert_array_equal(calibration.read(tmp_path, 7).apply(logits), fitted.apply(logits))


@pytest.mark.parametrize("kind", calibration.KINDS)
def test_a_model_that_knows_nothing_or_worse_is_not_calibrated(kind):
    labels, logits = clicks(1, 300)
    for useless in (-logits, np.zeros_like(logits)):
        with pytest.raises(InputError, match="cannot be calibrated"):
            calibration.fit(kind, 7, labels, useless)
    few = np.flatnonzero(labels)[:19]
    with pytest.raises(InputError, match="20 validation rows of each label"):
        calibration.fit(kind, 7, np.isin(np.arange(300), few).astype(np.uint8), logits)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "magic"},
        {"slope": "1"},
        {"slope": -1.0},
        {"slope": None},
        {"intercept": float("nan")},
        {"knots": [1.0, 2.0]},
        {"extra": 1},
        {"intercept": 10**400},
        {"kind": "isotonic"},
        {"kind": "isotonic", "knots": [2.0, 1.0], "at_knots": [1.0, 2.0]},
    ],
)
def test_a_damaged_file_is_named(tmp_path, change):
    calibration.write(tmp_path, calibration.Calibration("platt", 7, 0.5, 0.1))
    file = calibration.path(tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=r"calibration\.json is damaged"):
        calibration.read(tmp_path, 7)
    file.write_text("{")
    with pytest.raises(InputError, match=r"calibration\.json is damaged"):
        calibration.read(tmp_path, 7)


def test_predictions_are_calibrated_when_asked_and_from_then_on(dataset, tmp_path, caplog):
    raw = raw_config(dataset)
    raw["data"] |= {"test_labels": str(dataset / "test_labels.parquet"), "cache_dir": str(tmp_path / "cache")}
    raw["data"]["valid"] = raw["data"]["train"]  # so that so short a training has learned something of it
    directory = tmp_path / "run"
    train(parse_config(raw), directory)
    labels = pq.read_table(dataset / "test_labels.parquet")["label"].to_numpy()

    def scores(**arguments):
        result = predict(directory, None, tmp_path / "out.parquet", **arguments)
        found = pq.read_table(tmp_path / "out.parquet")["score"].to_numpy()
        assert result["metrics"]["auc"] == pytest.approx(roc_auc_score(labels, found), abs=1e-12)
        return found, result

    plain, before = scores()
    assert "uncalibrated" not in before
    logging.getLogger("mmctr_jax").propagate = True
    platt, result = scores(calibrate="platt")
    kept = calibration.read(directory, json.loads((directory / "summary.json").read_text())["best_step"])
    np.testing.assert_allclose(platt, 1 / (1 + np.exp(-kept.apply(np.log(plain / (1 - plain))))), atol=1e-7)
    assert result["uncalibrated"] == before["metrics"]
    assert result["metrics"]["auc"] == before["metrics"]["auc"]
    np.testing.assert_array_equal(scores()[0], platt)
    np.testing.assert_array_equal(scores(calibrate="none")[0], plain)
    assert calibration.path(directory).exists()

    valid = tmp_path / "valid.parquet"
    shutil.copy(dataset / "train.parquet", valid)
    text = (directory / "config.yaml").read_text()
    (directory / "config.yaml").write_text(text.replace(f"valid: {dataset / 'train.parquet'}", f"valid: {valid}"))
    with pytest.raises(InputError, match="would overwrite a file of the data"):
        predict(directory, None, valid, calibrate="platt")
    (directory / "config.yaml").write_text(text)

    kept = calibration.Calibration("platt", kept.step + 1, 1.0, 5.0)
    calibration.write(directory, kept)
    with caplog.at_level("WARNING", "mmctr_jax"):
        np.testing.assert_array_equal(scores()[0], plain)
    assert "Scores are not calibrated" in caplog.text
