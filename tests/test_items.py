import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmctr_jax.config.schema import parse_config
from mmctr_jax.data.items import load_items
from mmctr_jax.errors import InputError

TAGS = [[], [3], [5, 1], [], [2, 2, 4]]
VECTORS = [[0, 0], [0.5, -1], [2, 3], [4, 5], [6, 7]]


def table(**changes) -> pa.Table:
    columns = {
        "item_id": [0, 1, 2, 3, 4],
        "item_tags": pa.array(TAGS, pa.list_(pa.int64())),
        "vector": pa.array(VECTORS, pa.list_(pa.float64())),
        "category": [0, 2, 1, 1, 3],
    }
    columns |= changes
    return pa.table({name: values for name, values in columns.items() if values is not None})


def load(tmp_path, data, **features):
    pq.write_table(data, tmp_path / "item_info.parquet")
    features = {
        "item_features": [
            {"kind": "tags", "name": "item_tags"},
            {"kind": "embedding", "name": "vector", "dim": 2},
            {"kind": "categorical", "name": "category"},
        ],
        **features,
    }
    raw = {"data": {"train": "t", "valid": "v", "item_info": str(tmp_path / "item_info.parquet")}, "features": features}
    items = load_items(parse_config(raw))
    return items.config, items.table


def check(config, items):
    assert config.features.num_items == 5
    assert [getattr(f, "vocab_size", None) for f in config.features.item_features] == [6, None, 4]
    assert [sorted(t for t in row if t) for row in items["item_tags"].tolist()] == [sorted(t) for t in TAGS]
    assert np.array_equal(items["vector"], VECTORS) and items["vector"].dtype == np.float32
    assert items["category"].tolist() == [0, 2, 1, 1, 3]


def test_variations_give_the_same_table(tmp_path):
    check(*load(tmp_path, table()))
    check(*load(tmp_path, table().take([3, 0, 4, 2, 1])))  # unsorted
    check(*load(tmp_path, table().slice(1)))  # no padding row
    padded = pa.array([[0] * (5 - len(t)) + t for t in TAGS], pa.list_(pa.int32(), 5))
    check(*load(tmp_path, table(item_tags=padded, vector=pa.array(VECTORS, pa.list_(pa.float32(), 2)))))


def test_a_larger_vocabulary_may_be_stated(tmp_path):
    features = [{"kind": "tags", "name": "item_tags", "vocab_size": 100}]
    config, items = load(tmp_path, table(), item_features=features, num_items=5)
    assert config.features.item_features[0].vocab_size == 100 and set(items) == {"item_tags"}


def test_without_item_features_the_items_are_still_counted(tmp_path):
    config, items = load(tmp_path, table(), item_features=[])
    assert config.features.num_items == 5 and items == {}


BAD = {
    "duplicate ids": (table(item_id=[0, 1, 2, 2, 4]), {}, ["item 2 stands in rows 2 and 3"]),
    "missing id": (table(item_id=[0, 1, 2, 3, 5]), {}, ["no row for item 4", "largest id is 5"]),
    "negative id": (table(item_id=[0, 1, 2, 3, -4]), {}, ["-4"]),
    "null id": (table(item_id=[0, 1, 2, 3, None]), {}, ["item_id, row 4", "null"]),
    "padding with a vector": (table(vector=pa.array([[1.0, 0.0], *VECTORS[1:]])), {}, ["item 0 is padding", "vector"]),
    "NaN": (table(vector=pa.array([*VECTORS[:4], [1.0, float("nan")]])), {}, ["vector, row 4", "NaN"]),
    "infinite": (table(vector=pa.array([*VECTORS[:4], [1.0, float("inf")]])), {}, ["vector, row 4", "infinite"]),
    "infinite in float32": (table(vector=pa.array([*VECTORS[:4], [1.0, 1e300]])), {}, ["vector, row 4", "float32"]),
    "null vector": (table(vector=pa.array([*VECTORS[:4], None])), {}, ["vector, row 4", "null"]),
    "null in a vector": (table(vector=pa.array([*VECTORS[:4], [1.0, None]])), {}, ["vector, row 4", "null"]),
    "short vector": (table(vector=pa.array([*VECTORS[:4], [1.0]])), {}, ["vector, row 4", "1 numbers", "dim is 2"]),
    "missing column": (table(category=None), {}, ["column category is missing"]),
    "tag column of text": (table(item_tags=pa.array([["a"]] * 5)), {}, ["item_tags has type"]),
    "negative tag": (table(item_tags=pa.array([[], [1], [-2], [], []])), {}, ["item_tags, row 2", "-2"]),
    "no rows": (table().slice(0, 0), {}, ["no rows"]),
    "another number of items": (table(), {"num_items": 6}, ["5 items", "num_items is 6"]),
    "tag beyond vocabulary": (
        table(),
        {"item_features": [{"kind": "tags", "name": "item_tags", "vocab_size": 4}]},
        ["item_tags, row 2", "id 5", "0 … 3"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_fault_is_refused_in_one_sentence(tmp_path, name):
    data, features, words = BAD[name]
    with pytest.raises(InputError) as error:
        load(tmp_path, data, **features)
    assert "\n" not in str(error.value)
    for word in ["item_info.parquet", *words]:
        assert word in str(error.value)
