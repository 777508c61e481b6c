import errno
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic import ITEMS, samples

from mmctr_jax.config import parse_config
from mmctr_jax.data import cache, kept
from mmctr_jax.data.cache import load_split
from mmctr_jax.errors import InputError

RAW = {"data": {"train": "t", "valid": "v", "item_info": "i"}, "features": {"num_items": ITEMS, "item_features": []}}
FEATURES = parse_config(RAW).features


@pytest.fixture
def rows(tmp_path):
    pq.write_table(samples(np.random.default_rng(0), 50), tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


@pytest.fixture
def builds(monkeypatch):
    """Counts how often Parquet is really read."""
    calls = []
    build = cache._build
    monkeypatch.setattr(cache, "_build", lambda *args: calls.append(1) or build(*args))
    return calls


def equal(a, b):
    return all(
        np.array_equal(getattr(a, n), getattr(b, n)) for n in ("history_values", "history_offsets", "item")
    ) and all(np.array_equal(a.side[name], b.side[name]) for name in a.side | b.side)


def test_histories_are_ragged_and_memory_mapped(rows, tmp_path):
    table = pq.read_table(rows)
    split = load_split(rows, FEATURES, tmp_path / "cache", True)
    for i, history in enumerate(table["item_seq"].to_pylist()):
        assert split.history_values[split.history_offsets[i] : split.history_offsets[i + 1]].tolist() == history
    assert isinstance(split.history_values.base, np.memmap) and split.history_values.dtype == np.int32


def test_built_once_then_reused(rows, tmp_path, builds):
    first = load_split(rows, FEATURES, tmp_path / "cache", True)
    again = load_split(rows, FEATURES, tmp_path / "cache", True)
    assert len(builds) == 1 and equal(first, again) and first.fingerprint == again.fingerprint
    assert len(list((tmp_path / "cache").iterdir())) == 1  # and nothing temporary is left


def test_another_file_or_vocabulary_never_meets_a_stale_cache(rows, tmp_path, builds):
    load_split(rows, FEATURES, tmp_path / "cache", True)
    mtime = rows.stat().st_mtime_ns
    table = pq.read_table(rows)
    pq.write_table(table.take(np.arange(49, -1, -1)), rows)
    os.utime(rows, ns=(mtime, mtime))  # the content counts, not the date
    reversed_rows = load_split(rows, FEATURES, tmp_path / "cache", True)
    assert reversed_rows.item.tolist() == table["item_id"].to_pylist()[::-1] and len(builds) == 2
    smaller = FEATURES.model_copy(update={"num_items": 5})
    with pytest.raises(InputError, match="item_info has"):
        load_split(rows, smaller, tmp_path / "cache", True)
    one_side = FEATURES.model_copy(update={"side": FEATURES.side[:1]})
    assert load_split(rows, one_side, tmp_path / "cache", True).side.keys() == {FEATURES.side[0].name}


def test_weights_and_labels_between_0_and_1_are_of_training_rows(tmp_path):
    table = samples(np.random.default_rng(0), 50)
    weight, soft = np.random.default_rng(1).random((2, 50))
    features = FEATURES.model_copy(update={"weight": "importance"})
    path = tmp_path / "rows.parquet"
    pq.write_table(table.append_column("importance", pa.array(weight)), path)
    without = load_split(path, FEATURES, tmp_path / "cache", True)
    split = load_split(path, features, tmp_path / "cache", True, training=True)
    assert without.label.tolist() == split.label.tolist() == table["label"].to_pylist()
    assert without.weight is None and split.weight.tolist() == weight.astype(np.float32).tolist()
    for wrong in (0.0, -1.0, np.inf, np.nan):
        pq.write_table(table.append_column("importance", pa.array(np.append(weight[:-1], wrong))), path)
        with pytest.raises(InputError, match="column importance, row 49: weight .* must be above 0"):
            load_split(path, features, tmp_path / "cache", True, training=True)
    table = table.drop_columns("label").append_column("label", pa.array(soft))
    pq.write_table(table, path)
    np.testing.assert_array_equal(load_split(path, FEATURES, None, True, training=True).label, np.float32(soft))
    with pytest.raises(InputError, match="labels must be 0 or 1; training alone takes those between"):
        load_split(path, FEATURES, None, True)
    for wrong in (-0.1, 1.1, np.nan):
        pq.write_table(table.set_column(table.num_columns - 1, "label", pa.array(np.append(soft[:-1], wrong))), path)
        with pytest.raises(InputError, match=r"column label, row 49: label .* must be from 0 to 1"):
            load_split(path, FEATURES, None, True, training=True)


@pytest.mark.parametrize("damage", ["cut", "gone", "meta"])
def test_a_damaged_cache_is_built_anew(rows, tmp_path, builds, damage):
    first = load_split(rows, FEATURES, tmp_path / "cache", True)
    kept = np.array(first.item)
    folder = next((tmp_path / "cache").iterdir())
    if damage == "cut":
        (folder / "item.bin").write_bytes((folder / "item.bin").read_bytes()[:-4])
    elif damage == "gone":
        (folder / "side1.bin").unlink()
    else:
        (folder / "meta.json").write_text(json.dumps({"arrays": {}})[:-1])
    assert load_split(rows, FEATURES, tmp_path / "cache", True).item.tolist() == kept.tolist()
    assert len(builds) == 2


def test_bad_rows_leave_no_cache(rows, tmp_path):
    with pytest.raises(InputError):
        load_split(rows, FEATURES.model_copy(update={"num_items": 5}), tmp_path / "cache", True)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_folder_that_cannot_be_written(rows, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="data.cache_dir"):
        load_split(rows, FEATURES, tmp_path / "file", True)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(rows, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "_build", full)
    for folder, setting in ((tmp_path / "cache", "data.cache_dir"), (None, "TMPDIR")):
        with pytest.raises(InputError, match=f"No space left on device.*{setting}"):
            load_split(rows, FEATURES, folder, True)
    assert list((tmp_path / "cache").iterdir()) == []


def test_another_process_may_have_been_faster(rows, tmp_path, monkeypatch):
    build = cache._build

    def slow(*args):
        monkeypatch.setattr(cache, "_build", build)
        load_split(rows, FEATURES, tmp_path / "cache", True)  # the other one
        return build(*args)

    monkeypatch.setattr(cache, "_build", slow)
    assert load_split(rows, FEATURES, tmp_path / "cache", True).rows == 50
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_rows_without_any_click(tmp_path):
    table = samples(np.random.default_rng(0), 5)
    table = table.set_column(1, "item_seq", [[[]] * 5])
    pq.write_table(table, tmp_path / "rows.parquet")
    assert load_split(tmp_path / "rows.parquet", FEATURES, tmp_path / "cache", True).history_values.shape == (0,)


def test_what_a_killed_builder_left_is_removed_and_what_another_builds_is_not(rows, tmp_path):
    cache_dir = tmp_path / "cache"
    for name in (".building_left", ".building_held"):
        (cache_dir / name).mkdir(parents=True)
        (cache_dir / name / "item.bin").write_bytes(b"half")
        os.utime(cache_dir / name, (0, 0))
    with kept._held(cache_dir / ".building_held"):
        load_split(rows, FEATURES, cache_dir, with_labels=True)
    names = {p.name for p in cache_dir.iterdir()}
    assert ".building_held" in names and len(names) == 2 and ".building_left" not in names
