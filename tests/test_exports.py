"""Logs as spreadsheets, databases and pandas export them: read as they are meant, or refused in one sentence."""

import json
import re
import uuid
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_prepare import Prepared

from mmctr_jax.commands import embed as embed_command
from mmctr_jax.commands import prepare as prepare_command
from mmctr_jax.errors import InputError
from mmctr_jax.prepare.columns import Columns
from mmctr_jax.prepare.proposals import of_items, of_rows, with_proposals
from mmctr_jax.prepare.raw_tables import read_table
from mmctr_jax.prepare.raw_values import as_keys, as_tags, as_times, check_spelling, is_calendar
from mmctr_jax.prepare.text_files import TextFormat

USERS, CLICKS, ITEMS = 30, 12, 20
DAY = 1_700_000_000


def log_of(seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(USERS), CLICKS)
    item = np.concatenate([rng.permutation(ITEMS)[:CLICKS] for _ in range(USERS)])
    return pl.DataFrame({"user": user, "item": item, "time": DAY + 60 * rng.permutation(len(user))})


def prepare(log: Path, out: Path, *options: object) -> dict:
    arguments = ["interactions", log, "--out", out, *options]
    assert prepare_command.main([str(argument) for argument in arguments]) == 0
    return json.loads((out / "manifest.json").read_text())


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


# Cells and lines


def test_a_quote_that_nothing_closes_takes_no_rows_with_it(tmp_path):
    rows = [f"u{i % 7}\ti{i}\tx y\t{DAY + i}" for i in range(100)]
    rows[49], rows[88] = f'u1\ti1\t"Breaking news\t{DAY}', f'u2\ti2\tTV of 24"\t{DAY}'
    log = write(tmp_path / "log.tsv", "user\titem\ttitle\ttime", *rows)
    columns = {name: name for name in ("user", "item", "title", "time")}
    with pytest.raises(InputError, match="line 51: a quote begins a cell that goes on over 39 more lines .*--quote ''"):
        read_table(log, columns)
    assert len(read_table(log, columns, TextFormat(quote=None))) == 100

    rows = [f"u{i % 7},i{i},x y,2025-11-30T17:15:{i % 60:02}" for i in range(100)]
    rows[49], rows[51] = 'u1,i1,"Breaking news,2025-11-30T17:15:00', 'u2,i2,TV of 24",2025-11-30T17:15:00'
    with pytest.raises(InputError, match="line 51: a quote begins a cell that goes on over 2 more lines"):
        read_table(write(tmp_path / "dates.csv", "user,item,title,time", *rows), columns)

    prose = [f'i{i},"one, two\nthree, {i}",{i}' for i in range(50)]
    assert len(read_table(write(tmp_path / "items.csv", "item,text,price", *prose), {"text": "text"})) == 50
    prose = [f'B{i},Title,"Great fun, really.\nWith Tom, Dick and Harry, and Jane.",Brand{i}' for i in range(50)]
    assert len(read_table(write(tmp_path / "books.csv", "asin,title,text,brand", *prose), {"text": "text"})) == 50
    two = write(tmp_path / "two.csv", "a,size,b", '1,5" disk,2', '2,7" disk,2')
    with pytest.raises(InputError, match="has 2 rows, is read as 1: say --quote ''"):
        read_table(two, {"a": "a"})


def test_a_single_stray_quote_is_explained(tmp_path):
    rows = [f"u{i % 7}\ti{i}\tx y\t{DAY + i}" for i in range(100)]
    rows[10] = f'u1\ti1\t"Wheel of Fortune" guest\t{DAY}'
    log = write(tmp_path / "log.tsv", "user\titem\ttitle\ttime", *rows)
    with pytest.raises(InputError, match="say --quote '' if \" means nothing in this file"):
        read_table(log, {"title": "title"})


@pytest.mark.parametrize("quoted", [False, True])
def test_rows_with_fewer_cells_than_the_header_are_refused(tmp_path, quoted):
    rows = [f'u{i},i{i},{DAY + i},"a, b"' if quoted else f"u{i},i{i},{DAY + i},a" for i in range(20)]
    columns = {name: name for name in ("user", "item", "time", "device")}
    header = "user,item,time,device"
    assert len(read_table(write(tmp_path / "whole.csv", header, *rows), columns)) == 20
    (tmp_path / "whole.csv").write_text("\n".join([header, *rows]))  # without a last newline
    assert len(read_table(tmp_path / "whole.csv", columns)) == 20
    (tmp_path / "cut.csv").write_text("\n".join([header, *rows, "u5,i7,17012"]))
    with pytest.raises(InputError, match="line 22: 3 cells, where the header has 4"):
        read_table(tmp_path / "cut.csv", columns)
    blank = write(tmp_path / "blank.csv", header, *rows[:10], "", *rows[10:], "")
    assert len(read_table(blank, columns)) == 20
    last = write(tmp_path / "last.csv", header + ",", *rows, 'u1,i1,17,"x"')  # a separator after the header alone
    assert len(read_table(last, columns)) == 21
    returns = write(tmp_path / "returns.csv", "user,text", "1,foo\rbar", '2,"a, b"', "3,z")
    assert read_table(returns, {"text": "text"})["text"].to_list() == ["foo\rbar", "a, b", "z"]


def test_an_item_file_may_be_written_otherwise_than_the_log(tmp_path):
    frame = log_of()
    frame.write_csv(tmp_path / "log.csv", include_header=False)
    items = write(tmp_path / "items.csv", "item;title", *(f"{i};film, {i}" for i in range(ITEMS)))
    names = ["--user", "column_1", "--item", "column_2", "--time", "column_3", "--item-key", "item"]
    prepare(tmp_path / "log.csv", tmp_path / "out", "--no-header", "--items", items, *names, "--text", "title")
    found = Prepared(tmp_path / "out")
    titles = pl.read_parquet(found.folder / "item_feature.parquet").select("item", "item_title")
    assert dict(titles.iter_rows()) == {str(i): f"film, {i}" for i in range(ITEMS)}

    np.save(tmp_path / "v.npy", np.eye(ITEMS, dtype=np.float32))
    arguments = [found.folder, "--text", tmp_path / "v.npy", "--rows-of", items, "--dim", "20"]
    assert embed_command.main([str(argument) for argument in arguments]) == 0


def test_the_mark_of_utf_8_under_another_encoding_is_refused(tmp_path):
    (tmp_path / "log.csv").write_bytes(b"\xef\xbb\xbfuser,item,time\n1,2,3\n")
    with pytest.raises(InputError, match="begins with the mark of UTF-8; leave out --encoding latin-1"):
        read_table(tmp_path / "log.csv", {"user": "user"}, TextFormat(encoding="latin-1"))


# Types of Parquet


def test_types_of_databases_are_read(tmp_path):
    ids = [uuid.UUID(int=i) for i in range(3)]
    table = pa.table(
        {
            "uuid": pa.array([i.bytes for i in ids], pa.uuid()),
            "bytes": pa.array([b"a", "ü".encode(), None]),
            "nothing": pa.nulls(3),
            "nothings": pa.array([[None], [], None], pa.list_(pa.null())),
            "number": pa.array([Decimal(1), Decimal(2), Decimal(3)], pa.decimal128(38, 0)),
            "long": pa.array([Decimal(10**20), Decimal(2), Decimal(3)], pa.decimal128(38, 0)),
            "float": [1.0, 2.0, 3.0],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet", {name: name for name in table.column_names})
    assert found["uuid"].to_list() == [str(i) for i in ids] and found["bytes"].to_list() == ["a", "ü", None]
    assert found["nothing"].dtype == pl.String and found["nothings"].dtype == pl.List(pl.String)
    keys = {name: as_keys(found[name], Path("t"), name).to_list() for name in ("number", "long", "float")}
    assert keys["number"] == keys["float"] == [1, 2, 3] and keys["long"] == [str(10**20), "2", "3"]


def test_a_column_that_cannot_be_read_stops_only_who_names_it(tmp_path):
    frame = log_of().to_arrow()
    wide = pa.array([Decimal(i) for i in range(len(frame))], pa.decimal256(60, 0))
    prices = pa.array([Decimal(i % 70) / 100 for i in range(len(frame))], pa.decimal128(10, 2))
    pq.write_table(frame.append_column("wide", wide).append_column("price", prices), tmp_path / "log.parquet")
    columns, reasons = with_proposals(tmp_path / "log.parquet", None, Columns(ignore=()))
    assert columns.numbers == ("price",) and list(reasons) == ["price"]
    with pytest.raises(InputError, match="column wide of type decimal256.* cannot be read"):
        read_table(tmp_path / "log.parquet", {"wide": "wide"})


def test_pictures_and_hashes_that_nobody_named_are_left_out(tmp_path):
    frame = log_of().to_arrow()
    picture = pa.array([b"\xff\xd8\xff"] * len(frame), pa.binary())
    small = pa.array([i % 100 for i in range(len(frame))], pa.int32())
    frame = frame.append_column("picture", picture).append_column("small", small)
    pq.write_table(frame, tmp_path / "log.parquet")
    columns, _ = with_proposals(tmp_path / "log.parquet", None, Columns(ignore=()))
    assert columns.numbers == ("small",) and not columns.side


def test_times_of_spark_do_not_wrap_around(tmp_path):
    times = pa.array([datetime(2025, 1, 1), datetime(9999, 12, 31)], pa.timestamp("us"))
    pq.write_table(pa.table({"time": times}), tmp_path / "t.parquet", use_deprecated_int96_timestamps=True)
    values = read_table(tmp_path / "t.parquet", {"time": "time"})["time"]
    assert values[0].year == 2025
    with pytest.raises(InputError, match="9999.* is outside of the years"):
        as_times(values, Path("t"), "time")


def test_part_files_may_name_utc_otherwise_or_hold_no_rows(tmp_path):
    for name, zone, rows in (("a", "UTC", 2), ("b", "Etc/UTC", 1), ("c", None, 0)):
        kind = pa.timestamp("us", zone) if rows else pa.float64()
        pq.write_table(
            pa.table({"time": pa.array([10**15 + i for i in range(rows)]).cast(kind)}), tmp_path / f"{name}.parquet"
        )
    values = read_table(tmp_path, {"time": "time"})["time"]
    assert as_times(values, tmp_path, "time").to_list() == [10**18, 10**18 + 1000, 10**18]
    naive = pa.array([10**15]).cast(pa.timestamp("us"))
    pq.write_table(pa.table({"time": naive}), tmp_path / "d.parquet")
    with pytest.raises(InputError, match="column time is timestamp"):
        read_table(tmp_path, {"time": "time"})


def test_words_for_null_are_null_in_parquet_too(tmp_path):
    table = pa.table({"user": ["a", "nan", " ", "b"], "tags": [["x", "None"], ["nan"], None, []]})
    pq.write_table(table, tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet", {"user": "user", "tags": "tags"})
    assert found["user"].to_list() == ["a", None, None, "b"]
    assert found["tags"].to_list() == [["x"], [], None, []]
    kept = read_table(tmp_path / "t.parquet", {"user": "user"}, TextFormat(null_words=()))
    assert kept["user"].to_list() == ["a", "nan", None, "b"]


# Ids


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (["u5", "u5 ", "u6"], "'u5' and 'u5 ', differ in spaces around it alone, and would be different users"),
        (["5", "5.0"], "'5' and '5.0', differ in decimals of a whole number alone"),
        (["u", "\u00a0u"], "spaces around it"),
    ],
)
def test_one_id_written_in_two_ways_is_refused(ids, words):
    with pytest.raises(InputError, match=re.escape(words)):
        check_spelling(pl.Series(ids), "user")


def test_ids_that_may_be_two_are_warned_of():
    assert "'007' and '7', differ in leading zeros alone: they are taken for" in check_spelling(
        pl.Series(["7", "007", "8"]), "item"
    )
    assert "upper and lower case" in check_spelling(pl.Series(["a", "A"]), "item")
    assert "Unicode" in check_spelling(pl.Series(["é", "e\u0301"]), "item")
    assert "quotes around it" in check_spelling(pl.Series(["Heroes", '"Heroes"']), "item")
    for apart in (["1.2", "1.2.0"], ["v1", "v1.0"], ["TV 24", 'TV 24"'], ["rock'n", "rock'n'"]):
        assert check_spelling(pl.Series(apart), "item") is None
    with pytest.raises(InputError, match="decimals of a whole number"):
        check_spelling(pl.Series(["a", "A", "5", "5.0"]), "item")
    assert check_spelling(pl.Series(["a", "b"]), "item") is check_spelling(pl.Series([1, 2]), "item") is None


def test_ids_that_a_spreadsheet_has_rounded_are_refused():
    with pytest.raises(InputError, match="row 1: '1.23457E\\+12': a spreadsheet has rounded this id"):
        as_keys(pl.Series(["x", "1.23457E+12"]), Path("t.parquet"), "item")
    assert as_keys(pl.Series(["1e5", "3E8a"]), Path("t"), "item").to_list() == ["1e5", "3E8a"]
    with pytest.raises(InputError, match="ids must be integers or text"):
        as_keys(pl.Series([16777216.0, 5.0], dtype=pl.Float32), Path("t"), "item")


# Times


def test_no_time_beside_todays_is_refused(tmp_path):
    for none in (0, -1):
        with pytest.raises(InputError, match=f"row 2: time {none}, where others are as"):
            as_times(pl.Series([DAY, DAY + 1, none]), tmp_path, "time")
    for since_it_began in (range(3), range(0, 2_400_000_000, 2_000_000), range(0, 9_990_000_000_000, 10**9)):
        assert as_times(pl.Series(since_it_began), tmp_path, "time").to_list() == list(since_it_began)
    with pytest.raises(InputError, match="Float32, which rounds times as large as"):
        as_times(pl.Series([DAY, DAY + 60], dtype=pl.Float32), tmp_path, "time")
    mixed = [DAY + i for i in range(150)] + [(DAY + i) * 1000 for i in range(150)] + [99_999_999_999]
    with pytest.raises(InputError, match="write all in one unit"):
        as_times(pl.Series(mixed), tmp_path, "time")


def test_since_in_another_unit_is_refused(tmp_path):
    log_of().with_columns(pl.col("time") * 1000).write_csv(tmp_path / "log.csv")
    with pytest.raises(InputError, match=f"--since {DAY}: .*in another unit"):
        prepare(tmp_path / "log.csv", tmp_path / "out", "--since", DAY)


def test_differences_of_dates_written_as_numbers_are_no_gaps(tmp_path):
    assert is_calendar(pl.Series([20231116143914, 20240229000000]))
    assert is_calendar(pl.Series(["20231116", "20240229"])) and is_calendar(pl.Series([14102100, 14102123]))
    assert not is_calendar(pl.Series([20231316, 20240229])) and not is_calendar(pl.Series([DAY, DAY + 1]))
    day = pl.from_epoch(pl.col("time")).dt.strftime("%Y%m%d%H%M%S")
    log_of().with_columns(day).write_csv(tmp_path / "log.csv")
    prepare(tmp_path / "log.csv", tmp_path / "order")
    with pytest.raises(InputError, match="dates written as numbers, such as 2023.*leave gap out"):
        prepare(tmp_path / "log.csv", tmp_path / "out", "--click-features", "gap")
    log_of().with_columns(gap=1).write_csv(tmp_path / "gap.csv")
    with pytest.raises(InputError, match="has a column gap, and --click-features gap is the time since a click"):
        prepare(tmp_path / "gap.csv", tmp_path / "out", "--click-features", "gap")


# Lists


def tags_of(*values: str, separator: str | None = None) -> list:
    return as_tags(pl.Series(values), Path("t.parquet"), "tags", separator).to_list()


def test_separators_that_are_rare_or_beside_bars_are_seen():
    plain = ["Action", "Drama", "War", "Comedy"] * 5
    with pytest.raises(InputError, match="3 of 23 with ',', such as 'Action,Drama'"):
        tags_of(*plain, *["Action,Drama"] * 3)
    with pytest.raises(InputError, match="has 1 texts with the tag separator '|', and 19 of 20 with ','"):
        tags_of(*[f"Action,Drama{i}" for i in range(19)], "Action|War")
    assert tags_of(*plain, "Lock, Stock") == [[tag] for tag in [*plain, "Lock, Stock"]]
    assert tags_of(*plain, "Action,War") == [[tag] for tag in [*plain, "Action,War"]]  # one may be a name of its own


def test_some_lists_written_as_text_are_lists():
    found = tags_of("['Action', 'Drama']", "War", "Action|War", "")
    assert found == [["Action", "Drama"], ["War"], ["Action", "War"], []]
    found = tags_of(*["War"] * 9, "['a', 'b']", "[]", "[untitled]")
    assert found == [*[["War"]] * 9, ["a", "b"], [], ["[untitled]"]]
    with pytest.raises(InputError, match="lists written as text, such as .*leave --tag-separator out"):
        tags_of("['a', 'b']", "['c']", separator=",")


def test_lists_of_another_day_are_spelled_as_the_first_ones(tmp_path):
    listed = pl.Series([[1, 2], [2], [3]] * (USERS * CLICKS // 3))
    for name, values in (("first", listed), ("next", listed.cast(pl.List(pl.Float64)))):
        texts = values.map_elements(lambda x: str(x.to_list()), pl.String)
        log_of().with_columns(interests=texts).write_csv(tmp_path / f"{name}.csv")
    prepare(tmp_path / "first.csv", tmp_path / "first", "--lists", "interests", "--seed", 1)
    prepare(tmp_path / "next.csv", tmp_path / "next", "--like", tmp_path / "first", "--seed", 1)
    first, after = (Prepared(tmp_path / name).table("train")["interests"] for name in ("first", "next"))
    assert first.list.len().min() == 1 and first.to_list() == after.to_list()


# Proposals


def kind_of(values: list, text: TextFormat = TextFormat()) -> tuple:  # noqa: B008
    return of_rows(pl.Series(values), None, text)


def test_what_columns_are_taken_for():
    numbers = [f"{i}.5" for i in range(100)]
    assert kind_of([*numbers, "-"])[0] is None and "add it to --null-words" in kind_of([*numbers, "-"])[1]
    assert kind_of([str(2**53 + i % 20) for i in range(100)])[0] == "side"
    assert kind_of([2**63 + i % 70 for i in range(200)])[0] == "side"
    assert kind_of([f"{i % 28 + 1}.11.2023" for i in range(100)]) == (None, "dates")
    assert kind_of([f"4.{i % 9}.{i}" for i in range(100)] * 3)[0] == "side"
    assert kind_of([i % 100 for i in range(300)])[0] == "numeric"
    assert kind_of([150_000_000 + i for i in range(0, 300, 3)])[0] == "numeric"
    assert kind_of([*range(1, 200), -(2**63)])[0] == "numeric"
    for unit in (1, 1000):
        assert kind_of([(DAY + i) * unit for i in range(0, 300, 3)])[1].startswith("times such as")
    assert kind_of([f"{i},5" for i in range(100)], TextFormat(decimal=","))[0] == "numeric"
    assert of_items(pl.Series([f"{i % 28 + 1}.{i % 12 + 1}.20{i % 90 + 10}" for i in range(100)]))[0] is None


def test_row_numbers_of_pandas_and_decimal_commas(tmp_path):
    frame = log_of().with_columns(
        pl.int_range(pl.len()).sample(fraction=1, shuffle=True, seed=1).alias("Unnamed: 0") * 3,
        price=pl.format("{},5", pl.int_range(pl.len()) % 70),
    )
    frame.write_csv(tmp_path / "log.csv", separator=";")
    text = TextFormat(separator=";", decimal=",")
    columns, _ = with_proposals(tmp_path / "log.csv", None, Columns(ignore=(), text_format=text))
    assert columns.numbers == ("price",) and not columns.side
    options = ["--separator", ";", "--decimal", ",", "--click-features", "price", "--ignore", "Unnamed: 0"]
    manifest = prepare(tmp_path / "log.csv", tmp_path / "out", *options)
    assert manifest["columns"]["clicks"] == {"price": "numeric"}


def test_a_missing_column_is_told_before_any_proposal(tmp_path, capsys):
    log_of().rename({"user": "User"}).write_csv(tmp_path / "log.csv")
    with pytest.raises(InputError, match="no column 'user'; did you mean 'User'"):
        prepare(tmp_path / "log.csv", tmp_path / "out")
    assert "taken as" not in capsys.readouterr().out


# Days that follow each other


def test_a_word_for_null_that_was_a_value_stays_one(tmp_path):
    regions = pl.Series(["NA", "EU", "None"] * 120)
    log_of().with_columns(region=regions).write_parquet(tmp_path / "log.parquet")
    prepare(tmp_path / "log.parquet", tmp_path / "first", "--side", "region", "--null-words", "nan")
    prepare(tmp_path / "log.parquet", tmp_path / "next", "--like", tmp_path / "first")
    first, after = (Prepared(tmp_path / name).table("train")["region"] for name in ("first", "next"))
    assert first.to_list() == after.to_list() and first.min() == 1


def test_what_is_all_null_today_is_no_other_type(tmp_path):
    frame = log_of().with_columns(coupon=pl.Series(["a", "b", None] * 120), cost=pl.Series([1.5, 2.5, 3.5] * 120))
    frame.write_parquet(tmp_path / "first.parquet")
    prepare(tmp_path / "first.parquet", tmp_path / "first", "--side", "coupon", "--numeric", "cost")
    table = log_of().to_arrow()
    for name in ("coupon", "cost"):
        table = table.append_column(name, pa.nulls(len(table)))
    pq.write_table(table, tmp_path / "next.parquet")
    prepare(tmp_path / "next.parquet", tmp_path / "next", "--like", tmp_path / "first")
    train = pl.read_parquet(tmp_path / "next" / "train.parquet")
    assert train["coupon"].to_list() == [0] * len(train) and train["cost"].is_nan().all()


def test_vectors_of_known_items_cannot_be_changed_in_two_steps_and_may_come_late(tmp_path):
    log_of().write_csv(tmp_path / "log.csv")
    items = write(tmp_path / "items.csv", "item,title", *(f"{i},film {i}" for i in range(ITEMS)))
    prepare(tmp_path / "log.csv", tmp_path / "first", "--items", items, "--text", "title")

    def embed(folder: str, scale: float, dim: int) -> np.ndarray:
        np.save(tmp_path / "v.npy", scale * (1 + np.arange(ITEMS * dim, dtype=np.float32).reshape(ITEMS, dim)))
        where = ["--text", tmp_path / "v.npy", "--rows-of", "item_feature", "--dim", dim]
        assert embed_command.main([str(argument) for argument in [tmp_path / folder, *where]]) == 0
        table = pq.read_table(tmp_path / folder / "item_info.parquet").sort_by("item_id")
        return np.array(table[f"item_emb_d{dim}"].to_pylist(), np.float32)

    embed("first", 1, 2)
    prepare(tmp_path / "log.csv", tmp_path / "next", "--items", items, "--text", "title", "--like", tmp_path / "first")
    with pytest.raises(InputError, match="would change"):
        embed("next", 2, 2)
    with pytest.raises(InputError, match="prepared like another folder, whose items have item_emb_d2"):
        embed("next", 2, 3)
    kept = embed("next", 1, 2)

    path = tmp_path / "next" / "item_info.parquet"
    table, known = pq.read_table(path), kept.copy()
    known[5] = 0  # as of a day that was not embedded
    at = table.schema.get_field_index("item_emb_d2")
    column = pa.FixedSizeListArray.from_arrays(pa.array(known.ravel()), 2)
    pq.write_table(table.set_column(at, table.schema.field(at), column), path)
    np.testing.assert_array_equal(embed("next", 1, 2), kept)


def test_published_files_whose_items_do_not_match_are_refused(tmp_path):
    (tmp_path / "ml").mkdir()
    ratings = log_of().rename({"user": "userId", "item": "movieId", "time": "timestamp"}).with_columns(rating=5.0)
    ratings.write_csv(tmp_path / "ml" / "ratings.csv")
    write(tmp_path / "ml" / "movies.csv", "movieId,title,genres", *(f"{i},film (1999),War" for i in range(500, 520)))
    with pytest.raises(InputError, match="No item of .*ratings.csv is in .*movies.csv"):
        prepare_command.main(["movielens", str(tmp_path / "ml"), "--out", str(tmp_path / "out")])


# More cells, times that are none, alike values


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("1,shoes,5,10\n2,shoes, size 5,6,11\n", "line 3: 5 cells, where the header has 4; put quotes"),
        ('1,"a, b",5,10\n2,"c", d,6,11\n', "line 3: 5 cells, where the header has 4; put quotes"),
        ("1,shoes,5,10\n2,hat, red,6,11\n3,5,12\n", "line 3: 5 cells"),
        ('1,24" and 27", both,5,10\n2,hat,6,11\n', "line 2: 5 cells"),
        ('1, "a, b",5,10\n2, "c, d",6,11\n', "line 2: 5 cells"),
        ('1,["a, b"],5,10\n2,["c, d"],6,11\n', "line 2: 5 cells"),
        ("1,shoes,5,\n2,hat, red,6,\n3,shoes,7,\n", "line 3: 5 cells"),
        (f"1,{'x' * 200_000},5,10\n2,hat, red,6,11\n", "line 3: 5 cells"),
        ("1,a\rb,5,10\n2,hat, red,6,11\n", "line 3: 5 cells"),
    ],
    ids=[
        "plain",
        "beside quotes",
        "as many separators in all",
        "inches",
        "a space before quotes",
        "JSON",
        "nothing last",
        "a long cell",
        "a return in a cell",
    ],
)
def test_a_row_with_more_cells_than_the_header_is_refused_whatever_is_read_of_it(tmp_path, content, words):
    for name in ("log.csv", "log.csv.zst.csv"):
        path = tmp_path / name
        with pa.output_stream(str(path), compression="zstd" if "zst" in name else None) as stream:
            stream.write(f"user,query,item,time\n{content}".encode())
        for columns in ({"item": "item", "time": "time"}, {name: name for name in ("user", "query", "item", "time")}):
            with pytest.raises(InputError, match=words):
                read_table(path, columns)


def test_a_separator_at_the_end_of_each_row_is_no_more_cell(tmp_path):
    for header in ("user,item", "user,item,"):
        (tmp_path / "log.csv").write_text(f'{header}\n1,5,\n2,"6",\n')
        assert read_table(tmp_path / "log.csv", {"user": "user", "item": "item"}).rows() == [("1", "5"), ("2", "6")]
    (tmp_path / "log.csv").write_text("user,item,\n1,5,\n2,6,7\n")
    with pytest.raises(InputError, match="line 3: 3 cells, where the header has 2"):
        read_table(tmp_path / "log.csv", {"user": "user"})
    (tmp_path / "one.csv").write_text("item\n0,x\n")
    with pytest.raises(InputError, match="line 2: 2 cells, where the header has 1"):
        read_table(tmp_path / "one.csv", {"item": "item"})
    (tmp_path / "log.csv").write_text('user,item\n1,"the \\"best, of\\" all"\n2,b\n')
    with pytest.raises(InputError, match="escapes quotes within cells by backslashes"):
        read_table(tmp_path / "log.csv", {"user": "user"})


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_compressed_file_that_was_cut_off_is_one_sentence(tmp_path, kind):
    """Behind what is looked at first."""
    rows = "".join(f"{i * 7919 % 3001},{i * 104729 % 499},{DAY + i * i}\n" for i in range(60_000))
    path = tmp_path / "log.csv"
    with pa.output_stream(str(path), compression=kind) as stream:
        stream.write(f"user,item,time\n{rows}".encode())
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(InputError, match="log.csv cannot be read"):
        read_table(path, {"user": "user"})


@pytest.mark.parametrize(
    ("usual", "odd"),
    [
        (DAY, 2**31 - 1),
        (DAY, 20231130),
        (DAY, 19_700),
        (1000 * DAY, 20231130171500),
        (20231130, 0),
        (20231130, 19700101),
        (20231130, 19000101),
        (20231130, 99991231),
        (20231130171500, 19000101000000),
        ("2023-11-30T17:15:00Z", "1970-01-01T00:00:00Z"),
        ("2023-11-30 17:15:00", "2099-12-31 00:00:00"),
        (datetime(2023, 11, 30), datetime(1900, 1, 1)),
    ],
    ids=str,
)
def test_times_far_from_all_others_are_refused(usual, odd):
    values = pl.Series([usual] * 5 + [odd] + [usual] * 2)
    with pytest.raises(InputError, match=re.escape(f"time {odd}, where others are as {usual}; fill or drop")):
        as_times(values, Path("log.csv"), "time")
    assert len(as_times(values.filter(values != odd), Path("log.csv"), "time")) == 7


def test_times_of_some_decades_are_no_others():
    dates = [19991231, 20231130], [19122800, 20010100], [19890115, 20010101, 20240101]
    for values in ([800_000_000, 950_000_000, 2_000_000_000], *dates, ["1995-01-01", "2034-01-01"]):
        assert len(as_times(pl.Series(values), Path("log.csv"), "time")) == len(values)
    with pytest.raises(InputError, match="is not a time"):
        as_times(pl.Series(["2023-11-30T17:15:00+99:00"]), Path("log.csv"), "time")


def test_iso_times_in_the_basic_form():
    values = pl.Series(["20231130T171500Z", "20231130T1715z", "2023-11-30T17:15:00.5Z", "20231130T181500.5+0100"])
    times = as_times(values, Path("log.csv"), "time")
    assert (times - times[0]).to_list() == [0, 0, 500_000_000, 500_000_000]
    assert times[0] == 1_701_364_500 * 10**9


def test_decimals_without_fractions_are_exact_times():
    times = [1_700_000_000_000_000_000 + 100 * i for i in range(5)]
    values = pl.Series(times, dtype=pl.Decimal(38, 0))
    assert as_times(values, Path("log.parquet"), "time").to_list() == times


@pytest.mark.parametrize("since", ["20231115", "2023", "1700000000000"])
def test_a_time_in_another_form_than_the_logs_is_refused(tmp_path, since):
    log_of().write_csv(tmp_path / "log.csv")
    with pytest.raises(InputError, match="in another unit or form"):
        prepare(tmp_path / "log.csv", tmp_path / "out", "--since", since)
    log_of().with_columns(pl.col("time").rank("dense")).write_csv(tmp_path / "log.csv")
    prepare(tmp_path / "log.csv", tmp_path / "out", "--since", "1")


@pytest.mark.parametrize("separator", ["^", "\x02", "\x1d", "&&"])
def test_separators_of_other_programs_are_named(separator):
    values = pl.Series([separator.join(f"t{i}" for i in (a, a + 1)) for a in range(9)])
    with pytest.raises(InputError, match="--tag-separator"):
        as_tags(values, Path("items.csv"), "tags", None)


def test_spaces_between_what_stands_alone_elsewhere_are_told_of(caplog):
    names = ["New York", "San Francisco", "York"]
    assert as_tags(pl.Series(names), Path("items.csv"), "tags", None).to_list() == [[name] for name in names]
    assert "--tag-separator" not in caplog.text
    genres = ["Rock", "Pop", "Folk", "Pop Rock", "Folk Rock"]
    assert as_tags(pl.Series(genres), Path("items.csv"), "tags", None).to_list() == [[genre] for genre in genres]
    assert "if spaces separate tags, say --tag-separator ' '" in caplog.text


def test_some_lists_of_numbers_among_tags():
    values = pl.Series(["3", "3|1", "[1, 2]", "EU|NA"])
    assert as_tags(values, Path("i.csv"), "tags", None).to_list() == [["3"], ["3", "1"], ["1", "2"], ["EU", "NA"]]


@pytest.mark.parametrize("odd", ["u1\u200b", "u1\x00", "\ufeffu1"])
def test_ids_that_differ_in_what_is_not_seen_are_refused(odd):
    with pytest.raises(InputError, match="characters around it that are not seen"):
        check_spelling(pl.Series(["u1", "u2", odd]), "user")


def test_what_joins_parts_of_an_id_is_a_part_of_it():
    for ids in (["1\t23", "12\t3"], ["\u0646\u0645\u06cc\u200c\u062e", "\u0646\u0645\u06cc\u062e"]):
        assert check_spelling(pl.Series(ids), "user") is None


def test_values_that_seem_to_mean_the_same_are_told(tmp_path, capsys):
    log = log_of().with_columns(device=pl.Series(["ios", "ios ", "web"] * 120), kind=pl.Series(["buy", "see"] * 180))
    log.write_parquet(tmp_path / "log.parquet")
    prepare(tmp_path / "log.parquet", tmp_path / "out", "--side", "device,kind")
    said = " ".join(capsys.readouterr().out.split())
    assert "Column device has 'ios' and 'ios ', which differ in spaces around it alone" in said
    assert "Column kind has" not in said
    log.with_columns(kind=pl.Series(["buy", "Buy"] * 180)).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(InputError, match="has 'Buy', too, which differs in case or spaces alone"):
        prepare(tmp_path / "log.parquet", tmp_path / "no", "--histories", "kind=buy")
    prepare(tmp_path / "log.parquet", tmp_path / "both", "--histories", "kind=buy,kind=Buy")


def test_a_user_with_much_of_the_log_is_told(tmp_path, capsys):
    log = log_of()
    log.write_csv(tmp_path / "log.csv")
    prepare(tmp_path / "log.csv", tmp_path / "out")
    assert "of all interactions" not in capsys.readouterr().out
    log.with_columns(user=pl.when(pl.int_range(len(log)) % 3 == 0).then(-1).otherwise("user")).write_csv(
        tmp_path / "log.csv"
    )
    prepare(tmp_path / "log.csv", tmp_path / "out2")
    assert "User -1 has 33% of all interactions" in " ".join(capsys.readouterr().out.split())


def test_a_log_that_knows_nobody_of_the_earlier_one_is_told(tmp_path, capsys):
    log_of().write_csv(tmp_path / "log.csv")
    prepare(tmp_path / "log.csv", tmp_path / "out")
    log_of().with_columns(pl.col("user") + 1000).write_csv(tmp_path / "next.csv")
    prepare(tmp_path / "next.csv", tmp_path / "next", "--like", tmp_path / "out")
    said = " ".join(capsys.readouterr().out.split())
    assert "None of the 30 users of this log is known to" in said and "None of the 20 items" not in said


def test_categories_of_an_earlier_log_stay_categories_whatever_numbers_a_day_has(tmp_path, capsys):
    """Also where they are so many that a first preparation would ask for --numeric, or have fractions."""
    day = log_of().with_columns(amount=pl.Series([float(i % 40) for i in range(360)]))
    items = pl.DataFrame({"item": range(ITEMS), "cost": [float(i % 9) for i in range(ITEMS)]})
    day.write_csv(tmp_path / "1.csv"), items.write_csv(tmp_path / "items.csv")
    before = prepare(tmp_path / "1.csv", tmp_path / "1", "--items", tmp_path / "items.csv")
    assert [feature["name"] for feature in before["side"]] == ["amount", "clicks_level"]
    more = pl.DataFrame({"item": range(90), "cost": [i / 2 for i in range(90)]})
    more.write_csv(tmp_path / "items.csv")
    after = day.with_columns(
        amount=pl.Series([i / 4 for i in range(360)]), item=pl.Series([i % 90 for i in range(360)])
    )
    after.write_csv(tmp_path / "2.csv")
    options = "--items", tmp_path / "items.csv", "--like", tmp_path / "1"
    assert prepare(tmp_path / "2.csv", tmp_path / "2", *options)["side"] == before["side"]
    assert "of the values of amount are new" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["*", "^p.*$"])
def test_names_that_are_patterns_are_no_features(tmp_path, name):
    log_of().with_columns(pl.lit("a").alias("p"), pl.Series(name, ["x", "y"] * 180)).write_csv(tmp_path / "log.csv")
    assert prepare(tmp_path / "log.csv", tmp_path / "out")["side"] == [{"name": "clicks_level", "vocab_size": 11}]
    with pytest.raises(InputError, match="takes such a name for a pattern"):
        prepare(tmp_path / "log.csv", tmp_path / "no", "--side", name)


@pytest.mark.parametrize(
    ("mark", "inside"), [("_delta_log/0.json", "day=1"), ("metadata/v1.metadata.json", "data"), (".hoodie/a", ".")]
)
def test_a_part_of_a_table_with_a_log_of_its_own_is_refused(tmp_path, mark, inside):
    (tmp_path / mark).parent.mkdir()
    (tmp_path / mark).write_text("{}")
    folder = tmp_path / inside
    folder.mkdir(exist_ok=True)
    log_of().write_parquet(folder / "a.parquet")
    with pytest.raises(InputError, match="is a part of .*write it as plain Parquet"):
        prepare(folder / "a.parquet", tmp_path / "out")


def test_a_folder_called_metadata_makes_no_table(tmp_path):
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "model.metadata.json").write_text("{}")
    log_of().write_parquet(tmp_path / "log.parquet")
    prepare(tmp_path / "log.parquet", tmp_path / "out")


def test_few_prices_and_a_word_are_numbers_with_a_word():
    prices = pl.Series([f"{i}.5" for i in range(27)] + ["unknown"] * 3)
    assert of_items(prices).kind is None and "'unknown'" in of_items(prices).reason
    assert of_items(pl.Series([f"{i}.99 EUR" for i in range(30)])).reason.startswith("amounts such as")
    for sizes in ([f"{i}.5" for i in range(9)] * 3 + ["one size"], [f"EUR {i}" for i in range(30, 40)] * 3):
        assert of_items(pl.Series(sizes)).kind == "item_side"
