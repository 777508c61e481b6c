"""Several configs over several seeds: every number from its own run, nothing done twice, nothing lost."""

import csv
import errno
import json
import shutil
import statistics
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.metrics import roc_auc_score
from synthetic import CODES, merged, raw_config, summary_of

from mmctr_jax.commands.compare import main
from mmctr_jax.errors import FailedError, InputError, TrainingError
from mmctr_jax.experiments import comparison, seeded_run
from mmctr_jax.experiments.comparison import compare
from mmctr_jax.experiments.tables import mean_and_deviation
from mmctr_jax.runs.directory import RunDirectory

SEEDS = [1, 2]


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    """(folder of the configs, folder of a finished comparison)."""
    folder = tmp_path_factory.mktemp("compare")
    tags = {"kind": "tags", "name": "item_tags"}
    for name, change in (
        ("din", {"model": {"name": "din", "attention": [4], "deep": [4]}}),
        (
            "codes",
            {
                "features": {"item_features": [tags, CODES]},
                "model": {"transformer": {"layers": 0}, "dcn": {"cross_layers": 1, "deep": [4]}, "head": []},
            },
        ),
    ):
        raw = merged(raw_config(dataset), change | {"train": {"epochs": 1}})
        raw["data"] |= {"test_labels": str(dataset / "test_labels.parquet"), "cache_dir": str(folder / "cache")}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(raw))
    assert compare(paths(folder), [], SEEDS, folder / "out")
    return folder, folder / "out"


def paths(folder):
    return [folder / "din.yaml", folder / "codes.yaml"]


def table(out, name="table.csv"):
    with open(out / name, newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_table_is_mean_and_deviation_of_what_the_runs_predicted(finished, dataset):
    _, out = finished
    labels = pq.read_table(dataset / "test_labels.parquet")["label"].to_numpy()
    rows = table(out)
    assert [row["system"] for row in rows] == ["din", "codes"] and {row["seeds"] for row in rows} == {"2"}
    for row in rows:
        areas, losses = [], []
        for seed in SEEDS:
            scores = pq.read_table(out / row["system"] / f"seed{seed}" / "predictions.parquet")["score"].to_numpy()
            areas.append(roc_auc_score(labels, scores))
            losses.append(-np.log(np.where(labels == 1, scores, 1 - scores)).mean())
        for column, values in (("test_auc", areas), ("test_logloss", losses)):
            assert float(row[f"{column}_mean"]) == pytest.approx(statistics.mean(values), abs=1e-6)
            assert float(row[f"{column}_deviation"]) == pytest.approx(statistics.stdev(values), abs=1e-6)
        summary = json.loads((out / row["system"] / "seed1" / "summary.json").read_text())
        assert int(row["parameters"]) == summary["parameters"] and float(row["seconds_mean"]) > 0
        assert f"| {row['system']} | {statistics.mean(areas):.4f} ± " in (out / "table.md").read_text()
    assert [(r["system"], r["seed"]) for r in table(out, "runs.csv")] == [
        (name, seed) for name in ("din", "codes") for seed in ("1", "2")
    ]
    assert (out / "table.png").stat().st_size > 5000
    assert len({r["test_auc"] for r in table(out, "runs.csv")}) == 4  # seeds and systems differ


def test_mean_and_deviation_by_hand():
    assert mean_and_deviation([]) == (None, None)
    assert mean_and_deviation([0.5]) == (0.5, None)
    assert mean_and_deviation([1.0, 2.0, 3.0]) == (2.0, 1.0)


def test_finished_runs_are_reused(finished, monkeypatch):
    folder, out = finished
    before = (out / "table.csv").read_text()
    monkeypatch.setattr(seeded_run, "train", None)  # would fail
    assert compare(paths(folder), [], SEEDS, out)
    assert (out / "table.csv").read_text() == before


def test_an_interrupted_comparison_goes_on_and_ends_the_same(finished, tmp_path, monkeypatch, capsys):
    folder, out = finished
    trained = []

    def interrupted_at_the_third(config, directory, resume, end_early):
        trained.append(directory.relative_to(tmp_path / "out").as_posix())
        if len(trained) == 3:
            return summary_of("interrupted")
        shutil.copytree(out / trained[-1], directory)
        return RunDirectory(directory).read_summary()

    monkeypatch.setattr(seeded_run, "train", interrupted_at_the_third)
    arguments = [*map(str, paths(folder)), "--seeds", "2", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["compare", *arguments])
    assert main(sys.argv[1:]) == 130 and "the same command" in capsys.readouterr().out
    assert trained == ["din/seed1", "codes/seed1", "din/seed2"]  # round by round
    assert [(r["system"], r["seeds"]) for r in table(tmp_path / "out")] == [("din", "1"), ("codes", "1")]
    assert main(sys.argv[1:]) == 0 and trained[3:] == ["din/seed2", "codes/seed2"]
    assert (tmp_path / "out" / "table.md").read_text() == (out / "table.md").read_text()


def test_another_setting_or_other_data_never_passes_for_the_finished_run(finished, tmp_path):
    folder, out = finished
    shutil.copytree(out, tmp_path / "out")
    for override in ("train.learning_rate=0.5", "train.epochs=3", "train.patience=1"):
        with pytest.raises(InputError, match=override.partition("=")[0]):
            compare(paths(folder), [override], SEEDS, tmp_path / "out")
    train = pq.read_table(yaml.safe_load(paths(folder)[0].read_text())["data"]["train"])
    pq.write_table(train.slice(5), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="contents of data.train"):
        compare(paths(folder), [f"data.train={tmp_path / 'other.parquet'}"], SEEDS, tmp_path / "out")


def test_a_failed_run_is_marked_and_the_others_go_on(finished, tmp_path, monkeypatch):
    folder, out = finished

    def diverging(config, directory, resume, end_early):
        if config.model.name == "din":
            directory.mkdir(parents=True)
            raise FailedError("Step 3 diverged.")
        shutil.copytree(out / "codes" / directory.name, directory)
        return RunDirectory(directory).read_summary()

    monkeypatch.setattr(seeded_run, "train", diverging)
    assert compare(paths(folder), [], SEEDS, tmp_path / "out")
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert lines[2] == "| din | – | – | – | – | – | 2, 2 failed |" and lines[3].startswith("| codes | 0.")
    assert {r["failed"] for r in table(tmp_path / "out", "runs.csv")} == {"Step 3 diverged.", ""}


def test_what_cannot_be_compared_is_refused_before_anything_runs(finished, tmp_path, dataset):
    folder, _ = finished
    (tmp_path / "din.yaml").write_text(paths(folder)[0].read_text())
    (tmp_path / "bad.yaml").write_text("data: 3")
    pq.write_table(pq.read_table(dataset / "test_labels.parquet").slice(1), tmp_path / "labels.parquet")
    test = pq.read_table(dataset / "test.parquet").drop_columns("item_id")
    pq.write_table(test, tmp_path / "without.parquet")
    din = folder / "din.yaml"
    for configs, override, words in (
        ([din, tmp_path / "din.yaml"], None, "Two configs are named din"),
        ([din, tmp_path / "bad.yaml"], None, "bad.yaml"),
        ([din, tmp_path / "absent.yaml"], None, "absent.yaml cannot be read"),
        ([din], "train.seed=5", "--seeds"),
        ([din], "data.item_info=absent.parquet", "absent.parquet"),
        ([din], f"data.test_labels={tmp_path / 'labels.parquet'}", "89 labels for 90 rows"),
        ([din], f"data.test={tmp_path / 'without.parquet'}", "item_id"),
        ([din], "features.item_features=[{kind: embedding, name: item_emb_d8, dim: 7}]", "item_emb_d8"),
    ):
        with pytest.raises(InputError, match=words):
            compare(configs, [override] if override else [], SEEDS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"config": {}, "data": {}, "result": [1]}', '{"result": null}'])
def test_a_damaged_record_is_named(finished, tmp_path, text):
    folder, _ = finished
    (tmp_path / "out" / "din").mkdir(parents=True)
    (tmp_path / "out" / "din" / "seed1.json").write_text(text)
    with pytest.raises(InputError, match="seed1.json is damaged"):
        compare(paths(folder), [], SEEDS, tmp_path / "out")


def test_a_run_that_is_not_of_the_comparison_is_left_alone(finished, tmp_path):
    folder, out = finished
    shutil.copytree(out / "din" / "seed1", tmp_path / "out" / "din" / "seed1")
    with pytest.raises(InputError, match="not a run of this comparison"):
        compare(paths(folder), [], SEEDS, tmp_path / "out")


def test_without_a_config_there_is_nothing_to_compare(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["compare", "train.epochs=1", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as exit:
        main(sys.argv[1:])
    assert exit.value.code == 2 and "no config is named" in capsys.readouterr().err


def test_a_config_may_have_an_equals_sign_in_its_name(finished, tmp_path, monkeypatch):
    folder, _ = finished
    named = shutil.copy(paths(folder)[0], folder / "rate=1.yaml")
    found = []
    monkeypatch.setattr(comparison, "compare", lambda configs, overrides, *_: found.append((configs, overrides)))
    main([str(named), "train.epochs=1", "--out", str(tmp_path / "out")])
    assert found == [([Path(named)], ["train.epochs=1"])]


def test_what_is_no_fault_of_the_run_stops_the_comparison_and_is_not_recorded(finished, tmp_path, monkeypatch):
    folder, _ = finished

    def full_disk(config, directory, resume, end_early):
        raise TrainingError("Training stopped: no space left on device.")

    monkeypatch.setattr(seeded_run, "train", full_disk)
    with pytest.raises(TrainingError, match="no space"):
        compare(paths(folder), [], SEEDS, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "din" / "seed1.json").read_text())["result"] is None

    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(comparison, "write_tables", no_room)
    with pytest.raises(TrainingError, match=r"^Training stopped"):  # the cause, and not what followed from it
        compare(paths(folder), [], SEEDS, tmp_path / "out")


def test_results_that_cannot_be_written_are_one_sentence(finished, tmp_path, monkeypatch):
    folder, out = finished
    shutil.copytree(out, tmp_path / "out")

    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(comparison, "write_tables", refused)
    with pytest.raises(InputError, match="out cannot be written: Permission denied; .* --out"):
        compare(paths(folder), [], SEEDS, tmp_path / "out")
