import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_files import BAD_ITEMS, TAGS, VECTORS, item_table
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from synthetic import SYSTEMS, items_of, raw_config, write_dataset

from mmctr_jax.config import parse_config
from mmctr_jax.data.items import load_items
from mmctr_jax.data.kept import mapped_npz
from mmctr_jax.devices.sharding import make_mesh, put_items
from mmctr_jax.errors import InputError
from mmctr_jax.features import Features
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.training.loop import train

TABLE = {
    "item_features": [
        {"kind": "tags", "name": "item_tags"},
        {"kind": "embedding", "name": "vector", "dim": 2},
        {"kind": "categorical", "name": "category"},
    ]
}


def load(tmp_path, data, **features):
    pq.write_table(data, tmp_path / "item_info.parquet")
    features = TABLE | features
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


def test_what_another_process_kept_is_mapped_and_not_read_again(tmp_path):
    """By its key: the file is not even looked into. Where the cache folder is another one, it is read."""
    pq.write_table(item_table(), tmp_path / "item_info.parquet")
    raw = {"data": {"train": "t", "valid": "v", "item_info": "i"}, "features": TABLE}
    features = parse_config(raw).features
    first = load_items(tmp_path / "item_info.parquet", features, tmp_path / "cache")
    (tmp_path / "item_info.parquet").write_bytes(b"no table")
    again = load_items(tmp_path / "item_info.parquet", features, tmp_path / "cache", key=first.key)
    check(again.features, again.table)
    assert (again.fingerprint, again.key) == (first.fingerprint, first.key)
    with pytest.raises(InputError, match="item_info.parquet"):
        load_items(tmp_path / "item_info.parquet", features, tmp_path / "elsewhere", key=first.key)


def test_a_kept_table_that_is_damaged_is_built_anew(tmp_path):
    pq.write_table(item_table(), tmp_path / "item_info.parquet")
    features = parse_config({"data": {"train": "t", "valid": "v", "item_info": "i"}, "features": TABLE}).features
    kept = load_items(tmp_path / "item_info.parquet", features, tmp_path / "cache").table["vector"]
    (file,) = [f for f in (tmp_path / "cache").rglob("*.bin") if f.read_bytes() == kept.tobytes()]
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    again = load_items(tmp_path / "item_info.parquet", features, tmp_path / "cache")
    check(again.features, again.table)


def test_reading_a_table_takes_little_memory(tmp_path):
    """Its ids and some chunks of its rows, which may stand in any order; never the whole."""
    rows, dim = 2**18, 64
    ids = np.random.default_rng(0).permutation(rows)
    vectors = np.where(ids[:, None] == 0, 0, ids[:, None] + np.arange(dim, dtype=np.float32) / dim).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
    pq.write_table(pa.table({"item_id": ids, "vector": column}), tmp_path / "items.parquet", row_group_size=2**12)
    del vectors, column
    features = Features(side=(), item_features=({"kind": "embedding", "name": "vector", "dim": dim},))
    tracemalloc.start()
    table = load_items(tmp_path / "items.parquet", features, tmp_path / "cache").table["vector"]
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert table.nbytes == 2**26 and most < 0.7 * table.nbytes
    assert (table[1:, 0] == np.arange(1, rows)).all()


class OnlyParts:
    """An array of which only parts can be had, each at most an eighth of 5,120."""

    def __init__(self, values):
        self.values, self.shape = values, values.shape

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        assert len(self.values[index]) <= 640
        return self.values[index]


def test_each_device_reads_its_part_of_the_table():
    """Eight devices, and rows that they do not divide: the last one's part is filled up."""
    values = np.arange(5000 * 4, dtype=np.float32).reshape(5000, 4)
    raw = {"data": {"train": "t", "valid": "v", "item_info": "i"}, "train": {"sharding": "fsdp"}}
    on_devices = put_items({"vector": OnlyParts(values)}, make_mesh(), parse_config(raw))["vector"]
    assert len(on_devices.addressable_shards) == 8 and on_devices.shape == (5120, 4)
    whole = np.asarray(on_devices)
    assert np.array_equal(whole[:5000], values) and not whole[5000:].any()


@given(
    st.dictionaries(
        st.text("abc/", min_size=1, max_size=6),
        arrays(
            st.sampled_from([np.float32, np.float16, np.int32, np.int64, np.uint8]),
            array_shapes(min_dims=0, max_dims=3, min_side=0),
        ),
        max_size=4,
    ),
    st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_maps_of_an_npz_are_what_numpy_reads(tmp_path_factory, tables, by_column):
    file = tmp_path_factory.mktemp("npz") / "items.npz"
    np.savez(file, **{name: np.asfortranarray(x) if by_column else x for name, x in tables.items()})
    mapped = mapped_npz(file)
    with np.load(file) as loaded:
        assert set(mapped) == set(loaded.files)
        for name in loaded.files:
            assert mapped[name].dtype == loaded[name].dtype and mapped[name].shape == loaded[name].shape
            np.testing.assert_array_equal(mapped[name], loaded[name])
