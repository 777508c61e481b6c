import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_files import BAD_ITEMS, TAGS, VECTORS, item_table
from synthetic import items_of

from mmctr_jax.config import parse_config
from mmctr_jax.errors import InputError


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
    items = items_of(parse_config(raw))
    return items.features, items.table


def check(features, items):
    assert features.num_items == 5
    assert [getattr(f, "vocab_size", None) for f in features.item_features] == [6, None, 4]
    assert [sorted(t for t in row if t) for row in items["item_tags"].tolist()] == [sorted(t) for t in TAGS]
    assert np.array_equal(items["vector"], VECTORS) and items["vector"].dtype == np.float32
    assert items["category"].tolist() == [0, 2, 1, 1, 3]


def test_variations_give_the_same_table(tmp_path):
    check(*load(tmp_path, item_table()))
    check(*load(tmp_path, item_table().take([3, 0, 4, 2, 1])))  # unsorted
    check(*load(tmp_path, item_table().slice(1)))  # no padding row
    padded = pa.array([[0] * (5 - len(t)) + t for t in TAGS], pa.list_(pa.int32(), 5))
    check(*load(tmp_path, item_table(item_tags=padded, vector=pa.array(VECTORS, pa.list_(pa.float32(), 2)))))


def test_a_larger_vocabulary_may_be_stated(tmp_path):
    tags = [{"kind": "tags", "name": "item_tags", "vocab_size": 100}]
    features, items = load(tmp_path, item_table(), item_features=tags, num_items=5)
    assert features.item_features[0].vocab_size == 100 and set(items) == {"item_tags"}


def test_without_item_features_the_items_are_still_counted(tmp_path):
    features, items = load(tmp_path, item_table(), item_features=[])
    assert features.num_items == 5 and items == {}


@pytest.mark.parametrize("name", BAD_ITEMS)
def test_a_fault_is_refused_in_one_sentence(tmp_path, name):
    data, features, words = BAD_ITEMS[name]
    with pytest.raises(InputError) as error:
        load(tmp_path, data, **features)
    assert "\n" not in str(error.value)
    for word in ["item_info.parquet", *words]:
        assert word in str(error.value)
