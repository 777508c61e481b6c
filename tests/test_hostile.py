"""Files near the schema, made at random: they load as plain Python reads them, or are refused in one sentence.

Never another exception, never another number. What is taken and what is not is written down here anew, from the
README's table, over `table.to_pylist()`.
"""

import contextlib
import itertools
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import items_of

from mmctr_jax.config import parse_config
from mmctr_jax.data import parquet
from mmctr_jax.data.cache import Split, load_split
from mmctr_jax.data.labels import read_labels
from mmctr_jax.data.parquet import part_files, read_keys, read_whole
from mmctr_jax.errors import InputError
from mmctr_jax.prediction.output import write_scores

SCALE = 1  # more finds more


def examples(number: int, **options) -> settings:
    return settings(
        max_examples=SCALE * number, deadline=None, database=None, suppress_health_check=list(HealthCheck), **options
    )


ITEMS, LEVELS = 6, 6
DATA = {"train": "t", "valid": "v", "item_info": "i"}
FEATURES = parse_config(
    {
        "data": DATA,
        "features": {
            "num_items": ITEMS,
            "item_features": [],
            "side": [{"name": "level", "vocab_size": LEVELS}],
            "weight": "w",
        },
    }
).features

# Tables ---------------------------------------------------------------------------------------------------------------

INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
FLOATS = [pa.float16(), pa.float32(), pa.float64()]
EDGES = [s * 2**n + d for n in (7, 8, 15, 16, 31, 32, 53, 63, 64) for s in (1, -1) for d in (-1, 0, 1)]


def limits(kind: pa.DataType) -> tuple[int, int]:
    info = np.iinfo(kind.to_pandas_dtype())
    return int(info.min), int(info.max)


def values_of(kind: pa.DataType) -> st.SearchStrategy:
    """Plain values of an Arrow type, mostly small."""
    if pa.types.is_integer(kind):
        low, high = limits(kind)
        return st.integers(max(low, -1), ITEMS) | st.sampled_from([v for v in EDGES if low <= v <= high])
    if pa.types.is_floating(kind):
        return st.sampled_from([0.0, 1.0, -0.0, 0.5, 3.0, -1.0, 1e-50, 6e4, math.nan, math.inf, -math.inf])
    if pa.types.is_boolean(kind):
        return st.booleans()
    if pa.types.is_null(kind):
        return st.none()
    if pa.types.is_decimal(kind):
        return st.decimals(0, 9, places=0)
    if pa.types.is_timestamp(kind):
        return st.integers(0, 10)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return st.binary(max_size=3)
    if pa.types.is_dictionary(kind):
        return values_of(kind.value_type)
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({"item_id": st.integers(0, 5)})
    if isinstance(kind, pa.BaseExtensionType):
        return values_of(kind.storage_type)
    if pa.types.is_fixed_size_list(kind):
        return st.lists(values_of(kind.value_type), min_size=kind.list_size, max_size=kind.list_size)
    if pa.types.is_nested(kind):
        return st.lists(values_of(kind.value_type), max_size=4)
    return st.text(max_size=3)


SCALARS = [
    *INTEGERS,
    *FLOATS,
    pa.bool_(),
    pa.string(),
    pa.large_string(),
    pa.binary(),
    pa.null(),
    pa.decimal128(5, 0),
    pa.timestamp("us"),
    pa.dictionary(pa.int32(), pa.int64()),
    pa.dictionary(pa.int8(), pa.string()),
    pa.struct({"item_id": pa.int64()}),
]
LISTS = [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 2), lambda kind: pa.list_(kind, 1), pa.list_view]
ANY = [*SCALARS, pa.bool8(), *(make(kind) for make in LISTS for kind in SCALARS), pa.list_(pa.list_(pa.int64()))]


def build(values: list, kind: pa.DataType) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    return pa.array(values, kind)


@st.composite
def arrays(draw, rows: int, right: st.SearchStrategy | None, kinds: list[pa.DataType]) -> pa.Array:
    """A column: mostly `right`, a list of values, in one of the types `kinds`; at times, or if that is None, anything
    in one of them."""
    roll = draw(st.integers(0, 59))
    kind = draw(st.sampled_from(ANY if roll == 0 else kinds))
    values = draw(st.lists(values_of(kind), min_size=rows, max_size=rows) if roll < 2 or right is None else right)
    if roll > 1 and right is not None and pa.types.is_fixed_size_list(kind):
        values = [(value + [0] * kind.list_size)[: kind.list_size] for value in values]
    if roll in (2, 4, 5, 6, 7) and rows:  # one value is wrong
        values[draw(st.integers(0, rows - 1))] = None if roll == 2 else draw(values_of(kind))
    if roll == 3 and rows and isinstance(values[-1], list) and values[-1]:
        values[-1] = [None, *values[-1][1:]]
    array = build(values, kind)
    if draw(st.booleans()) and not isinstance(kind, pa.BaseExtensionType):  # a slice of a longer one
        array = pa.concat_arrays([array, array]).slice(draw(st.integers(0, 1)) * rows, rows)
    return array


def each(right: st.SearchStrategy, kinds: list[pa.DataType]):
    """A column whose values are drawn one by one."""
    return lambda rows: arrays(rows, st.lists(right, min_size=rows, max_size=rows), kinds)


ODD_NAMES = ["", "a\nb", "ü\u2028", "x" * 5000, "item_seq.item_id", "item_seq.list.element", "\x1b[31m", 'a,"b']
EXTRA = each(st.integers(0, 3), INTEGERS)


@st.composite
def tables(draw, schema: dict, rows: int) -> pa.Table:
    columns = [(name, draw(schema[name](rows))) for name in draw(st.permutations(list(schema)))]
    if draw(st.integers(0, 19)) == 0:  # missing, renamed or there twice
        name, array = columns.pop()
        columns += draw(st.sampled_from([[], [(name.upper(), array)], [(name, array), (name, array)]]))
    columns += [(name, draw(EXTRA(rows))) for name in draw(st.lists(st.sampled_from(ODD_NAMES), max_size=2))]
    return pa.Table.from_arrays([array for _, array in columns], [name for name, _ in columns])


@st.composite
def files(draw, table: pa.Table):
    """How a table is written: `write(file)`. At times with row groups without rows."""
    compression = draw(st.sampled_from(["zstd", "snappy", "gzip", "none"]))
    empty, size = draw(st.booleans()), draw(st.integers(1, 6))

    def write(file: Path) -> None:
        with pq.ParquetWriter(file, table.schema, compression=compression) as writer:
            for part in (table.slice(0, 0), table, table.slice(0, 0)) if empty else (table,):
                writer.write_table(part, row_group_size=size)

    return write


PARTS = st.lists(st.integers(0, 5), min_size=1, max_size=3)  # rows of each


@st.composite
def folders(draw, schema: dict, sizes=PARTS):
    """Tables, and what writes them as part files: `write(folder)`."""
    parts = [draw(tables(schema, rows)) for rows in draw(sizes)]
    writers = [draw(files(part)) for part in parts]

    def write(folder: Path) -> Path:
        for i, write_one in enumerate(writers):
            write_one(folder / f"part-{i}.parquet")
        return folder

    return parts, write


# What is right, in plain Python ---------------------------------------------------------------------------------------


class Refused(Exception):
    pass


def right(is_right: bool) -> None:
    if not is_right:
        raise Refused


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def integer(kind: pa.DataType, value) -> int:
    right(pa.types.is_integer(plain(kind)) and value is not None)
    return value


def integers(kind: pa.DataType, value) -> list[int]:
    right(is_list(kind) and value is not None and None not in value)
    element = kind.value_type
    if pa.types.is_dictionary(element):  # within lists Parquet keeps the values alone
        element = element.value_type
    right(pa.types.is_integer(element) or (pa.types.is_null(element) and value == []))
    return [v for v in value if v != 0]


def vector(kind: pa.DataType, value) -> list[float]:
    right(is_list(kind) and value is not None and None not in value and len(value) == 2)
    element = kind.value_type
    if pa.types.is_dictionary(element):
        element = element.value_type
    right(pa.types.is_integer(element) or pa.types.is_floating(element))
    with np.errstate(over="ignore"):
        values = [float(np.float32(v)) for v in value]
    right(all(math.isfinite(v) for v in values))
    return values


def label(kind: pa.DataType, value) -> int:
    training_label(kind, value)
    right(value in (0, 1))
    return int(value)


def training_label(kind: pa.DataType, value) -> float:
    kind = plain(kind)
    right(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))
    right(value is not None and 0 <= value <= 1)
    return float(np.float32(value))


def weight(kind: pa.DataType, value) -> float:
    kind = plain(kind)
    right((pa.types.is_integer(kind) or pa.types.is_floating(kind)) and value is not None)
    value = float(np.float32(value))
    right(math.isfinite(value) and value > 0)
    return value


def below(size: int, low: int = 0):
    def check(kind: pa.DataType, value) -> int:
        value = integer(kind, value)
        right(low <= value < size)
        return value

    return check


def all_below(size: int):
    def check(kind: pa.DataType, value) -> list[int]:
        values = integers(kind, value)
        right(all(0 <= v < size for v in values))
        return values

    return check


def rows_of(parts: list[pa.Table], columns: dict) -> list[tuple]:
    """The rows of all parts, column by column through `columns`: name → function of type and value. Raises Refused."""
    for part in parts:
        right(all(part.column_names.count(name) == 1 for name in columns))
    rows: list[tuple] = []
    for part in parts:
        plain = [[read(part[name].type, value) for value in part[name].to_pylist()] for name, read in columns.items()]
        rows += zip(*plain, strict=True)
    return rows


def or_refused(function, *args):
    try:
        return function(*args)
    except Refused:
        return None


def check_sentence(error: InputError, where: str | Path) -> None:
    message = str(error)
    assert message.isprintable() and 20 < len(message) < 2000 and message.endswith("."), message
    assert str(where) in message, message


def read(function, where: Path):
    """What `function` gives, reading few rows at a time; None where it refuses, in a sentence that names `where`."""
    try:
        with mock.patch.object(parquet, "_ROWS_PER_READ", 3):
            return function()
    except InputError as error:
        check_sentence(error, where)
        return None


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hostile_") as name:
        yield Path(name)


# Rows -----------------------------------------------------------------------------------------------------------------

IDS = [*INTEGERS, pa.dictionary(pa.int8(), pa.int64())]
INTEGER_LISTS = [make(kind) for make in LISTS[:4] for kind in INTEGERS]
VECTORS = [make(kind) for make in LISTS[:3] for kind in [*FLOATS, pa.int8(), pa.int64()]]
ROWS = {
    "item_seq": each(st.lists(st.integers(0, ITEMS - 1), max_size=5), INTEGER_LISTS),
    "item_id": each(st.integers(1, ITEMS - 1), IDS),
    "level": each(st.integers(0, LEVELS - 1), IDS),
    "label": each(st.integers(0, 1), [*INTEGERS, *FLOATS]),
    "w": each(st.integers(1, 3), [*INTEGERS, *FLOATS]),
}
RIGHT_ROWS = {
    "item_seq": all_below(ITEMS),
    "item_id": below(ITEMS, low=1),
    "level": below(LEVELS),
    "label": training_label,
    "w": weight,
}


def split_rows(split: Split) -> list[tuple]:
    """A split's rows, as `rows_of` gives them."""
    values, offsets = split.history_values.tolist(), split.history_offsets.tolist()
    histories = [values[start:end] for start, end in itertools.pairwise(offsets)]
    side, label, weight = split.side["level"].tolist(), split.label.tolist(), split.weight.tolist()
    return list(zip(histories, split.item.tolist(), side, label, weight, strict=True))


@examples(200)
@given(folders(ROWS))
def test_rows_load_as_they_are_or_are_refused(drawn):
    parts, write = drawn
    with folder() as path:
        write(path)
        split = read(lambda: load_split(path, FEATURES, None, True, training=True), path)
        assert (split and split_rows(split)) == (or_refused(rows_of, parts, RIGHT_ROWS) or None)


# Items ----------------------------------------------------------------------------------------------------------------

ITEM_FEATURES = [
    {"kind": "categorical", "name": "category"},
    {"kind": "tags", "name": "tags", "vocab_size": 5},
    {"kind": "embedding", "name": "vector", "dim": 2},
]


@st.composite
def item_folders(draw):
    sizes = draw(PARTS)
    ids = iter(draw(st.permutations(range(draw(st.sampled_from([0, 1, 1, 1])), sum(sizes) + 1))))
    numbers = st.sampled_from([0, 1, 2.5, -3])
    schema = {
        "item_id": lambda rows: arrays(rows, st.just(list(itertools.islice(ids, rows))), IDS),
        "category": each(st.integers(0, 6), IDS),
        "tags": each(st.lists(st.integers(0, 4), max_size=3), INTEGER_LISTS),
        "vector": each(
            st.lists(numbers, min_size=2, max_size=2), [make(kind) for make in LISTS[:3] for kind in FLOATS]
        ),
    }
    return draw(folders(schema, st.just(sizes)))


def right_items(parts: list[pa.Table]) -> list[tuple]:
    """By item id: its category, tags and vector."""
    columns = {"item_id": integer, "category": below(2**31 - 1), "tags": all_below(5), "vector": vector}
    rows = rows_of(parts, columns)
    right(len(rows) > 0)
    by_id = {row[0]: row[1:] for row in rows}
    right(len(by_id) == len(rows))
    right(by_id.setdefault(0, NOTHING) == NOTHING)
    right(sorted(by_id) == list(range(len(by_id))))
    return [by_id[i] for i in range(len(by_id))]


NOTHING = (0, [], [0.0, 0.0])


@examples(150)
@given(item_folders())
def test_items_load_as_they_are_or_are_refused(drawn):
    parts, write = drawn
    with folder() as path:
        write(path)
        config = parse_config({"data": DATA | {"item_info": str(path)}, "features": {"item_features": ITEM_FEATURES}})
        items = read(lambda: items_of(config), path)
        expected = or_refused(right_items, parts)
        if items is None:
            assert expected is None
            return
        table = {name: values.tolist() for name, values in items.table.items()}
        tags = [[tag for tag in row if tag] for row in table["tags"]]
        assert list(zip(table["category"], tags, table["vector"], strict=True)) == expected
        assert items.features.num_items == len(expected)
        assert items.features.item_features[0].vocab_size == max(table["category"]) + 1


# Labels, keys and ids that pass through -------------------------------------------------------------------------------


NUMBERED = {
    "ID": lambda rows: st.builds(
        build,
        st.lists(st.sampled_from([0, 1, 2**53, 2**53 + 1, None]), min_size=rows, max_size=rows),
        st.sampled_from([pa.int64(), pa.int64(), pa.uint64()]),
    ),
    "label": ROWS["label"],
}


@st.composite
def labelled_folders(draw):
    """Rows, and labels of rows: often of the same ones."""
    rows = draw(folders(NUMBERED))
    return rows, rows if draw(st.booleans()) else draw(folders(NUMBERED, st.just([t.num_rows for t in rows[0]])))


@examples(100)
@given(labelled_folders())
def test_labels_are_those_of_the_rows_or_are_refused(drawn):
    (parts, write), (label_parts, write_labels) = drawn
    with folder() as path:
        (path / "rows").mkdir()
        (path / "labels").mkdir()
        rows = part_files(write(path / "rows"))
        write_labels(path / "labels")

        own = read_labels(rows, "label", None)
        expected = or_refused(rows_of, parts, {"label": label})
        assert own is None if expected is None else own.tolist() == [value for (value,) in expected]

        values = read(lambda: read_labels(rows, "label", path / "labels"), path)
        expected = or_refused(rows_of, label_parts, {"label": label})
        numbered = all("ID" in part.column_names for part in (parts[0], label_parts[0]))
        fit = expected is not None and len(expected) == sum(part.num_rows for part in parts)
        fit = fit and (not numbered or ids_of(parts) == ids_of(label_parts))
        assert (None if values is None else values.tolist()) == ([value for (value,) in expected] if fit else None)


def ids_of(parts: list[pa.Table]) -> object:
    """The rows' IDs, to be compared; if they cannot be read as one column, what equals nothing."""
    parts = [part for part in parts if part.num_rows or part.column_names.count("ID") != 1]
    if any(part.column_names.count("ID") != 1 for part in parts) or len({part["ID"].type for part in parts}) > 1:
        return object()
    return repr([value for part in parts for value in part["ID"].to_pylist()])


@examples(150)
@given(folders({"key": lambda rows: arrays(rows, None, [pa.int64(), pa.string(), *ANY])}))
def test_any_column_passes_through_and_groups_rows_or_is_refused(drawn):
    parts, write = drawn
    with folder() as path:
        rows = part_files(write(path))
        values = read(lambda: read_whole(rows, "key"), path)
        keys = read(lambda: read_keys(rows, "key"), path)
        if values is None:
            assert keys is None
            return
        plain = [value for part in parts for value in part["key"].to_pylist()]
        assert repr(values.to_pylist()) == repr(plain)
        if keys is not None:
            assert len(keys) == len(plain)
            known = {(key, str(value)) for key, value in zip(keys.tolist(), plain, strict=True) if value is not None}
            assert len(known) == len({value for _, value in known})
            assert len(set(keys.tolist())) == len(known) + plain.count(
                None
            )  # no two rows without a value are one group
        for name in ("out.parquet", "out.csv", "out.zip"):
            task = "Task1" if name == "out.zip" else None
            out = path / name
            read(lambda: write_scores(out, {"ID": values}, np.zeros(len(plain)), task), out)  # noqa: B023
        if (path / "out.parquet").exists():
            assert repr(pq.read_table(path / "out.parquet")["ID"].to_pylist()) == repr(plain)


def test_a_csv_header_reads_back_whatever_the_names(tmp_path):
    names = [name for name in ODD_NAMES if name]
    write_scores(tmp_path / "out.csv", {n: pa.chunked_array([[1]]) for n in names}, np.zeros(1), None)
    assert pyarrow.csv.read_csv(
        tmp_path / "out.csv", parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True)
    ).column_names == [*names, "score"]


# Files ----------------------------------------------------------------------------------------------------------------

GOOD = pa.table(
    {
        "item_seq": pa.array([[1, 2], [], [3], [5, 5, 5, 4]] * 5),
        "item_id": [1, 2, 3, 4] * 5,
        "level": pa.array([0, 1, 2, 3] * 5, pa.int8()),
        "label": [0, 1, 1, 0] * 5,
        "w": [1.0, 2.0, 0.5, 1.0] * 5,
    }
)


@pytest.fixture(scope="module")
def good_bytes(tmp_path_factory) -> bytes:
    """Of a file with check sums, as Spark writes it."""
    file = tmp_path_factory.mktemp("good") / "good.parquet"
    pq.write_table(GOOD, file, write_page_checksum=True, row_group_size=7)
    return file.read_bytes()


def load_bytes(data: bytes):
    with folder() as path:
        (path / "rows.parquet").write_bytes(data)
        split = read(lambda: load_split(path / "rows.parquet", FEATURES, None, True, training=True), path)
        return split and split_rows(split)


@examples(200, derandomize=True)  # a crash of the Parquet library could not be reported from here
@given(st.data())
def test_a_damaged_file_is_refused_or_reads_as_before(good_bytes, data):
    damaged = bytearray(good_bytes)
    end = good_bytes.rindex(b"PAR1") - 4 - int.from_bytes(good_bytes[-8:-4], "little")  # the pages'
    for place in data.draw(st.lists(st.integers(0, end - 1), min_size=1, max_size=3)):
        damaged[place] ^= data.draw(st.integers(1, 255))
    rows = load_bytes(bytes(damaged))
    assert rows is None or rows == rows_of([GOOD], RIGHT_ROWS)


@examples(200, derandomize=True)
@given(st.data())
def test_a_damaged_description_of_a_file_ends_in_a_sentence_or_in_right_rows(good_bytes, data):
    damaged = bytearray(good_bytes)
    for place in data.draw(st.lists(st.integers(0, len(good_bytes) - 1), min_size=1, max_size=3)):
        damaged[place] ^= data.draw(st.integers(1, 255))
    rows = load_bytes(bytes(damaged))
    for history, item, level, label, weight in rows or ():
        assert all(0 < i < ITEMS for i in [*history, item]) and 0 <= level < LEVELS
        assert label in (0, 1) and 0 < weight < math.inf


@examples(100, derandomize=True)
@given(st.data())
def test_a_truncated_file_or_no_parquet_at_all_is_refused(good_bytes, data):
    cut = good_bytes[: data.draw(st.integers(0, len(good_bytes) - 1))]
    assert load_bytes(data.draw(st.sampled_from([cut, cut + b"PAR1", b"PAR1" + cut[-20:] + b"PAR1"]))) is None
    assert load_bytes(data.draw(st.binary(max_size=100))) is None


def test_a_wrong_number_of_rows_is_noticed(good_bytes, tmp_path):
    found = 0
    for place in range(good_bytes.index(b"schema"), len(good_bytes)):
        if good_bytes[place] == 2 * GOOD.num_rows:  # how Thrift writes it
            (tmp_path / "rows.parquet").write_bytes(
                good_bytes[:place] + bytes([2 * GOOD.num_rows + 2]) + good_bytes[place + 1 :]
            )
            with contextlib.suppress(pa.ArrowException, OSError):
                if pq.read_metadata(tmp_path / "rows.parquet").num_rows == GOOD.num_rows + 1:
                    found += 1
                    with pytest.raises(InputError, match="says it has 21 rows and holds 20"):
                        load_split(tmp_path / "rows.parquet", FEATURES, None, True, training=True)
    assert found == 1


@pytest.mark.parametrize("make", LISTS[:3])
def test_of_a_slice_of_lists_its_own_rows_are_read(make):
    array = pa.array([[1, 2], [3, 0], [4, 5], [6, 7]], make(pa.int64())).slice(1, 2)
    values, offsets = parquet.Column(Path("f"), "c", 0, array).integer_lists()
    assert values.tolist() == [3, 4, 5] and offsets.tolist() == [0, 1, 3]
    assert parquet.Column(Path("f"), "c", 0, array).vectors(2).tolist() == [[3, 0], [4, 5]]


@pytest.mark.parametrize("name", [name for name in ODD_NAMES if name])
def test_columns_may_have_any_name(tmp_path, name):
    pq.write_table(GOOD.rename_columns({"item_seq": name}), tmp_path / "rows.parquet")
    split = load_split(
        tmp_path / "rows.parquet", FEATURES.model_copy(update={"history": name}), None, True, training=True
    )
    assert split_rows(split) == rows_of([GOOD], RIGHT_ROWS)


@pytest.mark.parametrize("what", ["a folder", "a broken link"])
def test_a_part_that_is_not_a_file_is_never_left_out_in_silence(tmp_path, what):
    pq.write_table(GOOD, tmp_path / "a.parquet")
    if what == "a folder":
        (tmp_path / "b.parquet").mkdir()
        pq.write_table(GOOD, tmp_path / "b.parquet" / "part.parquet")
    else:
        (tmp_path / "b.parquet").symlink_to("nowhere.parquet")
    with pytest.raises(InputError, match="b.parquet") as error:
        load_split(tmp_path, FEATURES, None, True, training=True)
    check_sentence(error.value, tmp_path)


def test_a_folder_may_be_called_like_a_file(tmp_path):
    (tmp_path / "x.parquet").mkdir()
    pq.write_table(GOOD, tmp_path / "x.parquet" / "part.parquet")
    assert load_split(tmp_path / "x.parquet", FEATURES, None, True, training=True).rows == 20
