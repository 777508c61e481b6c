"""Parquet as people have it: every variation gives the same arrays, every fault one sentence with file, column, row."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic import ITEMS

from mmctr_jax.config.schema import parse_config
from mmctr_jax.data.cache import load_split
from mmctr_jax.errors import InputError

FEATURES = parse_config(
    {"data": {"train": "t", "valid": "v", "item_info": "i"}, "features": {"num_items": ITEMS, "item_features": []}}
).features
HISTORIES = [[3, 1, 4], [], [1, 5, 9, 2, 6], [53]]


def table(**changes) -> pa.Table:
    columns = {
        "user_id": [1, 2, 3, 4],
        "item_seq": pa.array(HISTORIES, pa.list_(pa.int64())),
        "item_id": [7, 8, 9, 10],
        "likes_level": [0, 1, 2, 10],
        "views_level": [3, 3, 3, 3],
        "label": [0, 1, 1, 0],
    }
    columns |= changes
    return pa.table({name: values for name, values in columns.items() if values is not None})


def read(tmp_path, data: pa.Table, with_labels=True, **options):
    pq.write_table(data, tmp_path / "rows.parquet", **options)
    return load_split(tmp_path / "rows.parquet", FEATURES, None, with_labels)


def left_padded(length):
    return [[0] * (length - len(h)) + h for h in HISTORIES]


VARIATIONS = {
    "ragged": table(),
    "padded list": table(item_seq=pa.array(left_padded(8), pa.list_(pa.int64()))),
    "fixed-size list": table(item_seq=pa.array(left_padded(8), pa.list_(pa.int64(), 8))),
    "large list, int32": table(item_seq=pa.array(HISTORIES, pa.large_list(pa.int32()))),
    "right-padded": table(item_seq=pa.array([h + [0, 0] for h in HISTORIES], pa.list_(pa.int16()))),
    "narrow integers": table(
        item_id=pa.array([7, 8, 9, 10], pa.uint8()), likes_level=pa.array([0, 1, 2, 10], pa.int8())
    ),
    "uint64": table(item_id=pa.array([7, 8, 9, 10], pa.uint64())),
    "dictionary-encoded": table(views_level=pa.array([3, 3, 3, 3]).dictionary_encode()),
    "float labels": table(label=[0.0, 1.0, 1.0, 0.0]),
    "boolean labels": table(label=[False, True, True, False]),
    "columns in another order, with others": table(extra=["a", "b", "c", "d"]).select(
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
    assert split.side.tolist() == [[0, 3], [1, 3], [2, 3], [10, 3]]
    assert split.label.tolist() == [0, 1, 1, 0]


def test_a_folder_of_parts_is_one_table_in_name_order(tmp_path):
    whole = pa.concat_tables([table(), table(item_id=[11, 12, 13, 14])])
    folder = tmp_path / "parts"
    folder.mkdir()
    for i in range(whole.num_rows):
        pq.write_table(whole.slice(i, 1), folder / f"part-{i:03d}.parquet")
    pq.write_table(whole.slice(0, 0), folder / "part-004b.parquet")  # a shard without rows
    (folder / "_SUCCESS").touch()
    (folder / "_metadata.parquet").write_text("not a part")
    parts = load_split(folder, FEATURES, None, True)
    one = read(tmp_path, whole)
    for name in ("history_values", "history_offsets", "item", "side", "label"):
        assert np.array_equal(getattr(parts, name), getattr(one, name)), name


def test_many_row_groups_and_chunks_are_one_table(tmp_path):
    rows = pa.concat_tables([table()] * 40_000)
    split = read(tmp_path, rows, row_group_size=70_001)
    assert split.rows == 160_000 and split.item.sum() == 34 * 40_000
    assert np.array_equal(np.diff(split.history_offsets), np.tile([3, 0, 5, 1], 40_000))
    assert np.array_equal(split.history_values, np.tile(sum(HISTORIES, []), 40_000))


def test_labels_are_not_needed_for_scoring(tmp_path):
    assert read(tmp_path, table(label=None), with_labels=False).label is None


BAD = {
    "missing column": (table(views_level=None), ["column views_level is missing", "item_seq"]),
    "missing label": (table(label=None), ["column label is missing"]),
    "text ids": (table(item_id=["a", "b", "c", "d"]), ["column item_id has type string", "integer"]),
    "float ids": (table(item_id=[7.0, 8.0, 9.0, 10.0]), ["column item_id has type double"]),
    "scalar history": (table(item_seq=[1, 2, 3, 4]), ["column item_seq has type int64", "lists of integers"]),
    "history of floats": (table(item_seq=pa.array([[1.0]] * 4)), ["column item_seq has type list"]),
    "text labels": (table(label=["0", "1", "1", "0"]), ["column label has type string"]),
    "unknown target": (table(item_id=[7, 8, ITEMS, 10]), ["column item_id, row 2", f"id {ITEMS}"]),
    "negative target": (table(item_id=[7, -8, 9, 10]), ["column item_id, row 1", "id -8"]),
    "padding as target": (table(item_id=[7, 8, 9, 0]), ["column item_id, row 3", "padding"]),
    "unknown history id": (table(item_seq=pa.array([[1], [], [2, 60], [3]])), ["column item_seq, row 2", "id 60"]),
    "negative history id": (table(item_seq=pa.array([[1], [], [2], [3, -1]])), ["column item_seq, row 3", "id -1"]),
    "id beyond 2³¹": (table(item_id=[7, 8, 2**40, 10]), ["row 2", str(2**40)]),
    "id beyond 2⁶³": (table(item_id=pa.array([7, 8, 2**63 + 5, 10], pa.uint64())), ["row 2", "id 9223372036854775807"]),
    "level beyond vocabulary": (table(likes_level=[0, 11, 1, 1]), ["column likes_level, row 1", "id 11", "vocab_size"]),
    "label 2": (table(label=[0, 1, 2, 0]), ["column label, row 2", "label 2"]),
    "label 0.5": (table(label=[0, 1, 0.5, 0]), ["column label, row 2", "label 0.5"]),
    "label NaN": (table(label=[0, 1, float("nan"), 0]), ["column label, row 2", "nan"]),
    "null target": (table(item_id=[7, None, 9, 10]), ["column item_id, row 1", "null"]),
    "null history": (table(item_seq=pa.array([[1], None, [2], [3]])), ["column item_seq, row 1", "null"]),
    "null in history": (table(item_seq=pa.array([[1], [], [2, None], [3]])), ["column item_seq, row 2", "null inside"]),
    "null level": (table(views_level=[3, 3, 3, None]), ["column views_level, row 3", "null"]),
    "null label": (table(label=[0, 1, None, 0]), ["column label, row 2", "null"]),
    "no rows": (table().slice(0, 0), ["has no rows"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_fault_is_refused_in_one_sentence(tmp_path, name):
    data, words = BAD[name]
    with pytest.raises(InputError) as error:
        read(tmp_path, data)
    message = str(error.value)
    assert "\n" not in message and "rows.parquet" in message
    for word in words:
        assert word in message


def test_rows_are_counted_over_the_whole_file(tmp_path):
    rows = pa.concat_tables([table()] * 20_000).combine_chunks()
    labels = rows["label"].to_numpy().copy()
    labels[77_777] = 7
    with pytest.raises(InputError, match="row 77777: label 7"):
        read(tmp_path, rows.set_column(rows.schema.get_field_index("label"), "label", pa.array(labels)))


def test_files_that_are_not_there_or_not_parquet(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("item_id\n3\n")
    pq.write_table(table(), tmp_path / "cut.parquet")
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
