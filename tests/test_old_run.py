"""What an earlier version trained: read, scored, resumed and reported as by that version.

`fixtures/run_0.1.0.tar.gz` was made by version 0.1.0 (commit 73cfc00, jax 0.10.2): a run of three epochs with derived
features and side features, its data, what that version predicted with it, and where it came to in two more epochs.
"""

import csv
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from mmctr_jax.config import load_config
from mmctr_jax.pages.report.page import report
from mmctr_jax.prediction.predict import predict
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.training.loop import train

FIXTURE = Path(__file__).parent / "fixtures" / "run_0.1.0.tar.gz"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(FIXTURE) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # not in Python 3.11.2, Debian 12's
        archive.extractall(folder)
    return folder / "run_0.1.0"


@pytest.fixture
def old(unpacked, tmp_path, monkeypatch):
    """A copy, entered: its paths are relative to it."""
    shutil.copytree(unpacked, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def scores(path):
    with open(path) as stream:
        return np.array([float(row["score"]) for row in csv.DictReader(stream)])


def test_it_predicts_what_it_predicted(old):
    result = predict(Path("run"), None, Path("now.csv"), calibrate="none")
    np.testing.assert_allclose(scores("now.csv"), scores("expected/predictions.csv"), atol=1e-6)
    assert result["rows"] == 90 and 0.5 < result["metrics"]["auc"] < 0.6
    predict(Path("run"), None, Path("now.csv"))  # as calibrated by that version
    np.testing.assert_allclose(scores("now.csv"), scores("expected/calibrated.csv"), atol=1e-6)


@pytest.mark.slow
def test_it_resumes_where_it_stopped(old):
    """With the same batches, dropout and moments: the same losses and scores, to rounding."""
    config = load_config("config.yaml", ["train.epochs=5"])
    summary = train(config, Path("run"), resume=True)
    expected = json.loads(Path("expected/resumed_summary.json").read_text())
    assert (summary.steps, summary.best_step) == (expected["steps"], expected["best_step"])
    assert summary.parameters == expected["parameters"]
    records = RunDirectory(Path("run")).read_records()
    before = [json.loads(line) for line in Path("expected/resumed_metrics.jsonl").read_text().splitlines()]
    assert [(r["kind"], r["step"]) for r in records] == [(r["kind"], r["step"]) for r in before]
    for now, then in zip(records, before, strict=True):
        for name in {"loss", "auc", "logloss", "gauc", "learning_rate"} & set(then):
            assert now[name] == pytest.approx(then[name], abs=1e-4), (name, now, then)
    predict(Path("run"), None, Path("now.csv"), calibrate="none")
    np.testing.assert_allclose(scores("now.csv"), scores("expected/resumed_predictions.csv"), atol=1e-4)


def test_another_config_is_refused_as_before(old):
    from mmctr_jax.errors import InputError

    with pytest.raises(InputError, match="begun with another config .train.learning_rate: 0.01 ≠ 0.02"):
        train(load_config("config.yaml", ["train.learning_rate=0.02"]), Path("run"), resume=True)


def test_its_report_is_made(old):
    report([Path("run")], Path("report.html"))
    assert "step 39" in Path("report.html").read_text()
