"""Parquet as people have it: every variation gives the same arrays, every fault one sentence with file, column, row."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_files import BAD_SAMPLES, HISTORIES, sample_table
from synthetic import ITEMS

from mmctr_jax.config import parse_config
from mmctr_jax.data.cache import load_split
from mmctr_jax.data.parquet import batches, read_columns
from mmctr_jax.errors import InputError

FEATURES = parse_config(
    {"data": {"train": "t", "valid": "v", "item_info": "i"}, "features": {"num_items": ITEMS, "item_features": []}}
).features


def read(tmp_path, data: pa.Table, with_labels=True, **options):
    pq.write_table(data, tmp_path / "rows.parquet", **options)
    return load_split(tmp_path / "rows.parquet", FEATURES, None, with_labels)


def left_padded(length):
    return [[0] * (length - len(h)) + h for h in HISTORIES]


VARIATIONS = {
    "ragged": sample_table(),
    "padded list": sample_table(item_seq=pa.array(left_padded(8), pa.list_(pa.int64()))),
    "fixed-size list": sample_table(item_seq=pa.array(left_padded(8), pa.list_(pa.int64(), 8))),
    "large list, int32": sample_table(item_seq=pa.array(HISTORIES, pa.large_list(pa.int32()))),
    "right-padded": sample_table(item_seq=pa.array([h + [0, 0] for h in HISTORIES], pa.list_(pa.int16()))),
    "narrow integers": sample_table(
        item_id=pa.array([7, 8, 9, 10], pa.uint8()), likes_level=pa.array([0, 1, 2, 10], pa.int8())
    ),
    "uint64": sample_table(item_id=pa.array([7, 8, 9, 10], pa.uint64())),
    "dictionary-encoded": sample_table(views_level=pa.array([3, 3, 3, 3]).dictionary_encode()),
    "float labels": sample_table(label=[0.0, 1.0, 1.0, 0.0]),
    "boolean labels": sample_table(label=[False, True, True, False]),
    "columns in another order, with others": sample_table(extra=["a", "b", "c", "d"]).select(
        ["label", "extra", "views_level", "likes_level", "item_id", "item_seq"]
    ),
}


@pytest.mark.parametrize("name", VARIATIONS)
@pytest.mark.parametrize("compression", ["zstd", "snappy", "none"])
def test_every_variation_gives_the_same_arrays(tmp_path, name, compression):
    split = read(tmp_path, VARIATIONS[name], compression=compression)
    assert split.history_values.tolist() == sum(HISTORIES, []) and split.history_values.dtype == np.int32
    assert split.history_offsets.tolist() == [0, 3, 3, 8, 9]
    assert split.item.tolist() == [7, 8, 9, 10]
    assert [x.tolist() for x in split.side.values()] == [[0, 1, 2, 10], [3, 3, 3, 3]]
    assert split.label.tolist() == [0, 1, 1, 0]


def test_a_folder_of_parts_is_one_table_in_name_order(tmp_path):
    whole = pa.concat_tables([sample_table(), sample_table(item_id=[11, 12, 13, 14])])
    folder = tmp_path / "parts"
    folder.mkdir()
    for i in range(whole.num_rows):
        pq.write_table(whole.slice(i, 1), folder / f"part-{i:03d}.parquet")
    pq.write_table(whole.slice(0, 0), folder / "part-004b.parquet")  # a shard without rows
    (folder / "_SUCCESS").touch()
    (folder / "_metadata.parquet").write_text("not a part")
    parts = load_split(folder, FEATURES, None, True)
    one = read(tmp_path, whole)
    for name in ("history_values", "history_offsets", "item", "label"):
        assert np.array_equal(getattr(parts, name), getattr(one, name)), name
    for name, values in one.side.items():
        assert np.array_equal(parts.side[name], values), name


def test_many_row_groups_and_chunks_are_one_table(tmp_path):
    rows = pa.concat_tables([sample_table()] * 40_000)
    split = read(tmp_path, rows, row_group_size=70_001)
    assert split.rows == 160_000 and split.item.sum() == 34 * 40_000
    assert np.array_equal(np.diff(split.history_offsets), np.tile([3, 0, 5, 1], 40_000))
    assert np.array_equal(split.history_values, np.tile(sum(HISTORIES, []), 40_000))


def test_labels_are_not_needed_for_scoring(tmp_path):
    assert read(tmp_path, sample_table(label=None), with_labels=False).label is None


@pytest.mark.parametrize("name", BAD_SAMPLES)
def test_a_fault_is_refused_in_one_sentence(tmp_path, name):
    data, words = BAD_SAMPLES[name]
    with pytest.raises(InputError) as error:
        read(tmp_path, data)
    message = str(error.value)
    assert "\n" not in message and "rows.parquet" in message
    for word in words:
        assert word in message


def test_rows_are_counted_over_the_whole_file(tmp_path):
    rows = pa.concat_tables([sample_table()] * 20_000).combine_chunks()
    labels = rows["label"].to_numpy().copy()
    labels[77_777] = 7
    with pytest.raises(InputError, match="row 77777: label 7"):
        read(tmp_path, rows.set_column(rows.schema.get_field_index("label"), "label", pa.array(labels)))


def test_files_that_are_not_there_or_not_parquet(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("item_id\n3\n")
    pq.write_table(sample_table(), tmp_path / "cut.parquet")
    whole = (tmp_path / "cut.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    for name, words in (
        ("nowhere.parquet", "does not exist"),
        ("long" * 100, "cannot be read"),
        ("empty", "holds no .parquet file"),
        ("text.parquet", "cannot be read as Parquet"),
        ("cut.parquet", "cannot be read as Parquet"),
    ):
        with pytest.raises(InputError, match=words):
            load_split(tmp_path / name, FEATURES, None, True)


def test_what_was_read_of_a_file_is_not_kept(tmp_path):
    """Arrow reads ahead all row groups that it was asked for, and keeps them."""
    rows, groups = 65_536, 12
    table = pa.table({"id": np.arange(rows * groups), "value": np.random.default_rng(0).random(rows * groups)})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=rows)
    before, whole = pa.default_memory_pool().bytes_allocated(), table.nbytes
    held = [
        pa.default_memory_pool().bytes_allocated() - before
        for _ in read_columns([tmp_path / "rows.parquet"], ["id", "value"])
    ]
    assert len(held) == groups
    assert max(held) < whole / 2


@pytest.mark.parametrize("sizes", [[5], [1, 1, 1, 1, 1], [2, 0, 3], [4, 1], []])
def test_row_groups_of_any_size_are_read_in_order(tmp_path, sizes):
    file, at = tmp_path / "rows.parquet", 0
    with pq.ParquetWriter(file, pa.schema([("id", pa.int64())])) as writer:
        for size in sizes:
            writer.write_table(pa.table({"id": np.arange(at, at + size)}))
            at += size
    found = list(batches(pq.ParquetFile(file), 2, ["id"]))
    assert [i for batch in found for i in batch.column("id").to_pylist()] == list(range(sum(sizes)))
    assert all(len(batch) <= 2 for batch in found)
