"""What must work, all at once in one data set, trained once and predicted once; and what must be refused.

Odd as it is, each row's score is the model's own, and nothing about the files' form can be seen in it.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic import ITEMS, MAX_HISTORY, items_of, merged, raw_config, samples, write_dataset

from mmctr_jax.config import parse_config
from mmctr_jax.data.cache import load_split
from mmctr_jax.errors import InputError
from mmctr_jax.prediction.predict import predict
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.runs.recorder import read_records
from mmctr_jax.training.loop import train

PARTS, ROWS, NEW_USER = 200, 230, 1000
UNSEEN = range(ITEMS - 5, ITEMS)  # items that no training row has
HISTORIES = [[], [3], list(range(1, MAX_HISTORY + 1)), list(range(1, 41)), [7] * 60, [UNSEEN[0], UNSEEN[1]]]


def with_column(table: pa.Table, name: str, values) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values, table[name].type))


def seen(table: pa.Table) -> pa.Table:
    """The rows, without the items of UNSEEN: item 1 in their place."""
    first = UNSEEN[0]
    histories = [[i if i < first else 1 for i in history] for history in table["item_seq"].to_pylist()]
    items = [i if i < first else 1 for i in table["item_id"].to_pylist()]
    return with_column(with_column(table, "item_seq", histories), "item_id", items)


def odd_histories(table: pa.Table) -> pa.Table:
    histories = [HISTORIES[i % len(HISTORIES)] for i in range(table.num_rows)]
    return with_column(table, "item_seq", histories)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """230 training rows in 200 parts, every third without rows; 7 to validate with; a test of unknown users."""
    folder = write_dataset(tmp_path_factory.mktemp("must_work") / "data")
    rng = np.random.default_rng(5)
    rows = seen(odd_histories(samples(rng, ROWS)))
    (folder / "train").mkdir()
    cuts = np.sort(rng.integers(0, ROWS, PARTS - PARTS // 3 - 2))  # some of these are without rows, too
    ends = iter([*cuts, ROWS])
    start = 0
    for i in range(PARTS):
        end = start if i % 3 == 1 else next(ends, ROWS)
        pq.write_table(rows.slice(start, end - start), folder / "train" / f"part-{i:05d}.parquet")
        start = end
    assert start == ROWS
    pq.write_table(seen(samples(rng, 7)), folder / "valid.parquet")
    test = odd_histories(pq.read_table(folder / "test.parquet"))
    test = with_column(test, "user_id", np.arange(NEW_USER, NEW_USER + test.num_rows))
    test = with_column(test, "item_id", [*UNSEEN, *test["item_id"].to_pylist()[len(UNSEEN) :]])
    pq.write_table(test, folder / "test.parquet")
    return folder


@pytest.fixture(scope="module")
def run(data):
    """(run directory, training's summary, prediction's result, predictions)"""
    train_folder = {"data": {"train": str(data / "train")}}
    config = merged(raw_config(data), train_folder | {"train": {"batch_size": 60, "eval_batch_size": 30, "epochs": 2}})
    summary = train(parse_config(config), data / "run")
    result = predict(data / "run", None, data / "out.parquet")
    return data / "run", summary, result, pq.read_table(data / "out.parquet")


def scores(run, folder, table: pa.Table) -> np.ndarray:
    pq.write_table(table, folder / "rows.parquet")
    return Predictor.load(run[0]).logits(folder / "rows.parquet")


def test_parts_with_and_without_rows_are_all_read(data, run):
    assert len(list((data / "train").iterdir())) == PARTS
    config = Predictor.load(run[0]).config
    split = load_split(data / "train", config.features, None, with_labels=True)
    lengths = np.diff(split.history_offsets)
    assert split.rows == ROWS and split.item.max() < UNSEEN[0] and split.history_values.max() < UNSEEN[0]
    assert {0, 1, MAX_HISTORY, 40, 60} <= set(lengths.tolist())


def test_batches_that_devices_do_not_divide_train_every_row(run):
    """60 rows to 8 devices, the last batch of 50: 4 steps an epoch; 7 rows to validate with."""
    directory, summary, _, _ = run
    assert summary.stopped_because == "2 epochs done" and summary.steps == 8
    records = read_records(directory / "metrics.jsonl")
    assert all(np.isfinite(r["loss"]) for r in records if "loss" in r)
    assert 0 <= summary.validation["auc"] <= 1


def test_every_row_of_unknown_users_and_items_has_a_score(data, run):
    test, (_, _, result, out) = pq.read_table(data / "test.parquet"), run
    assert result["rows"] == out.num_rows == test.num_rows
    assert out["user_id"].to_pylist() == list(range(NEW_USER, NEW_USER + test.num_rows))
    assert out["item_id"].to_pylist()[:5] == list(UNSEEN)
    assert ((out["score"].to_numpy() > 0) & (out["score"].to_numpy() < 1)).all()


def test_of_a_long_history_the_most_recent_clicks_count(data, run, tmp_path):
    test = pq.read_table(data / "test.parquet")
    histories = test["item_seq"].to_pylist()
    assert max(map(len, histories)) > MAX_HISTORY
    recent = scores(run, tmp_path, with_column(test, "item_seq", [h[-MAX_HISTORY:] for h in histories]))
    whole = scores(run, tmp_path, test)
    np.testing.assert_array_equal(recent, whole)
    np.testing.assert_allclose(run[3]["score"].to_numpy(), 1 / (1 + np.exp(-whole.astype(np.float64))), rtol=1e-6)
    oldest = scores(run, tmp_path, with_column(test, "item_seq", [h[:MAX_HISTORY] for h in histories]))
    long = np.array([len(set(h)) > MAX_HISTORY for h in histories])
    assert (oldest != whole)[long].any() and (oldest == whole)[~long].all()


def test_empty_and_single_histories_score_alike_in_any_batch(data, run, tmp_path):
    test = pq.read_table(data / "test.parquet")
    whole = scores(run, tmp_path, test)
    short = [i for i, h in enumerate(test["item_seq"].to_pylist()) if len(h) < 2]
    np.testing.assert_allclose(scores(run, tmp_path, test.take(short)), whole[short], atol=1e-6)
    np.testing.assert_allclose(scores(run, tmp_path, test.slice(short[0], 1)), whole[short[:1]], atol=1e-6)


def test_items_without_tags_are_among_targets_and_clicks(data, run):
    tags = pq.read_table(data / "item_info.parquet")["item_tags"].to_pylist()
    untagged = {i for i in range(1, ITEMS) if not tags[i]}
    test = pq.read_table(data / "test.parquet")
    assert untagged & set(test["item_id"].to_pylist()) and untagged & {
        i for h in test["item_seq"].to_pylist() for i in h
    }


BEYOND = [2**31 - 1, 2**31, 2**32 + 1, 2**53 + 1, 2**63 - 1]


@pytest.mark.parametrize("number", BEYOND)
@pytest.mark.parametrize("column", ["item_seq", "item_id", "likes_level"])
def test_an_id_that_does_not_fit_is_refused_in_rows(data, tmp_path, column, number):
    table = pq.read_table(data / "train.parquet").slice(0, 3)
    values = table[column].to_pylist()
    values[1] = [1, number] if column == "item_seq" else number
    pq.write_table(with_column(table, column, values), tmp_path / "rows.parquet")
    features = items_of(parse_config(raw_config(data))).features
    with pytest.raises(InputError, match=rf"rows.parquet: column {column}, row 1: id {number}; .* ids 0 … \d+\.$"):
        load_split(tmp_path / "rows.parquet", features, None, with_labels=True)


def train_with(data, folder, column: str, values: list, kind: pa.DataType, feature: dict) -> None:
    """Trains with a column of item_info replaced."""
    table = pq.read_table(data / "item_info.parquet").drop_columns(column if column == "item_tags" else [])
    names = [name for name in table.column_names if name != column]
    table = table.select(names).append_column(column, pa.array(values, kind))
    pq.write_table(table, folder / "item_info.parquet")
    change = {"data": {"item_info": str(folder / "item_info.parquet")}, "features": {"item_features": [feature]}}
    train(parse_config(merged(raw_config(data), change)), folder / "run")


@pytest.mark.parametrize("number", [*BEYOND, 2**31 - 2])
@pytest.mark.parametrize("column", ["item_tags", "category", "item_id"])
def test_an_id_that_is_none_is_refused_in_items(data, tmp_path, column, number):
    """Also the largest that fits 32 bits: its table would have two billion rows."""
    feature = {"item_tags": {"kind": "tags", "name": column}, "category": {"kind": "categorical", "name": column}}
    values = [[0]] * 2 + [[number]] * (ITEMS - 2) if column == "item_tags" else [*range(ITEMS - 1), number]
    kind = pa.list_(pa.int64()) if column == "item_tags" else pa.int64()
    with pytest.raises(InputError) as error:
        train_with(data, tmp_path, column, values, kind, feature.get(column, {"kind": "tags", "name": "item_tags"}))
    message = str(error.value)
    if number < 2**31 - 1 and column != "item_id":
        assert f"table of {column} would have 2,147,483,647 ids" in message and "GiB" in message
    else:
        assert "item_info.parquet" in message and str(number) in message
    assert message.isprintable() and not (tmp_path / "run").exists()


def test_a_stated_vocabulary_beyond_memory_is_refused(data, tmp_path):
    raw = merged(raw_config(data), {"features": {"side": [{"name": "likes_level", "vocab_size": 2**31 - 1}]}})
    with pytest.raises(InputError, match="table of likes_level would have 2,147,483,647 ids"):
        train(parse_config(raw), tmp_path / "run")
    assert not (tmp_path / "run").exists()
