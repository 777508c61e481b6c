"""Lists of very different lengths in the item table: held in what their ids take, and the model is the same."""

from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batches import make_batch, make_items
from hypothesis import given
from hypothesis import strategies as st
from marks import slow
from same_run import assert_same_run
from synthetic import ITEMS, QUICK, TAGS, merged, raw_config, resolved_config, write_dataset
from test_training import StopAt

from mmctr_jax.config import parse_config
from mmctr_jax.data.items import load_items, with_new_items
from mmctr_jax.data.parquet import Column
from mmctr_jax.devices.sharding import make_mesh, put_batch, put_items
from mmctr_jax.errors import InputError
from mmctr_jax.export.request import item_arrays
from mmctr_jax.features import lists
from mmctr_jax.features.tags import TagsFeature
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.training import loop as training
from mmctr_jax.training.loop import train
from mmctr_jax.training.step import init_state, make_predicting, make_train_step

IDS = st.integers(0, 30)
LISTS = st.lists(
    st.lists(IDS, max_size=6) | st.integers(20, 300).flatmap(lambda n: st.just([1 + n % 30] * n)), min_size=1
)


def in_arrays(rows: list[list[int]]) -> lists.Lists:
    offsets = np.cumsum([0, *map(len, rows)])
    return np.array([id for row in rows for id in row], np.int32), offsets.astype(np.int64)


def as_rows(found: lists.Lists) -> list[list[int]]:
    ids, offsets = found
    return [ids[start:end].tolist() for start, end in zip(offsets, offsets[1:], strict=False)]


def real(rows):
    return [[id for id in row if id] for row in rows]


@given(LISTS)
def test_a_table_holds_all_ids_in_few_more_numbers_than_they_are(rows):
    table = lists.held("tags", in_arrays(rows))
    assert as_rows(lists.of(table, "tags")) == real(rows)
    ids = sum(map(len, real(rows)))
    assert sum(array.size for array in table.values()) <= max(16 * len(rows), 5 * ids + 3 * len(rows))
    assert all(array.dtype == np.int32 for array in table.values())


@given(LISTS, LISTS, st.integers(1, 9), st.randoms())
def test_what_is_made_of_lists_is_what_python_makes_of_them(rows, others, length, random):
    found, more = in_arrays(rows), in_arrays(others)
    assert as_rows(lists.cut(found, length)) == [row[:length] for row in rows]
    assert as_rows(lists.joined([found, more])) == rows + others
    assert as_rows(lists.without_padding(found)) == real(rows)
    start = random.randrange(len(rows) + 1)
    assert as_rows(lists.between(found, start, len(rows))) == rows[start:]
    at = random.sample(range(len(rows) + 3), len(rows))
    assert as_rows(lists.by_row(found, np.array(at), len(rows) + 3)) == [
        rows[at.index(row)] if row in at else [] for row in range(len(rows) + 3)
    ]
    changed = [random.choice([row, [*row, 5], [*row[:-1], 31], row[::-1]]) for row in rows]
    assert lists.differ(found, in_arrays(changed)).tolist() == [a != b for a, b in zip(rows, changed, strict=True)]


def test_a_column_padded_to_one_length_is_as_wide_as_most_of_its_lists():
    rows = [[1, 2, 0, 0] + [0] * 96, [3] + [0] * 99] * 10
    table = lists.held("tags", in_arrays(rows))
    assert {name: array.shape for name, array in table.items()} == {"tags": (20, 2)}


def test_memory_is_that_of_the_ids_with_one_long_list_among_many(tmp_path):
    rows = [[]] + [[1, 2, 3]] * 200_000
    rows[6] = list(range(1, 20_001))
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": np.arange(len(rows)), "item_tags": pa.array(rows)}), path)
    features = parse_config({"data": {"train": "t", "valid": "v", "item_info": str(path)}}).features
    features = features.model_copy(update={"item_features": (TagsFeature(name="item_tags"),)})
    found = load_items(path, features, tmp_path / "cache")
    assert sum(array.nbytes for array in found.table.values()) < 8 * 620_000
    assert as_rows(lists.of(found.table, "item_tags"))[6] == rows[6]
    assert found.features.table_sizes["item_tags"] == 20_001
    again = load_items(path, features, tmp_path / "cache")
    assert again.fingerprint == found.fingerprint


def test_a_length_still_says_how_many_count():
    rows = [[]] + [[1]] * 1000 + [list(range(1, 500))]
    column = Column(Path("f"), "tags", 0, pa.array(rows))
    capped = TagsFeature(name="tags", length=4)
    table = capped.held([capped.read(column)], np.arange(len(rows)), len(rows))
    assert table["tags"][-1].tolist() == [1, 2, 3, 4]
    longer = TagsFeature(name="tags", length=40)
    table = longer.held([longer.read(column)], np.arange(len(rows)), len(rows))
    assert as_rows(longer.of(table))[-1] == list(range(1, 41))


def test_names_of_the_arrays_are_no_other_features():
    tags = [{"kind": "tags", "name": "a"}, {"kind": "categorical", "name": "a/rest"}]
    raw = {"data": {"train": "t", "valid": "v", "item_info": "i"}, "features": {"item_features": tags}}
    with pytest.raises(InputError, match="cannot list 'a/rest' beside the tags"):
        parse_config(raw)


# In the model: an array as wide as the longest list is the oracle


def with_long_lists(rng):
    """The items' table as one array, and as it is held."""
    items = make_items(rng)
    rows = [[1 + id % 4 for id in row] for row in real(items["item_tags"].tolist())]
    # All other ids are in long lists alone.
    for item, length in ((3, 90), (7, 2000), (8, 17), (ITEMS - 1, 40)):
        rows[item] = rng.integers(1, TAGS, length).tolist()
    found = in_arrays(rows)
    whole = {"item_tags": lists.first(found, 2000), "item_emb_d8": items["item_emb_d8"]}
    held = {"item_emb_d8": items["item_emb_d8"]} | lists.held("item_tags", found)
    assert held["item_tags"].shape[1] < 5 and len(held["item_tags/rest"]) > 2000
    return whole, held


def long_batches(count=4):
    rng = np.random.default_rng(1)
    batches = [make_batch(rng) for _ in range(count)]
    for batch in batches[:-1]:  # the last one names none
        batch["item"][:3] = 3, 7, 8
        batch["history"][0, -2:] = 7, ITEMS - 1
    batches[-1]["item"][:] = 1
    batches[-1]["history"][:] = np.where(batches[-1]["history"] > 0, 2, 0)
    return batches


def trained(change, items, devices=1):
    config, mesh = resolved_config(merged(QUICK, change)), make_mesh(jax.devices()[:devices])
    on_device = put_items(items, mesh, config)
    state, step, losses = init_state(config, on_device, mesh), make_train_step(config, mesh), []
    for batch in long_batches():
        state, metrics = step(state, put_batch(batch, mesh), on_device, np.float32(0.03))
        losses.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    return np.array(losses), jax.device_get(make_predicting(config, mesh)(state))


CHANGES = {
    "sgd": {"train": {"optimizer": {"name": "sgd"}}},
    "adam by rows": {"train": {"tables": {"optimizer": "adam"}, "weight_decay": {"tables": 0.1}}},
    "lazy adam": {"train": {"tables": {"optimizer": "lazy_adam"}, "ema": 0.9}},
    "sgd by rows": {"train": {"tables": {"optimizer": "sgd"}}},
}


@pytest.mark.parametrize("name", CHANGES)
def test_training_is_that_of_an_array_as_wide_as_the_longest_list(name):
    whole, held = with_long_lists(np.random.default_rng(0))
    losses, params = trained(CHANGES[name], whole)
    again, same = trained(CHANGES[name], held)
    np.testing.assert_allclose(again, losses, rtol=2e-5)
    np.testing.assert_allclose(same["embedding"]["item_tags"], params["embedding"]["item_tags"], rtol=0, atol=2e-5)
    assert not same["embedding"]["item_tags"][0].any()


@pytest.mark.parametrize(
    ("name", "sharding"),
    [("sgd", "replicated"), slow("lazy adam", "fsdp"), slow("sgd", "fsdp"), slow("lazy adam", "replicated")],
)
def test_eight_devices_train_as_one(name, sharding):
    _, held = with_long_lists(np.random.default_rng(0))
    change = merged(CHANGES[name], {"train": {"sharding": sharding}})
    losses, params = trained(change, held)
    again, same = trained(change, held, devices=8)
    np.testing.assert_allclose(again, losses, rtol=2e-5)
    for a, b in zip(jax.tree.leaves(same["embedding"]), jax.tree.leaves(params["embedding"]), strict=True):
        np.testing.assert_allclose(a[: len(b)], b[: len(a)], rtol=0, atol=5e-5)


# From files


def files_with_long_lists(folder, more=0):
    """The made-up data, some items with very many tags, and so many items more, the last with many, too."""
    write_dataset(folder)
    table = pq.read_table(folder / "item_info.parquet")
    rows = table["item_tags"].to_pylist()
    rng = np.random.default_rng(5)
    rows[7], rows[20] = rng.integers(1, TAGS, 300).tolist(), rng.integers(1, TAGS, 30).tolist()
    vectors = table["item_emb_d8"].to_pylist()
    for i in range(more):
        rows.append(rng.integers(1, TAGS + 2, 50).tolist() if i == more - 1 else [1])
        vectors.append(vectors[1])
    columns = {"item_id": np.arange(len(rows)), "item_tags": rows, "item_emb_d8": vectors}
    order = rng.permutation(len(rows))
    pq.write_table(pa.table(columns).take(order), folder / f"items{more}.parquet")
    return folder / f"items{more}.parquet"


def test_a_run_is_resumed_scored_with_new_items_and_exported(tmp_path, monkeypatch):
    path = files_with_long_lists(tmp_path / "data")
    newer = files_with_long_lists(tmp_path / "data", more=3)
    raw = merged(raw_config(tmp_path / "data"), QUICK | {"data": {"item_info": str(path)}})
    config = parse_config(raw)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(config, whole)
    monkeypatch.setattr(training, "Interrupt", lambda: StopAt(3))
    train(config, killed)
    monkeypatch.undo()
    train(config, killed, resume=True)
    assert_same_run(whole, killed)

    items = RunDirectory(whole).read_items()
    assert items["item_tags"].shape[1] < 10 and "item_tags/rest" in items
    table, count, _ = with_new_items(RunDirectory(whole).read_config().features, items, {}, newer)
    rows = as_rows(lists.of(table, "item_tags"))
    assert count == len(rows) == ITEMS + 3 and len(rows[7]) == 300 and rows[-2] == [1]
    assert 0 < len(rows[-1]) < 50  # tags that training did not have are left out

    predictor, updated = Predictor.load(whole), Predictor.load(whole, item_info=newer)
    rows = {"item_seq": [[7, 20], [3]], "item_id": [20, 7], "likes_level": [1, 2], "views_level": [3, 4]}
    np.testing.assert_allclose(predictor.score(rows), updated.score(rows), rtol=1e-6)
    with_new = {"item_seq": [[ITEMS + 2, 7]], "item_id": [ITEMS + 2], "likes_level": [1], "views_level": [3]}
    assert np.isfinite(updated.score(with_new)).all()

    # What an export holds of the items
    config, params, table = updated.config, updated.params, updated.table
    padded = table | {"item_tags": lists.first(lists.of(table, "item_tags"), 300)}
    padded = {name: array for name, array in padded.items() if not name.endswith((lists.BEYOND, lists.REST))}
    held, expected = (item_arrays(config, params, of, count)["item_vectors"] for of in (table, padded))
    np.testing.assert_allclose(held, expected, rtol=1e-5, atol=1e-6)
