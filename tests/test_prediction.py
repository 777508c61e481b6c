"""Scoring a file: every row once, in order, with its ids; from the run directory alone."""

import shutil
import zipfile

import jax
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from synthetic import merged, model_of, raw_config, write_dataset

from mmctr_jax.config import parse_config
from mmctr_jax.data.cache import load_split
from mmctr_jax.data.loader import pad_histories
from mmctr_jax.devices.sharding import make_mesh
from mmctr_jax.errors import InputError
from mmctr_jax.prediction.predict import predict
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.training.loop import train
from mmctr_jax.training.metrics import evaluate
from mmctr_jax.training.step import init_state


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory, and the only other thing that scoring may need: rows. What it was trained from is gone."""
    folder = tmp_path_factory.mktemp("prediction")
    data = write_dataset(folder / "training")
    config = merged(raw_config(data), {"train": {"epochs": 1}})
    train(parse_config(config), folder / "run")
    data.rename(folder / "elsewhere")
    return folder / "run", folder / "elsewhere"


def test_scores_are_the_models_row_by_row(run):
    """Against the model applied to all rows at once, without loader, cache, batches or devices."""
    directory, data = run
    predictor = Predictor.load(directory)
    config, items = RunDirectory(directory).read_config(), RunDirectory(directory).read_items()
    split = load_split(data / "test.parquet", config.features, None, with_labels=False)
    batch = {
        "history": pad_histories(split, np.arange(split.rows), config.model.max_history),
        "item": split.item,
        "side": split.side,
        "weight": np.ones(split.rows, np.float32),
    }
    like = init_state(config, items, make_mesh())
    with RunDirectory(directory).checkpoints() as checkpoints:
        _, params, _ = checkpoints.restore_best(like)
    expected = jax.jit(lambda p: model_of(config).apply({"params": p}, batch, items, train=False))(params)
    np.testing.assert_allclose(predictor.logits(data / "test.parquet"), expected, atol=1e-5)


def test_rows_keep_their_order_and_ids(run, tmp_path):
    directory, data = run
    table = pq.read_table(data / "test.parquet")
    order = np.random.default_rng(0).permutation(table.num_rows)
    pq.write_table(table.take(order), tmp_path / "shuffled.parquet")
    one = predict(directory, data / "test.parquet", tmp_path / "one.parquet")
    predict(directory, tmp_path / "shuffled.parquet", tmp_path / "two.parquet")
    one_rows, two_rows = pq.read_table(tmp_path / "one.parquet"), pq.read_table(tmp_path / "two.parquet")
    assert one["rows"] == 90 and one_rows.column_names == ["ID", "user_id", "item_id", "score"]
    for name in ("ID", "user_id", "item_id"):
        assert one_rows[name].to_pylist() == table[name].to_pylist()
        assert two_rows[name].to_pylist() == table[name].take(order).to_pylist()
    np.testing.assert_allclose(two_rows["score"].to_numpy(), one_rows["score"].to_numpy()[order], atol=1e-6)
    assert one["metrics"] == {}


def test_a_folder_of_parts_and_a_whole_data_set(run, tmp_path):
    directory, data = run
    table = pq.read_table(data / "test.parquet")
    (tmp_path / "parts").mkdir()
    for i in range(9):
        pq.write_table(table.slice(10 * i, 10), tmp_path / "parts" / f"{i}.parquet")
    for source, out in (("test.parquet", "a"), (".", "b")):
        predict(directory, data / source, tmp_path / f"{out}.parquet")
    predict(directory, tmp_path / "parts", tmp_path / "c.parquet")
    a, b, c = (pq.read_table(tmp_path / f"{name}.parquet") for name in "abc")
    assert a.equals(b) and a.equals(c)


def test_text_ids_and_other_columns_pass(run, tmp_path):
    directory, data = run
    table = pq.read_table(data / "test.parquet")
    names = pa.array([f"user {u}" for u in table["user_id"].to_pylist()])
    table = table.set_column(table.column_names.index("user_id"), "user_id", names)
    pq.write_table(table.append_column("label", pa.array([0, 1] * 45)), tmp_path / "t.parquet")
    result = predict(directory, tmp_path / "t.parquet", tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet")["user_id"].to_pylist() == names.to_pylist()
    assert set(result["metrics"]) == {"auc", "logloss", "gauc"}


def test_metrics_where_labels_are_known(run, tmp_path):
    directory, data = run
    table = pq.read_table(data / "valid.parquet")
    result = predict(directory, data / "valid.parquet", tmp_path / "out.parquet")
    scores = pq.read_table(tmp_path / "out.parquet")["score"].to_numpy()
    logits = np.log(scores / (1 - scores))
    expected = evaluate(table["label"].to_numpy(), logits, table["user_id"].to_numpy())
    assert result["metrics"] == pytest.approx(expected, rel=1e-6)
    elsewhere = predict(directory, data / "test.parquet", tmp_path / "out.parquet", labels=data / "test_labels.parquet")
    assert 0 < elsewhere["metrics"]["auc"] < 1


def test_labels_that_do_not_fit(run, tmp_path):
    directory, data = run
    labels = pq.read_table(data / "test_labels.parquet")
    for name, table, words in (
        ("few", labels.slice(1), "89 labels for 90 rows"),
        ("turned", labels.take(np.arange(89, -1, -1)), "ID column is not that of the scored file"),
        ("none", labels.drop_columns("label"), "column label is missing"),
    ):
        pq.write_table(table, tmp_path / f"{name}.parquet")
        with pytest.raises(InputError, match=words):
            predict(directory, data / "test.parquet", tmp_path / "out.parquet", labels=tmp_path / f"{name}.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_unusable_labels_in_the_file_cost_the_metrics_not_the_scores(run, tmp_path):
    directory, data = run
    table = pq.read_table(data / "test.parquet")
    pq.write_table(table.append_column("label", pa.nulls(90, pa.int64())), tmp_path / "t.parquet")
    assert predict(directory, tmp_path / "t.parquet", tmp_path / "out.parquet")["metrics"] == {}


def test_unusable_users_cost_grouped_auc_alone(run, tmp_path):
    directory, data = run
    table = pq.read_table(data / "valid.parquet")
    known = table["user_id"].to_pylist()
    usable = {"auc", "gauc", "logloss"}
    for users, metrics in (
        (pa.array([[user] for user in known]), usable - {"gauc"}),
        (pa.array([None, *known[1:]]), usable),
    ):
        changed = table.set_column(table.column_names.index("user_id"), "user_id", users)
        pq.write_table(changed, tmp_path / "t.parquet")
        assert set(predict(directory, tmp_path / "t.parquet", tmp_path / "out.parquet")["metrics"]) == metrics


def test_an_output_never_replaces_an_input(run, tmp_path):
    directory, data = run
    for name in ("test.parquet", "test_labels.parquet"):
        (tmp_path / name).write_bytes((data / name).read_bytes())
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    for out in before:
        with pytest.raises(InputError, match="would overwrite"):
            predict(directory, tmp_path / "test.parquet", out, labels=tmp_path / "test_labels.parquet")
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_an_output_that_is_a_link_stays_one(run, tmp_path):
    directory, data = run
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out.parquet").symlink_to(tmp_path / "elsewhere" / "scores.parquet")
    predict(directory, data / "test.parquet", tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet").is_symlink()
    assert (
        pq.read_table(tmp_path / "elsewhere" / "scores.parquet").num_rows
        == pq.read_table(data / "test.parquet").num_rows
    )
    (tmp_path / "nowhere.parquet").symlink_to(tmp_path / "absent" / "scores.parquet")
    with pytest.raises(InputError, match="absent for the output does not exist"):
        predict(directory, data / "test.parquet", tmp_path / "nowhere.parquet")


def test_a_damaged_item_table_is_refused(run, tmp_path):
    directory, data = run
    shutil.copytree(directory, tmp_path / "run")
    items = RunDirectory(directory).read_items()
    for broken in ({n: v[:6] for n, v in items.items()}, {"item_tags": items["item_tags"]}, {}):
        np.savez(tmp_path / "run" / "items.npz", **{f"feature/{n}": v for n, v in broken.items()})
        with pytest.raises(InputError, match="items.npz is missing or damaged"):
            predict(tmp_path / "run", data / "test.parquet", tmp_path / "out.parquet")
    (tmp_path / "run" / "metadata.json").write_text("{}")
    with pytest.raises(InputError, match="metadata.json is missing or damaged"):
        predict(tmp_path / "run", data / "test.parquet", tmp_path / "out.parquet")


def test_scores_that_are_not_finite_are_not_delivered(run, tmp_path, monkeypatch):
    directory, data = run
    monkeypatch.setattr(Predictor, "all_logits", lambda self, path: np.full(90, np.nan, np.float32))
    with pytest.raises(InputError, match="row 0 a score that is not finite"):
        predict(directory, data / "test.parquet", tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_csv_and_submission(run, tmp_path):
    directory, data = run
    for name, task in (("p.parquet", None), ("p.csv", None), ("p.zip", "Task1&2")):
        predict(directory, data / "test.parquet", tmp_path / name, task)
    scores = pq.read_table(tmp_path / "p.parquet")["score"].to_numpy()
    csv = pyarrow.csv.read_csv(tmp_path / "p.csv")
    assert csv.column_names == ["ID", "user_id", "item_id", "score"]
    np.testing.assert_array_equal(csv["score"].to_numpy(), scores)
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        assert archive.namelist() == ["prediction.csv"]
        lines = archive.read("prediction.csv").decode().splitlines()
    assert lines[0] == "ID,Task1&2" and len(lines) == 91
    assert lines[1].split(",")[0] == "0" and float(lines[1].split(",")[1]) == scores[0]


def test_a_submission_numbers_rows_that_have_no_id(run, tmp_path):
    directory, data = run
    pq.write_table(pq.read_table(data / "test.parquet").drop_columns("ID"), tmp_path / "t.parquet")
    predict(directory, tmp_path / "t.parquet", tmp_path / "p.zip", "Task2")
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        assert [line.split(",")[0] for line in archive.read("prediction.csv").decode().splitlines()[1:]] == [
            str(i) for i in range(90)
        ]


def test_what_is_refused(run, tmp_path):
    directory, data = run
    test = data / "test.parquet"
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ((directory, test, tmp_path / "p.txt"), "must end in"),
        ((directory, test, tmp_path / "p.zip"), "--task"),
        ((directory, test, tmp_path / "p.csv", "Task1"), "--task"),
        ((directory, test, tmp_path / "no" / "p.csv"), "does not exist"),
        ((tmp_path / "empty", test, tmp_path / "p.csv"), "not a run directory"),
        ((directory, data / "nowhere.parquet", tmp_path / "p.csv"), "does not exist"),
        ((directory, None, tmp_path / "p.csv"), "does not exist"),  # the config's test file has moved
        ((directory, data / "item_info.parquet", tmp_path / "p.csv"), "is missing"),
    ):
        with pytest.raises(InputError, match=words):
            predict(*arguments)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty"]
