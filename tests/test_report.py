"""What the page says of runs is so, whatever is missing is said, and a browser can read it."""

import json
import re
import shutil
import sys
from html import escape
from typing import ClassVar, Literal

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from browser import assert_readable, fits, opened
from sklearn.metrics import log_loss, roc_auc_score, roc_curve
from synthetic import merged, raw_config, write_dataset

from mmctr_jax.commands.report import main
from mmctr_jax.config import parse_config
from mmctr_jax.data.items import load_items
from mmctr_jax.data.numbering import with_numbering
from mmctr_jax.errors import InputError
from mmctr_jax.features.base import Feature
from mmctr_jax.pages import intervals as bootstrap
from mmctr_jax.pages.figures import legend_labels
from mmctr_jax.pages.inspect import folder as inspect_folder
from mmctr_jax.pages.inspect.page import inspect
from mmctr_jax.pages.report import runs as report_runs
from mmctr_jax.pages.report.numbers import measure
from mmctr_jax.pages.report.page import report
from mmctr_jax.pages.report.slices import KNOWN, LENGTH, POPULARITY, side_feature
from mmctr_jax.prediction import calibration
from mmctr_jax.prediction.predict import predict
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.prediction.reliability import calibration_curve, error_by_chance
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.training.loop import train
from mmctr_jax.training.metrics import grouped_auc

HOSTILE = "<script>document.title='broken'<" + "w" * 150 + "$x_1$"
SMALL = {
    "name": "without_transformer",
    "max_history": 4,
    "dcn": {"cross_layers": 1, "deep": [4]},
    "head": [4],
}  # soon compiled


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with two runs, `one` and HOSTILE, their data, a page on both, and what was measured for it."""
    folder = tmp_path_factory.mktemp("report")
    data = write_dataset(folder / "data")
    for split in ("train", "valid", "test"):
        table = pq.read_table(data / f"{split}.parquet")
        if split == "train":  # items from 50 on are in its histories alone, those from 55 on nowhere
            table = table.filter(pc.less(table["item_id"], 50))
            histories = [[i % 55 or 1 for i in history] for history in table["item_seq"].to_pylist()]
            table = table.set_column(1, "item_seq", [histories])
        names = [HOSTILE if name == "views_level" else name for name in table.column_names]
        pq.write_table(table.rename_columns(names), data / f"{split}.parquet")
    for seed, name in enumerate(("one", HOSTILE)):
        raw = merged(raw_config(data), {"model": SMALL, "train": {"seed": seed}})
        raw["data"]["test_labels"] = str(data / "test_labels.parquet")
        raw["features"]["side"] = [{"name": name, "vocab_size": 11} for name in ("likes_level", HOSTILE)]
        train(parse_config(raw), folder / name)
    measured = report([folder / "one", folder / HOSTILE], folder / "both.html")
    return folder, measured


@pytest.fixture(scope="module")
def scores(trained):
    """Run → split → (labels, scores) as predict.py writes them."""
    folder, _ = trained
    found = {}
    for name in ("one", HOSTILE):
        found[name] = {}
        for split, labels in (("valid", "valid"), ("test", "test_labels")):
            predict(folder / name, folder / "data" / f"{split}.parquet", folder / "scores.parquet")
            score = pq.read_table(folder / "scores.parquet")["score"].to_numpy()
            found[name][split] = pq.read_table(folder / "data" / f"{labels}.parquet")["label"].to_numpy(), score
    return found


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of run `one` that a test may change, and its config as plain data."""
    folder, _ = trained
    shutil.copytree(folder / "one", tmp_path / "run")
    return tmp_path / "run", yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())


def set_data(directory, raw, **paths):
    raw["data"] |= {name: path and str(path) for name, path in paths.items()}
    (directory / "config.yaml").write_text(yaml.safe_dump(raw))


def measured_of(*directories):
    return measure(report_runs.read_runs(list(directories)))


def cells(html):
    return re.findall(r"<td>([^<]*)</td>", html)


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


# Numbers -------------------------------------------------------------------------------------------------------------


def test_the_metrics_are_scikit_learns_of_what_predict_writes(trained, scores):
    folder, measured = trained
    shown = cells((folder / "both.html").read_text())
    for split in ("valid", "test"):
        (group,) = measured.splits[split]
        users = pq.read_table(folder / "data" / f"{split}.parquet")["user_id"].to_numpy()
        for name, run in zip(("one", HOSTILE), group.runs, strict=True):
            labels, score = scores[name][split]
            auc, loss = roc_auc_score(labels, score), log_loss(labels, score)
            assert run.auc.value == pytest.approx(auc) and run.logloss.value == pytest.approx(loss)
            assert run.gauc == pytest.approx(grouped_auc(labels, score, users))
            assert any(cell.startswith(f"{auc:.4f} [") for cell in shown)
            assert any(cell.startswith(f"{loss:.4f} [") for cell in shown)
            for text in (f"{run.gauc:.4f}", f"{labels.mean():.4f}", f"{score.mean():.4f}", str(len(labels))):
                assert text in shown
            low, high = run.auc.interval
            assert low < auc < high and f"{auc:.4f} [{low:.4f}, {high:.4f}]" in shown


def test_differences_are_those_of_the_same_draws(trained, scores):
    """Recomputed row by row for the draws that the rows themselves give."""
    _, measured = trained
    (group,) = measured.splits["test"]
    (labels, one), (_, two) = scores["one"]["test"], scores[HOSTILE]["test"]
    more = group.runs[1].auc.more
    assert more.value == pytest.approx(roc_auc_score(labels, two) - roc_auc_score(labels, one))
    drawn = [np.repeat(np.arange(90), w) for block in bootstrap.weights(90) for w in block]
    differences = [roc_auc_score(labels[r], two[r]) - roc_auc_score(labels[r], one[r]) for r in drawn]
    assert more.interval == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=1e-6)
    losses = [log_loss(labels[r], two[r]) - log_loss(labels[r], one[r]) for r in drawn]
    assert group.runs[1].logloss.more.interval == pytest.approx(np.quantile(losses, [0.025, 0.975]), abs=1e-5)
    assert group.runs[0].auc.more is None


def test_slices_are_those_that_plain_python_makes_of_the_files(trained, scores):
    folder, measured = trained
    columns = pq.read_table(folder / "data" / "train.parquet").to_pydict()
    clicks, known = {}, set()
    for history, item, label in zip(columns["item_seq"], columns["item_id"], columns["label"], strict=True):
        clicks[item] = clicks.get(item, 0) + label
        known |= {item, *history}

    def popularity(item):
        low = next((4**i for i in range(9, -1, -1) if 4**i <= clicks.get(item, 0)), 0)
        return f"{low}–{4 * low - 1}" if low else "0"

    def length(history):
        top = next(2**i for i in range(9) if 2**i >= max(len(history), 1))
        return str(len(history)) if len(history) < 3 else f"{top // 2 + 1}–{top}"

    for split in ("valid", "test"):
        rows = pq.read_table(folder / "data" / f"{split}.parquet").to_pylist()
        expected = {
            LENGTH: [length(r["item_seq"]) for r in rows],
            POPULARITY: [popularity(r["item_id"]) for r in rows],
            KNOWN: ["known" if r["item_id"] in known else "new" for r in rows],
            "likes_level": [str(r["likes_level"]) for r in rows],
            HOSTILE: [str(r[HOSTILE]) for r in rows],
        }
        (group,) = measured.splits[split]
        assert [cut.by for cut, _ in group.sliced] == list(expected)
        for cut, slices in group.sliced:
            of_row = np.array(expected[cut.by])
            assert {s.name: s.rows for s in slices} == {n: (of_row == n).sum() for n in set(of_row)}
            for found in slices:
                for name, auc in zip(("one", HOSTILE), found.aucs, strict=True):
                    labels, score = (x[of_row == found.name] for x in scores[name][split])
                    if labels.min() == labels.max():
                        assert auc is None
                    else:
                        assert auc.value == pytest.approx(roc_auc_score(labels, score))
        assert all(len(slices) > 1 for _, slices in group.sliced)


def test_rare_values_of_a_side_feature_are_left_out():
    levels = np.array([*range(100, 130), 130, 130, 7, 7, 7])
    cut = side_feature("device", levels)
    assert cut.names == ["7", *map(str, range(100, 118)), "130"] and cut.left_out == 12
    assert [cut.names[i] if i >= 0 else None for i in cut.place] == [
        *map(str, range(100, 118)),
        *[None] * 12,
        *["130", "130", "7", "7", "7"],
    ]


def test_the_calibration_error_by_hand():
    """Thirty rows in fifteen bins of two, one of them a click."""
    scores = np.repeat(np.arange(15) / 20 + 0.1, 2) + np.tile([0, 0.001], 15)
    labels = np.tile([0, 1], 15)
    curve = calibration_curve(labels, scores)
    assert curve.rows.tolist() == [2] * 15 and curve.label.tolist() == [0.5] * 15
    assert curve.score == pytest.approx(np.arange(15) / 20 + 0.1005)
    assert curve.error == pytest.approx(np.abs(np.arange(15) / 20 + 0.1005 - 0.5).mean())
    order = np.random.default_rng(0).permutation(30)
    assert calibration_curve(labels[order], scores[order]).error == pytest.approx(curve.error)


def test_equal_scores_are_in_one_bin():
    scores = np.array([0.3] * 70 + [0.9] * 30)
    labels = np.array([1] * 21 + [0] * 49 + [1] * 15 + [0] * 15)
    curve = calibration_curve(labels, scores)
    assert curve.rows.tolist() == [70, 30] and curve.label.tolist() == [0.3, 0.5]
    assert curve.score == pytest.approx([0.3, 0.9])
    assert curve.error == pytest.approx(0.3 * 0.4)


def test_the_error_by_chance_is_what_true_probabilities_have():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.05, 0.6, 3000)
    errors = [calibration_curve(rng.random(3000) < scores, scores).error for _ in range(60)]
    assert error_by_chance(scores) == pytest.approx(np.mean(errors), rel=0.08)


def test_the_curves_are_what_was_recorded_and_the_roc_is_scikit_learns(trained, scores):
    folder, measured = trained
    records = [json.loads(line) for line in (folder / HOSTILE / "metrics.jsonl").read_text().splitlines()]
    validations = [(r["step"], r["auc"]) for r in records if r["kind"] == "validation"]
    assert measured.runs[1].curves["validation AUC"] == validations and len(validations) == 2
    assert measured.runs[1].curves["training loss"] == [(r["step"], r["loss"]) for r in records if r["kind"] == "train"]
    false, true, _ = roc_curve(*scores["one"]["valid"])
    points = np.stack(measured.splits["valid"][0].runs[0].roc, axis=1)
    assert points[0].tolist() == [0, 0] and points[-1].tolist() == [1, 1]
    np.testing.assert_allclose(points, np.stack([false, true], axis=1))  # few enough for all to be drawn


def test_what_was_trained_on_what(trained):
    folder, measured = trained
    summary = json.loads((folder / "one" / "summary.json").read_text())
    (valid,) = measured.splits["valid"]
    facts = measured.runs[0]
    assert facts.best["auc"] == pytest.approx(summary["validation"]["auc"]) == valid.runs[0].auc.value
    assert facts.best["step"] == facts.step == summary["best_step"]
    rows = pq.read_metadata(folder / "data" / "train.parquet").num_rows
    html = (folder / "both.html").read_text()
    expected = [
        "2 epochs done",
        "without_transformer",
        f"{summary['parameters']:,}",
        f"data/train.parquet ({rows} rows)",
        "59",
        "19",
    ]
    expected += ["item_tags (tags), item_emb_d8 (embedding)", escape(f"likes_level, {HOSTILE}"), "float32", "8 × cpu"]
    assert set(expected) <= set(cells(html))
    assert "embedding_dim: 4" in html and f"config.yaml of {escape(HOSTILE)}" in html


def test_a_stored_calibration_is_shown_for_test(copied, trained, scores, tmp_path, monkeypatch):
    class Halved:
        def apply(self, logits):
            return logits.astype(np.float64) / 2 - 0.25

    directory, _ = copied
    asked = []
    monkeypatch.setattr(calibration, "read", lambda *args: asked.append(args) or Halved())
    found = report([directory], tmp_path / "page.html")
    assert asked == [(directory, found.runs[0].step)]
    labels, score = scores["one"]["test"]
    calibrated = 1 / (1 + np.exp(-(np.log(score / (1 - score)) / 2 - 0.25)))
    run = found.splits["test"][0].runs[0]
    assert run.calibrated.logloss == pytest.approx(log_loss(labels, calibrated))
    assert run.logloss.value == pytest.approx(log_loss(labels, score))
    assert found.splits["valid"][0].runs[0].calibrated is None
    shown = cells((tmp_path / "page.html").read_text())
    for text, value in (("logloss", log_loss(labels, calibrated)), ("mean score", calibrated.mean())):
        assert shown[shown.index(f"{text}, calibrated") + 1] == f"{value:.4f}"


class NumberFeature(Feature):
    """A float per item or row, of a kind that has nothing to say of itself on pages."""

    kind: Literal["number"] = "number"
    of_rows: ClassVar[bool] = True

    def read(self, column):
        return column.array.to_numpy(zero_copy_only=False).astype(np.float32)

    def padding(self, rows):
        return np.zeros(rows, np.float32)

    def schema(self):
        return [self.name, self.kind]

    def width(self, embedding_dim):
        return 1

    def embed(self, layer, values, ids):
        return values[..., None].astype(layer.dtype)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Pydantic serializer")  # of the kind that it does not know
def test_a_kind_of_plain_floats_is_trained_inspected_and_reported_in_ranges(tmp_path, monkeypatch):
    data = write_dataset(tmp_path / "data")
    rng = np.random.default_rng(0)
    values = {}
    for name, column in (("train", "dwell"), ("valid", "dwell"), ("test", "dwell"), ("item_info", "price")):
        table = pq.read_table(data / f"{name}.parquet")
        values[name] = np.where(np.arange(len(table)) == 0, 0, rng.exponential(size=len(table)))
        pq.write_table(table.append_column(column, [values[name]]), data / f"{name}.parquet")
    raw = merged(raw_config(data), {"model": SMALL})
    raw["data"]["test_labels"] = str(data / "test_labels.parquet")
    config = parse_config(raw)
    side = (*config.features.side, NumberFeature(name="dwell"))
    items = (*config.features.item_features, NumberFeature(name="price"))
    features = config.features.model_copy(update={"side": side, "item_features": items})
    config = config.model_copy(update={"features": features})
    resolved = config.model_copy(update={"features": load_items(config.data.item_info, features, tmp_path).features})
    monkeypatch.setattr(RunDirectory, "read_config", lambda self: resolved)  # its file names a kind that YAML may not
    monkeypatch.setattr(inspect_folder, "load_config", lambda path: config)
    train(config, tmp_path / "run")

    found = report([tmp_path / "run"], tmp_path / "page.html")
    (group,) = found.splits["valid"]
    dwell = next(slices for cut, slices in group.sliced if cut.by == "dwell")
    starts = np.unique(np.quantile(values["valid"].astype(np.float32), np.arange(20) / 20))
    place = np.searchsorted(starts, values["valid"].astype(np.float32), side="right")
    assert [s.rows for s in dwell] == np.bincount(place)[1:].tolist() and len(dwell) == 20
    assert dwell[1].name == f"from {starts[1]:.4g}" and found.notes == []
    assert "price (number)</td>" in (tmp_path / "page.html").read_text()

    seen, _ = inspect(data, tmp_path / "any.yaml", tmp_path / "seen")
    level = next(level for level in seen.levels if level.feature == "dwell")
    rows = [value.splits["train"].rows for value in level.values]
    assert sum(rows) == len(values["train"]) and len(rows) == 30 and max(rows) - min(rows) <= 1
    assert sum(value.splits["valid"].rows for value in level.values) == len(values["valid"])
    assert any(auc.feature == "dwell" and auc.valid.auc is not None for auc in seen.label_auc)
    assert "dwell" in [feature.feature for feature in seen.drift["valid"].features]
    assert "price" not in str(seen) and "from " in (tmp_path / "seen" / "inspect.json").read_text()


# What is missing -----------------------------------------------------------------------------------------------------


def test_a_run_without_a_checkpoint_has_curves_and_is_not_touched(copied, tmp_path):
    directory, _ = copied
    for name in ("checkpoints", "damaged"):
        shutil.rmtree(directory / name, ignore_errors=True)
    (directory / "summary.json").unlink()
    records = (directory / "metrics.jsonl").read_text()
    (directory / "metrics.jsonl").write_text(records[: len(records) // 2])  # in the middle of a line
    before = files(directory)
    with RunDirectory(directory).lock():
        before[directory / ".lock"] = (directory / ".lock").stat().st_mtime_ns
        found = report([directory], tmp_path / "page.html")
    assert files(directory) == before
    assert found.runs[0].state == "still going" and found.splits == {}
    assert any("has no checkpoint yet" in note for note in found.notes)
    html = (tmp_path / "page.html").read_text()
    assert html.count("<img") == 4 and "still going" in cells(html) and "has no checkpoint yet" in html
    (directory / "metrics.jsonl").unlink()
    found = report([directory], tmp_path / "page.html")
    assert found.runs[0].state == "without a summary; train.log may say why"
    assert "Nothing is recorded yet." in (tmp_path / "page.html").read_text()


def test_scoring_leaves_a_run_directory_as_it_was(copied, tmp_path):
    directory, _ = copied
    before = files(directory)
    assert measured_of(directory).splits
    assert files(directory) == before


def test_a_checkpoint_replaced_while_it_is_read_is_looked_for_again(copied, tmp_path, monkeypatch):
    directory, _ = copied
    load, tries = Predictor.load, []

    def unlucky(directory):
        tries.append(directory)
        if len(tries) < 3:
            raise InputError("gone")
        return load(directory)

    monkeypatch.setattr(report_runs, "_WAIT_SECONDS", 0)
    monkeypatch.setattr(report_runs.Predictor, "load", unlucky)
    assert "Nothing is scored: gone" in measured_of(directory).notes and len(tries) == 1
    tries.clear()
    with RunDirectory(directory).lock():
        assert list(measured_of(directory).splits) == ["valid", "test"] and len(tries) == 3


def test_a_lock_is_seen_and_not_taken(tmp_path):
    run = RunDirectory(tmp_path)
    assert not run.is_locked
    with run.lock():
        assert run.is_locked and run.is_locked
    assert not run.is_locked
    run.lock().close()


def test_a_summary_of_before_the_run_went_on_is_not_taken(copied, tmp_path):
    directory, _ = copied
    with open(directory / "metrics.jsonl", "a") as stream:
        record = {"kind": "train", "step": 999, "epoch": 9.0, "loss": 0.1, "learning_rate": 0.01}
        stream.write(json.dumps(record | {"samples_per_second": 5.0}) + "\n")
    facts = measured_of(directory).runs[0]
    assert facts.state.startswith("without a summary") and (facts.steps, facts.epochs) == (999, 9.0)


def test_converted_weights_have_scores_and_no_curves(copied):
    directory, _ = copied
    for name in ("metrics.jsonl", "summary.json"):
        (directory / name).unlink()
    metadata = json.loads((directory / "metadata.json").read_text())
    metadata |= {"converted": {"sha256": ""}, "data": {"item_info": "", "items": metadata["data"]["items"]}}
    (directory / "metadata.json").write_text(json.dumps(metadata))
    found = measured_of(directory)
    assert found.runs[0].state == "not trained: converted weights" and found.notes == []
    assert list(found.splits) == ["valid", "test"] and not any(found.runs[0].curves.values())


def test_files_that_are_gone_are_left_out_with_a_note(copied, tmp_path):
    directory, raw = copied
    set_data(directory, raw, train=tmp_path / "gone" / "train.parquet", test_labels=tmp_path / "gone.parquet")
    found = measured_of(directory)
    (group,) = found.splits["valid"]
    assert [cut.by for cut, _ in group.sliced] == [LENGTH, "likes_level", HOSTILE]
    assert list(found.splits) == ["valid"] and len(found.notes) == 2
    assert "No AUC by popularity, nor by new against known items: Data file" in str(found.notes)
    assert f"test are not scored: {tmp_path / 'gone.parquet'}" in str(found.notes)
    set_data(directory, raw, valid=tmp_path / "gone" / "valid.parquet", test_labels=None)
    found = measured_of(directory)
    assert found.splits == {} and found.runs[0].curves["validation AUC"]
    assert "Rows of valid are not scored: Data file" in str(found.notes)
    assert "has no labels" in str(found.notes)


def test_rows_that_were_numbered_otherwise_are_not_scored(copied, trained, tmp_path):
    folder, _ = trained
    directory, raw = copied
    metadata = json.loads((directory / "metadata.json").read_text())
    numbering = {"item_id": [[5, "a" * 64]]}
    (directory / "metadata.json").write_text(json.dumps(metadata | {"numbering": numbering}))
    table = pq.read_table(folder / "data" / "valid.parquet")
    other = with_numbering(table.schema, {"item_id": [[5, "b" * 64]]})
    pq.write_table(table.cast(other), tmp_path / "valid.parquet")
    set_data(directory, raw, valid=tmp_path / "valid.parquet")
    assert "Rows of valid are not scored: " in (notes := str(measured_of(directory).notes))
    assert "was numbered otherwise" in notes


def test_files_that_changed_since_training_are_told_of(copied, trained, tmp_path):
    folder, _ = trained
    directory, raw = copied
    for split in ("train", "valid"):
        table = pq.read_table(folder / "data" / f"{split}.parquet")
        pq.write_table(table.slice(2), tmp_path / f"{split}.parquet")
    set_data(directory, raw, train=tmp_path / "train.parquet", valid=tmp_path / "valid.parquet")
    found = report([folder / "one", directory], tmp_path / "page.html")
    changed = [note for note in found.notes if "has changed since training" in note]
    assert len(changed) == 2 and all(note.startswith("run: ") for note in changed)
    # Other rows of valid cannot be compared row by row, those of test can.
    assert [[one.run.name for one in group.runs] for group in found.splits["valid"]] == [["one"], ["run"]]
    assert [[one.run.name for one in group.runs] for group in found.splits["test"]] == [["one", "run"]]
    assert any("the rows of valid are not those of one" in note for note in found.notes)
    assert any("Rows of train differ between runs" in note for note in found.notes)
    more = found.splits["test"][0].runs[1].auc.more
    assert more.value == 0 and more.interval == (0, 0)  # the same model
    html = (tmp_path / "page.html").read_text()
    assert html.count("More than one, by the same draws") == 1


def test_labels_that_differ_in_one_row_make_other_rows(copied, trained, tmp_path):
    folder, _ = trained
    directory, raw = copied
    labels = pq.read_table(folder / "data" / "test_labels.parquet")
    column = labels["label"].to_numpy().copy()
    column[5] = 1 - column[5]
    pq.write_table(labels.set_column(1, "label", [column]), tmp_path / "labels.parquet")
    set_data(directory, raw, test_labels=tmp_path / "labels.parquet")
    found = measured_of(folder / "one", directory)
    assert [len(groups) for groups in found.splits.values()] == [1, 2]


def test_labels_of_one_class_have_no_auc_but_a_page(copied, trained, tmp_path):
    folder, _ = trained
    directory, raw = copied
    labels = pq.read_table(folder / "data" / "test_labels.parquet")
    ones = labels.set_column(1, "label", [np.ones(90, int)])
    pq.write_table(ones, tmp_path / "ones.parquet")
    set_data(directory, raw, test_labels=tmp_path / "ones.parquet")
    run = measured_of(directory).splits["test"][0].runs[0]
    assert run.auc is run.roc is run.gauc is None and run.logloss.value > 0


def test_scores_that_are_not_finite_are_told_of(copied, tmp_path, monkeypatch):
    directory, _ = copied
    score = Predictor.score_split
    monkeypatch.setattr(
        Predictor, "score_split", lambda self, split: np.where(split.item < 9, np.nan, score(self, split))
    )
    found = measured_of(directory)
    assert found.splits == {} and "a score that is not finite" in found.notes[0]


# Files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file, content",
    [
        ("metrics.jsonl", b"\xff\xfe"),
        ("metrics.jsonl", b"5\n"),
        ("metrics.jsonl", b'{"kind": "train", "step": 3}\n'),
        ("summary.json", b"[]"),
    ],
)
def test_what_is_damaged_beside_the_checkpoints_is_left_out(copied, file, content):
    directory, _ = copied
    (directory / file).write_bytes(content)
    measured = measured_of(directory)
    assert measured.splits["valid"][0].runs[0].auc is not None
    if file == "metrics.jsonl":
        assert not any(measured.runs[0].curves.values())


def test_damaged_checkpoints_are_told_of(copied):
    directory, _ = copied
    for path in (directory / "checkpoints").glob("*/metrics/metrics"):
        path.write_text("{")
    (note,) = measured_of(directory).notes
    assert "Nothing is scored" in note and "checkpoints cannot be read" in note


def test_what_is_refused_is_refused_before_anything_is_written(trained, tmp_path):
    folder, _ = trained
    one, out = folder / "one", tmp_path / "page.html"
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "other.html").write_text("<title>Mine</title>")
    for directories, to, words in (
        ([folder / "data"], out, "data is not a run directory"),
        ([one, folder / "absent"], out, "absent is not a run directory"),
        ([one, folder / "data" / ".." / "one"], out, "one is given twice; name each run once"),
        ([one], tmp_path / "page.pdf", "page.pdf must end in .html"),
        ([one], tmp_path / "absent" / "page.html", "absent for the output does not exist"),
        ([one], tmp_path / "folder.html", "folder.html cannot be written: Is a directory"),
        ([one], tmp_path / "other.html", "other.html is there, and no report; name another file"),
    ):
        with pytest.raises(InputError, match=words):
            report(directories, to)
    assert {path.name for path in tmp_path.iterdir()} == {"folder.html", "other.html"}
    assert (tmp_path / "other.html").read_text() == "<title>Mine</title>"


def test_the_command_says_what_is_missing_and_where_the_page_is(copied, tmp_path, monkeypatch, capsys):
    directory, _ = copied
    shutil.rmtree(directory / "checkpoints")
    out = tmp_path / "page.html"
    monkeypatch.setattr(sys, "argv", ["report", str(directory), "--out", str(out)])
    for _ in range(2):  # the second takes the first one's place
        assert main(sys.argv[1:]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1] == f"The page is {out}." and lines[-2].startswith("Note: Nothing is scored: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "run"]


def test_runs_of_one_name_are_told_apart_by_their_paths(copied, tmp_path):
    directory, _ = copied
    shutil.rmtree(directory / "checkpoints")
    for parent in ("a", "b"):
        shutil.copytree(directory, tmp_path / parent / "seed1")
    found = measured_of(tmp_path / "a" / "seed1", directory, tmp_path / "b" / "seed1")
    assert [run.name for run in found.runs] == [str(tmp_path / "a" / "seed1"), "run", str(tmp_path / "b" / "seed1")]
    labels = legend_labels(["runs/a/" + "l" * 30, "runs/b/" + "l" * 30, "_c"])  # their ends are the same
    assert labels == [f"1: …{'l' * 23}", f"2: …{'l' * 23}", "3: _c"]
    assert legend_labels(["a", "_c", "l" * 30]) == ["a", " _c", f"…{'l' * 23}"]


# In a browser --------------------------------------------------------------------------------------------------------


def test_the_page_is_readable_in_a_browser_at_the_width_of_a_phone_and_of_a_desk(trained):
    """With names that would like to be markup, and are wider than any screen."""
    folder, _ = trained
    with opened(folder / "both.html", (380, 1280)) as pages:
        for opened_page, problems in pages:
            assert problems == [] and opened_page.title() == f"Report: one, {HOSTILE}"
            assert_readable(opened_page, images=4 + 2 * (2 + 2 + 5), headings=8)
            opened_page.locator("summary").first.click()
            assert opened_page.get_by_text("embedding_dim: 4").first.is_visible()
            assert fits(opened_page)
