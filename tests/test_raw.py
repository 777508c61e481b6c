"""Raw files as people have them: read as they mean, or refused in a sentence that says what to do."""

import gzip
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from item_folders import write_folder

from mmctr_jax.embed.item_file import read_item_file
from mmctr_jax.embed.precomputed import file_and_column, precomputed_part
from mmctr_jax.errors import InputError
from mmctr_jax.prepare import microlens
from mmctr_jax.prepare.draws import mixed
from mmctr_jax.prepare.interactions import Columns, read
from mmctr_jax.prepare.negatives import NegativeSampler
from mmctr_jax.prepare.raw_values import as_tags, as_times, check_items_match
from mmctr_jax.prepare.text_files import TextFormat, line_of_row

LOG = "user,item,time,label,w\n1,5,10,1,1.5\n2,6,11,0,2\n"
PATH = Path("log.csv")


def log_of(tmp_path, content: str | bytes, text=None, name="l.csv", **columns) -> list[tuple]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read(path, None, Columns(**columns, text_format=text or TextFormat())).log.rows()


# Text files


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (LOG.replace(",", ";").replace("1.5", "1,5"), TextFormat(separator=";", decimal=",")),
        (b"\xef\xbb\xbf" + LOG.encode(), TextFormat()),
        (LOG.encode("utf-16"), TextFormat(encoding="utf-16")),
        (LOG.replace("\n", "\r\n"), TextFormat()),
        (LOG.replace("\n2", "\n\n2") + "\n\n", TextFormat()),
        (LOG.replace(",1,1.5", ",True,1.5").replace(",0,2", ",False,2"), TextFormat()),
        ("".join(f"'{c}'" if c.isalpha() else c for c in LOG).replace("''", ""), TextFormat(quote="'")),
    ],
    ids=["semicolons", "byte order mark", "utf-16", "windows lines", "blank lines", "words for labels", "quotes"],
)
def test_text_files_as_people_have_them(tmp_path, content, text):
    expected = [(1, 5, 10, True, 1.5), (2, 6, 11, False, 2.0)]
    assert log_of(tmp_path, content, text, label="label", weight="w") == expected


def test_files_without_a_header(tmp_path):
    content = LOG.split("\n", 1)[1]
    columns = {"user": "column_1", "item": "column_2", "time": "column_3"}
    assert log_of(tmp_path, content, TextFormat(header=False), **columns) == [(1, 5, 10), (2, 6, 11)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (LOG.replace(",", ";"), "separated by semicolons; say --separator ';'"),
        (LOG.replace(",", "\t"), "separated by tabs"),
        ("sep=;\n" + LOG.replace(",", ";"), "'sep=;', is a spreadsheet's"),
        ("user,item,time\r1,5,10\r2,6,11\r", "carriage returns alone"),
        ("# made by us\n" + LOG, "first line is a comment; the header"),
        (LOG.encode("utf-16"), "UTF-16 text, not UTF-8; say --encoding"),
        (LOG.split("\n", 1)[1], "no header; add one, or say --no-header"),
        ("user,item,time,time\n1,2,3,4\n", "column 'time' stands twice"),
        (LOG.replace("user,", "User,"), "did you mean 'User'"),
        ("user,item,time\n1,5,\xe9t\xe9\n".encode("latin-1"), "--encoding"),
        ('user,item,time,note\n1,5,10,"15\\" tv"\n2,6,11,x\n3,6,12,y\n', "escapes quotes within cells"),
    ],
)
def test_what_cannot_be_read_is_said_with_the_option_that_helps(tmp_path, content, words):
    with pytest.raises(InputError, match=words):
        log_of(tmp_path, content)


def test_a_cell_that_ends_in_a_backslash_and_json_in_a_cell_are_text(tmp_path):
    content = 'user,item,time,note\n1,5,10,"C:\\"\n2,6,11,"{""a"": ""b\\""c""}"\n'
    assert [row[0] for row in log_of(tmp_path, content)] == [1, 2]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "punycode", "idna"])
def test_an_encoding_that_is_not_the_files_is_one_sentence(tmp_path, encoding):
    with pytest.raises(InputError, match="encoding"):
        log_of(tmp_path, LOG + "\u00e9", TextFormat(encoding=encoding))


def test_a_compressed_file_is_read_whatever_its_name(tmp_path):
    assert log_of(tmp_path, gzip.compress(LOG.encode())) == [(1, 5, 10), (2, 6, 11)]
    with pytest.raises(InputError, match="'time' stands twice"):
        log_of(tmp_path, gzip.compress(LOG.replace("w\n", "time\n").encode()))


def test_thousands_are_not_taken_for_fractions(tmp_path):
    with pytest.raises(InputError, match=r"line 2: '2\.250' has a '\.', and --decimal is ','"):
        log_of(
            tmp_path, LOG.replace(",", ";").replace("1.5", "2.250"), TextFormat(separator=";", decimal=","), weight="w"
        )
    for written, advice in (("1,250", "correct or drop"), ("1,250.50", "correct or drop"), ("1,25", "say --decimal")):
        with pytest.raises(InputError, match=f"'{written}' is not a number that fits; {advice}"):
            log_of(tmp_path, LOG.replace(",", ";").replace("1.5", written), TextFormat(separator=";"), weight="w")


def test_decimal_commas_are_named(tmp_path):
    with pytest.raises(InputError, match=r"line 2: '1,5' is not a number that fits; say --decimal ','"):
        log_of(tmp_path, LOG.replace(",", ";").replace("1.5", "1,5"), TextFormat(separator=";"), weight="w")


def test_lines_in_messages_are_those_of_the_file(tmp_path):
    content = 'user,item,time,note\n1,5,10,"two\nlines"\n\n2,6,11,x\n3,,12,y\n'
    with pytest.raises(InputError, match=r"column item, line 6: no id"):
        log_of(tmp_path, content)
    assert line_of_row(tmp_path / "l.csv", 0, TextFormat()) == 2


def test_words_for_null_are_null_and_told(tmp_path, capsys):
    content = "user,item,time,device\n1,5,10,NULL\n2,6,11,\\N\n3,7,12,phone\n4,8,13,nan\n"
    assert [row[3] for row in log_of(tmp_path, content, side=("device",))] == [None, None, "phone", None]
    assert "3 cells (NULL, \\N, nan) count as missing, in device" in capsys.readouterr().out
    own = TextFormat(null_words=("phone",))
    assert [row[3] for row in log_of(tmp_path, content, own, side=("device",))] == ["NULL", "\\N", None, "nan"]
    with pytest.raises(InputError, match="line 2: no id, or a word for null"):
        log_of(tmp_path, "user,item,time\nNULL,5,10\n")


def test_ids_of_64_bits_are_the_same_in_parquet_and_csv(tmp_path):
    users = [2**63 + 5, 2**63 - 1, 2**64 - 1]
    pq.write_table(
        pa.table({"user": pa.array(users, pa.uint64()), "item": [1, 2, 3], "time": [1, 2, 3]}), tmp_path / "l.parquet"
    )
    from_parquet = read(tmp_path / "l.parquet", None, Columns()).log
    rows = "".join(f"{u},{i},{i}\n" for i, u in enumerate(users, 1))
    assert from_parquet.rows() == log_of(tmp_path, "user,item,time\n" + rows)


# Times

MOMENTS = st.datetimes(datetime(1700, 1, 1), datetime(1999, 1, 1))
OF_TODAY = st.datetimes(datetime(1991, 1, 1), datetime(2035, 1, 1))  # words for never are beside these


def with_zones(moments) -> st.SearchStrategy:
    return st.lists(st.tuples(moments, st.integers(-14 * 60, 14 * 60)), min_size=1, max_size=20)


@given(with_zones(MOMENTS) | with_zones(OF_TODAY), st.booleans(), st.data())
def test_iso_times_have_the_order_that_python_gives_them(moments, zoned, data):
    texts, expected = [], []
    for moment, offset in moments:
        moment = moment.replace(tzinfo=timezone(timedelta(minutes=offset)) if zoned else UTC)
        text = moment.isoformat() if zoned else moment.replace(tzinfo=None).isoformat()
        texts.append(text.replace("T", data.draw(st.sampled_from("T ")), 1))
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        expected.append((since // timedelta(microseconds=1)) * 1000)
    assert as_times(pl.Series(texts), PATH, "time").to_list() == expected


def test_times_of_databases():
    texts = ["2024-01-02 03:04:05 UTC", "2024-01-02 03:04:06.5 UTC", "2024-01-02T03:05Z", "2024-01-02 05:04:05+02"]
    start = int(datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()) * 10**9
    expected = [start, start + 1_500_000_000, start + 55 * 10**9, start]
    assert as_times(pl.Series(texts), PATH, "time").to_list() == expected


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (pl.Series(["2024-01-02T03:04:05", "2024-01-02T03:04:05+08:00"]), "one names a time zone and one does not"),
        (pl.Series(["2024-01-02", "03/04/2024"]), "'03/04/2024' is not a time"),
        (pl.Series(["2024-01-02", "2024-02-30"]), "'2024-02-30' is not a time"),
        (pl.Series(["9999-12-31", "2024-02-20"]), "outside of the years"),
        (pl.Series([datetime(1, 1, 1)], dtype=pl.Datetime("us")), "outside of the years"),
        (pl.Series([datetime(9999, 12, 31).date()]), "outside of the years"),
        (
            pl.Series([1_700_000_000, 1_700_000_001, 1_700_000_002_000]),
            "row 2: time 1700000002000, where others are as 17000000",
        ),
        (
            pl.Series([1.7e12, 1.7e12, 1.7e9, 0.0]),
            "row 2: time 1700000000, where others are as 1700000000000; write all in one",
        ),
        (pl.Series([1_700_000_000_000, 1_700_000_000_000_000]), "write all in one unit"),
        (pl.Series([1_700_000_000_000, 1_700_000_000_000_000_000, 1_700_000_000]), "write all in one unit"),
        (pl.Series(["2024-01-02", None]), "row 1: no time; fill or drop"),
        (pl.Series(["1", None]), "row 1: no number; fill or drop"),
    ],
)
def test_times_without_one_meaning_are_refused(tmp_path, values, words):
    path = tmp_path / "l.parquet"
    with pytest.raises(InputError, match=words):
        as_times(values, path, "time")


def test_times_of_any_unit_are_numbers():
    """A counter, too, which has times of all sizes."""
    for values in ([1, 5, 7], [1_700_000_000, 1, 4_000_000_000], [1.7e12, 1, 2], [10**9, 5 * 10**10, 10**12]):
        assert as_times(pl.Series(values), PATH, "time").to_list() == values


def test_days_as_times_are_warned_of(tmp_path, capsys):
    from mmctr_jax.prepare.options import Options
    from mmctr_jax.prepare.pipeline import prepare

    rng = np.random.default_rng(0)
    days = np.sort(rng.integers(0, 40, 300))
    rows = "".join(
        f"{u},{i},2024-01-{d % 28 + 1:02}\n" for u, i, d in zip(days % 9, rng.integers(0, 50, 300), days, strict=True)
    )
    (tmp_path / "l.csv").write_text("user,item,time\n" + rows)
    source = read(tmp_path / "l.csv", None, Columns())
    prepare("interactions", source, Options(split="user", negatives=1, valid=0.2, test=0.2), tmp_path / "out")
    assert "clicks are at the same time as another one of their user" in capsys.readouterr().out


# Parts and folders


def parts(folder: Path, *columns: pa.Array) -> Path:
    folder.mkdir()
    for at, column in enumerate(columns):
        ids = {"user": [1] * len(column), "item": [10 * at + k + 1 for k in range(len(column))]}
        pq.write_table(pa.table(ids | {"time": column}), folder / f"p{at}.parquet")
    return folder


def test_part_files_of_other_time_units_have_one_order(tmp_path):
    t = 1_700_000_000
    folder = parts(
        tmp_path / "l", pa.array([t * 10**9 + 100], pa.timestamp("ns")), pa.array([t * 10**3 + 1], pa.timestamp("ms"))
    )
    assert read(folder, None, Columns()).log["time"].to_list() == [t * 10**9 + 100, t * 10**9 + 10**6]


@pytest.mark.parametrize(
    "second",
    [
        pa.array([5], pa.int64()),
        pa.array([19680], pa.date32()),
        pa.array(["x"]),
        pa.array([1], pa.timestamp("us", "UTC")),
    ],
)
def test_part_files_of_other_meanings_are_refused(tmp_path, second):
    folder = parts(tmp_path / "l", pa.array([1], pa.timestamp("us")), second)
    with pytest.raises(InputError, match=" in p0.parquet and .* in p1.parquet; give it one type"):
        read(folder, None, Columns())


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("day=2/p.parquet", "day=2, a partition"),
        ("more/p.parquet", "more, a folder"),
        ("p2.parq", "p2.parq, which would be left out"),
        ("part-00001", "part-00001, which would be left out"),
        ("p2.parquet.gz", "p2.parquet.gz, which would be left out"),
        ("_delta_log/0.json", "is a Delta table"),
        ("metadata/v1.metadata.json", "is an Iceberg table"),
    ],
)
def test_folders_are_read_whole_or_refused(tmp_path, other, words):
    folder = parts(tmp_path / "l", pa.array([1]))
    (folder / other).parent.mkdir(exist_ok=True)
    (folder / other).write_bytes(b"x")
    with pytest.raises(InputError, match=words):
        read(folder, None, Columns())


def test_marks_of_writers_are_no_rows_and_upper_case_is_read(tmp_path):
    folder = parts(tmp_path / "l", pa.array([1]))
    for name in ("_SUCCESS", ".p0.parquet.crc", "_metadata"):
        (folder / name).write_bytes(b"")
    (folder / "p0.parquet").rename(folder / "P0.PARQUET")
    assert len(read(folder, None, Columns()).log) == 1


def test_zeros_in_the_middle_of_a_log_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    table = pa.table({"user": rng.integers(0, 99, 9000), "item": rng.integers(0, 99, 9000), "time": np.arange(9000)})
    pq.write_table(table, tmp_path / "l.parquet", write_page_checksum=True)
    whole = (tmp_path / "l.parquet").read_bytes()
    (tmp_path / "l.parquet").write_bytes(whole[:9000] + bytes(4096) + whole[9000 + 4096 :])
    with pytest.raises(InputError, match="cannot be read from row"):
        read(tmp_path / "l.parquet", None, Columns())


# Items


@pytest.mark.parametrize(
    ("written", "reason"),
    [("5.0", "decimals"), ("005", "leading zeros"), (" 5", "spaces"), ("'5'", "quotes"), ("x", None)],
)
def test_an_item_file_of_other_ids_is_refused(written, reason):
    with pytest.raises(InputError, match="No item of log.csv is in i.csv") as refused:
        check_items_match(pl.Series([5, 5]), pl.Series([written, "other"]), PATH, Path("i.csv"))
    assert reason is None or reason in str(refused.value)


def test_items_that_the_file_lacks_are_counted():
    said = check_items_match(pl.Series(["a", "B", "c"]), pl.Series(["a", "b"]), PATH, Path("i.csv"))
    assert said.startswith("2 of the 3 items of log.csv have no row in i.csv, such as 'B', though there is 'b' (upper")
    assert check_items_match(pl.Series(["a"]), pl.Series(["a", "b"]), PATH, PATH) is None


@given(st.lists(st.lists(st.text("ab'\" ,x", min_size=1).filter(lambda t: t == t.strip()), max_size=3), min_size=3))
def test_lists_written_as_text_are_the_lists(lists):
    for write in (json.dumps, str):
        texts = [write(tags) for tags in lists]
        assert as_tags(pl.Series(texts), PATH, "tags", None).to_list() == lists


@pytest.mark.parametrize("text", ["['a' 'b']", "{a,b}", "[a, b]", "[['a'], ['b']]"])
def test_lists_in_other_forms_are_refused(text, tmp_path):
    with pytest.raises(InputError, match="looks like a list of tags in a form that is not read"):
        as_tags(pl.Series([text] * 3), tmp_path / "i.parquet", "tags", None)


def test_a_likely_separator_is_named_unless_one_was_chosen():
    values = pl.Series(["Action, Drama", "War", None])
    with pytest.raises(InputError, match="1 of 2 with ',', .*--tag-separator ','"):
        as_tags(values, PATH, "tags", None)
    assert as_tags(values, PATH, "tags", "|").to_list() == [["Action, Drama"], ["War"], None]
    assert as_tags(values, PATH, "tags", ",").to_list() == [["Action", "Drama"], ["War"], None]
    for separator in ("\n", "><", " > ", "\uff0c"):
        with pytest.raises(InputError, match="--tag-separator"):
            as_tags(pl.Series([f"a{separator}b", "c"]), PATH, "tags", None)
    assert as_tags(pl.Series(['["a", NaN]', '["b"]']), PATH, "tags", None).to_list() == [["a"], ["b"]]


# MicroLens


def write_microlens(folder: Path, release: str, titles: str, header: bool) -> Path:
    folder.mkdir(exist_ok=True)
    rows = "".join(f"{u},{(u * k) % 7 + 1},{1600000000000 + 100 * u + k}\n" for u in range(1, 9) for k in range(1, 5))
    (folder / f"{release}_pairs.csv").write_text("user,item,timestamp\n" + rows)
    text = "".join(f'{i},"a title, of {i} #tag{i % 3}"\n' for i in range(1, 8))
    (folder / f"{release}_{titles}.csv").write_text(("item,title\n" if header else "") + text)
    (folder / f"{release}_likes_and_views.txt").write_text("".join(f"{i}\t{i}\t{9 * i}\n" for i in range(1, 8)))
    return folder


@pytest.mark.parametrize(("titles", "header"), [("titles", True), ("title_en", False), ("title_en", True)])
def test_each_release_of_microlens(tmp_path, titles, header):
    items = microlens.read(write_microlens(tmp_path / "m", "MicroLens-100k", titles, header)).items.sort("item")
    assert items["item"].to_list() == list(range(1, 8))
    assert items["text"][0] == "a title, of 1 #tag1" and items["tags"][0].to_list() == ["tag1"]


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("pairs.csv", "1,2,1700000000\n", "a header with user, item and timestamp is expected"),
        ("pairs.csv", "a,b,c\n1,2,1700000000\n", "a header with user, item and timestamp is expected"),
        ("title_en.csv", "1,a title, of two\n", "3 columns, and item and title .*quotes around titles with commas"),
        ("title_en.csv", "1,a title\n2,a title, of two\n", "line 2: 3 cells, where the first line has 2"),
    ],
)
def test_microlens_files_in_other_forms_are_refused(tmp_path, file, content, words):
    folder = write_microlens(tmp_path / "m", "MicroLens-100k", "title_en", False)
    (folder / f"MicroLens-100k_{file}").write_text(content)
    with pytest.raises(InputError, match=words):
        microlens.read(folder)


def test_microlens_columns_are_told_by_their_names(tmp_path):
    folder = write_microlens(tmp_path / "m", "MicroLens-100k", "title_en", False)
    before = microlens.read(folder).log
    pairs = folder / "MicroLens-100k_pairs.csv"
    frame = pl.read_csv(pairs).select("item", "user", "timestamp").rename({"item": "video_id", "timestamp": "ts"})
    frame.write_csv(pairs)
    assert microlens.read(folder).log.equals(before)


def test_releases_are_not_mixed(tmp_path):
    folder = write_microlens(tmp_path / "m", "MicroLens-100k", "title_en", False)
    write_microlens(folder, "MicroLens-50k", "titles", True)
    with pytest.raises(InputError, match="several releases .MicroLens-100k, MicroLens-50k."):
        microlens.read(folder)


# Vectors


@pytest.mark.parametrize("name", ["v.npz", "v.h5", "v.pt", "v.csv", "v.pkl", "v.safetensors"])
def test_vectors_of_other_kinds_are_no_models(name):
    with pytest.raises(InputError, match="is no file of vectors that is read"):
        file_and_column(name)


def test_rows_of_an_array_are_whose_the_named_file_says(tmp_path):
    folder = write_folder(tmp_path / "shop", [f"title {i}" for i in range(6)])
    items = read_item_file(folder)
    names = [*reversed(items.originals), "gone"]
    vectors = np.array([[float(n) if n != "gone" else -1.0, 1.0] for n in names], np.float32)
    np.save(tmp_path / "v.npy", vectors)
    np.save(tmp_path / "ids.npy", np.array(names))
    (tmp_path / "items.csv").write_text("sku,item\n" + "".join(f"x,{n}\n" for n in names))
    pl.DataFrame({"key": names}).write_parquet(tmp_path / "keys.parquet")
    for rows_of in ("ids.npy", "items.csv", "keys.parquet:key"):
        part = precomputed_part(items, "text", str(tmp_path / "v.npy"), str(tmp_path / rows_of))
        np.testing.assert_array_equal(part.vectors[:, 0], np.array(items.originals, np.float32))
    for rows_of, words in (
        (None, "does not say whose row is whose"),
        ("item_feature", "7 rows and item_feature.parquet 6"),
    ):
        with pytest.raises(InputError, match=words):
            precomputed_part(items, "text", str(tmp_path / "v.npy"), rows_of)


def test_an_item_file_names_items_as_the_log_does_whatever_its_column_is_called(tmp_path):
    """Not by prepared numbers, though most of the ids would be such."""
    folder = write_folder(tmp_path / "shop", [f"title {i}" for i in range(6)], training=6)
    table = pl.read_parquet(folder / "item_feature.parquet")
    table.with_columns(item=pl.Series([1, 2, 4, 5, 6, 7])).write_parquet(folder / "item_feature.parquet")
    items, ids = read_item_file(folder), range(1, 8)
    np.save(tmp_path / "v.npy", np.array(ids, np.float32)[:, None])
    (tmp_path / "catalogue.csv").write_text("item_id\n" + "".join(f"{i}\n" for i in ids))
    for rows_of in ("catalogue.csv", "catalogue.csv:item_id"):
        part = precomputed_part(items, "text", str(tmp_path / "v.npy"), str(tmp_path / rows_of))
        assert part.vectors[:, 0].tolist() == [float(i) for i in items.originals]
    pl.DataFrame({"item_id": ids, "v": [[float(i)] for i in ids]}).write_parquet(tmp_path / "v.parquet")
    with pytest.raises(InputError, match="item_id seem to be the log's ids.*call the column item"):
        precomputed_part(items, "text", str(tmp_path / "v.parquet"), None)


def test_own_ids_in_a_column_called_item_id_are_own_ids(tmp_path):
    folder = write_folder(tmp_path / "shop", [f"title {i}" for i in range(6)], training=6)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"item_keys": ["item_id", "item_id"]}))
    table = pl.read_parquet(folder / "item_feature.parquet")
    table.with_columns(item=pl.Series([4, 1, 6, 2, 5, 3])).write_parquet(folder / "item_feature.parquet")
    items = read_item_file(folder)
    np.save(tmp_path / "v.npy", np.arange(1.0, 7, dtype=np.float32)[:, None])
    pl.DataFrame({"item_id": range(1, 7), "v": [[float(i)] for i in range(1, 7)]}).write_parquet(
        tmp_path / "own.parquet"
    )
    (tmp_path / "own.csv").write_text("item_id\n" + "".join(f"{i}\n" for i in range(1, 7)))
    for rows_of in ("own.csv", "own.csv:item_id"):
        part = precomputed_part(items, "text", str(tmp_path / "v.npy"), str(tmp_path / rows_of))
        assert part.vectors[:, 0].tolist() == [float(i) for i in items.originals]
    with pytest.raises(InputError, match="may be the log's ids.*call the column item"):
        precomputed_part(items, "text", str(tmp_path / "own.parquet"), None)


# Negatives


def test_who_clicked_nearly_everything_gets_what_is_left():
    items, rng = 400, np.random.default_rng(0)
    clicked = np.arange(items - 3)
    user = np.concatenate([np.zeros(len(clicked), int), rng.integers(1, 9, 900)])
    item = np.concatenate([clicked, rng.integers(0, items, 900)])
    popular = np.bincount(item, minlength=items)
    popular[:5] += 10**6
    drawn = NegativeSampler(popular, user, item, 0.75).draw(
        np.zeros(50, int), 4, mixed(np.arange(50, dtype=np.uint64), 1)
    )
    left = set(range(items - 3, items))
    for row in drawn:
        assert set(row[row >= 0]) == left and (row == -1).sum() == 1
