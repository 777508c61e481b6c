import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_files import BAD_ITEMS, TAGS, VECTORS, item_table
from synthetic import SYSTEMS, items_of, raw_config, write_dataset

from mmctr_jax.config import parse_config
from mmctr_jax.errors import InputError
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.training.loop import train


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


def sixteen(**vectors):
    return [{"kind": "embedding", "name": "vector", "dim": 2, "bits": 16, **vectors}]


def test_sixteen_bits_hold_half_the_bytes_and_refuse_what_they_cannot_hold(tmp_path):
    _, items = load(tmp_path, item_table(), item_features=sixteen())
    assert items["vector"].dtype == np.float16 and np.array_equal(items["vector"], np.float16(VECTORS))
    large = np.where(np.arange(10).reshape(5, 2) == 6, 1e5, VECTORS)
    table = item_table(vector=pa.array(large.tolist(), pa.list_(pa.float32())))
    with pytest.raises(InputError, match=r"column vector, row 3: a number beyond 65,504 in the vector"):
        load(tmp_path, table, item_features=sixteen())


@pytest.mark.slow
@pytest.mark.parametrize("system", ["matching", "similarity"])
def test_vectors_in_sixteen_bits_train_as_vectors_that_were_rounded_so(tmp_path, system):
    data, scores = write_dataset(tmp_path / "data"), {}
    for name, bits in (("exact", 32), ("rounded", 32), ("sixteen", 16)):
        if name == "rounded":
            items = pq.read_table(data / "item_info.parquet")
            at = items.schema.get_field_index("item_emb_d8")
            rounded = [np.float16(vector).astype(np.float32) for vector in items["item_emb_d8"].to_pylist()]
            items = items.set_column(at, "item_emb_d8", pa.array(rounded, pa.list_(pa.float32())))
            pq.write_table(items, data / "item_info.parquet")
        raw = raw_config(data)
        if system == "matching":
            raw["model"] = SYSTEMS[system]["model"]
        else:
            raw["model"]["transformer"]["similarity"], raw["model"]["dcn"]["similarity_bins"] = True, 4
        raw["features"]["item_features"][1]["bits"] = bits
        raw["train"]["epochs"] = 1
        train(parse_config(raw), tmp_path / name)
        scores[name] = Predictor.load(tmp_path / name).logits(data / "valid.parquet")
    np.testing.assert_allclose(scores["sixteen"], scores["rounded"], rtol=1e-5, atol=1e-5)
    assert np.abs(scores["sixteen"] - scores["exact"]).max() > 1e-4
