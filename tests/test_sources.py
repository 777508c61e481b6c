"""Logs as people have them: published files, CSV, TSV, Parquet; what is wrong with one is said in one sentence."""

import csv
import datetime
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from mmctr_jax.errors import InputError
from mmctr_jax.prepare import interactions, microlens, movielens
from mmctr_jax.prepare.interactions import Columns

MOVIELENS = Path(__file__).parents[1] / "data" / "ml-latest-small"


# MovieLens ----------------------------------------------------------------------------------------------------------


def test_the_shipped_data_is_as_published():
    published = {
        "README.txt": "63d22ac138e80fae37021797ed8e1b9424b5239dc576a137422adf783ae3f404",
        "links.csv": "97ad18e4e56a09363c65676b6cb3482ce3e2cea2372a24620c1599c843325f31",
        "movies.csv": "5a5f32dd9bb3797b8e728a1b98958789d2b13f294a69fdfbc5727f8a9611aa07",
        "ratings.csv": "aa289ca83157595d0df6aea1be6a4ded676ddc4385472e8313a8ed9805352646",
    }
    assert {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in MOVIELENS.iterdir()} == published


def test_movielens_ratings_of_4_and_more_are_clicks():
    source = movielens.read(MOVIELENS)
    with open(MOVIELENS / "ratings.csv", encoding="utf-8") as stream:
        expected = [
            (int(r["userId"]), int(r["movieId"]), int(r["timestamp"]), float(r["rating"]) >= 4)
            for r in csv.DictReader(stream)
        ]
    assert source.log.select("user", "item", "time", "click").rows() == expected
    items = {row["item"]: row for row in source.items.iter_rows(named=True)}
    assert len(items) == 9742
    assert items[1]["tags"] == ["Adventure", "Animation", "Children", "Comedy", "Fantasy", "1990s"]
    assert items[1]["text"] == "Toy Story Adventure Animation Children Comedy Fantasy"
    assert items[122888]["tags"] == ["2010s"] and items[122888]["text"] == "Ben-hur"  # no genres listed


# MicroLens ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "microlens"
    folder.mkdir()
    (folder / "ML_pairs.tsv").write_text("7\t3 1  2\n5\t2 3 \n")
    (folder / "ML_titles.csv").write_text(
        'item,title\n1,"One, two # Big  Cat #dog!"\n3,# a b c d e f g # Ünder_score #\n2,"no tag"\n'
    )
    (folder / "ML_likes_and_views.txt").write_text("1\t10\t100\n2\t20\t200\n9\t90\t900\n")
    return folder


def test_microlens_lines_are_users_in_order(published):
    source = microlens.read(published)
    assert source.log.rows() == [(7, 3, 0), (7, 1, 1), (7, 2, 2), (5, 2, 0), (5, 3, 1)]
    assert not source.has_times and "no date" in source.notes[0]
    items = {row["item"]: row for row in source.items.iter_rows(named=True)}
    assert items[1]["tags"] == ["big cat", "dog"] and items[1]["text"].startswith("One, two")
    assert items[3]["tags"] == ["a b c d e f", "ünder score"] and items[3]["likes"] is None
    assert items[2]["tags"] == [] and (items[2]["likes"], items[2]["views"]) == (20, 200)
    assert items[9] == {"item": 9, "text": None, "likes": 90, "views": 900, "tags": []}


def test_microlens_with_timestamps_is_preferred(published):
    (published / "ML_pairs.csv").write_text("userID,videoID,timestamp\n5,3,1600000000\n7,1,1500000000\n")
    source = microlens.read(published)
    assert source.log.rows() == [(5, 3, 1600000000), (7, 1, 1500000000)] and source.has_times


def test_microlens_items_or_users_listed_twice_and_ids_of_text(published):
    titles = published / "ML_titles.csv"
    titles.write_text(titles.read_text() + "x9,text id\n")
    assert set(microlens.read(published).items["item"]) == {"1", "2", "3", "9", "x9"}
    titles.write_text(titles.read_text() + "3,again\n")
    with pytest.raises(InputError, match="ML_titles.csv, column item, line 6: item 3 stands there twice"):
        microlens.read(published)
    (published / "ML_pairs.tsv").write_text("7\t3 1\n5\t2 3\n7\t2\n")
    with pytest.raises(InputError, match="ML_pairs.tsv, column user, line 3: user 7 has a line already"):
        microlens.read(published)


def test_microlens_files_that_are_missing_or_broken(published):
    (published / "ML_likes_and_views.txt").write_text("1\t10\t100\n2\tmany\t200\n")
    with pytest.raises(InputError, match="ML_likes_and_views.txt, column likes, line 2: 'many' is not a number"):
        microlens.read(published)
    (published / "ML_pairs.tsv").write_text("7\t3 1 2\n5\n")
    with pytest.raises(InputError, match="ML_pairs.tsv, line 2: 1 cells, where the first line has 2"):
        microlens.read(published)
    (published / "ML_titles.csv").unlink()
    with pytest.raises(InputError, match=r"has no file \*_titles.csv or .*; give the folder of the published"):
        microlens.read(published)


# Any log ------------------------------------------------------------------------------------------------------------

LOG = {"user": ["a", "b", "a"], "item": ["007", "x", "12"], "time": [3, 1, 2]}


def write(path: Path, table: dict) -> Path:
    frame = pl.DataFrame(table)
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path, separator="," if path.suffix == ".csv" else "\t")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_log_reads_the_same_from_every_format(tmp_path, suffix):
    source = interactions.read(write(tmp_path / f"log{suffix}", LOG), None, Columns())
    assert source.log.rows() == [("a", "007", 3), ("b", "x", 1), ("a", "12", 2)]  # '007' is no number
    assert not source.has_non_clicks


def test_a_folder_of_part_files_is_one_log(tmp_path):
    (tmp_path / "parts").mkdir()
    for i in range(3):
        write(tmp_path / "parts" / f"part-{i}.parquet", {name: values[i : i + 1] for name, values in LOG.items()})
    assert interactions.read(tmp_path / "parts", None, Columns()).log.rows() == [*pl.DataFrame(LOG).iter_rows()]


def test_ids_of_digits_are_numbers_whatever_the_format(tmp_path):
    table = {"user": [10, 9, 10], "item": [1, 2, 3], "time": [1, 2, 3]}
    for suffix in (".csv", ".parquet"):
        source = interactions.read(write(tmp_path / f"log{suffix}", table), None, Columns())
        assert source.log.rows() == [(10, 1, 1), (9, 2, 2), (10, 3, 3)]


@pytest.mark.parametrize(
    "times",
    [
        ["2024-03-01T10:00:00", "2024-02-29T23:59:59", "2024-03-01T09:59:59.5"],
        ["2024-03-01 10:00:00", "2024-02-29 23:59:59", "2024-03-01 09:59:59"],
        ["2024-03-02", "2024-02-29", "2024-03-01"],
        ["1.75e9", "0.5", "3"],
    ],
)
def test_times_as_text(tmp_path, times):
    source = interactions.read(write(tmp_path / "log.csv", LOG | {"time": times}), None, Columns())
    first, second, third = source.log["time"]
    assert second < third < first


def test_times_as_dates_in_parquet(tmp_path):
    times = [datetime.datetime(2024, 3, 1, 10), datetime.datetime(2024, 2, 29), datetime.datetime(2024, 3, 1)]
    for values in (times, [t.date() + datetime.timedelta(days=t.hour) for t in times]):
        source = interactions.read(write(tmp_path / "log.parquet", LOG | {"time": values}), None, Columns())
        first, second, third = source.log["time"]
        assert second < third < first


def test_times_keep_their_order_to_the_nanosecond_and_across_zones(tmp_path):
    nanoseconds = pl.Series([2_000_000_001, 2_000_000_000, 2_000_000_002]).cast(pl.Datetime("ns"))
    source = interactions.read(write(tmp_path / "log.parquet", LOG | {"time": nanoseconds}), None, Columns())
    assert source.log["time"].to_list() == [2_000_000_001, 2_000_000_000, 2_000_000_002]
    zones = ["2024-03-01T10:00:00+02:00", "2024-03-01T09:30:00+00:00", "2024-03-01T08:00:00.5Z"]
    source = interactions.read(write(tmp_path / "log.csv", LOG | {"time": zones}), None, Columns())
    first, second, third = source.log["time"]
    assert first < third < second


def test_labels_as_floats_and_file_names_that_look_like_patterns(tmp_path):
    write(tmp_path / "log2.parquet", LOG)
    path = write(tmp_path / "log*.parquet", LOG | {"label": [1.0, 0.0, 1.0]})
    source = interactions.read(path, None, Columns(label="label"))
    assert source.log["click"].to_list() == [True, False, True]


def test_part_files_of_different_widths(tmp_path):
    (tmp_path / "parts").mkdir()
    pl.DataFrame({"user": [1], "item": [2], "time": [3]}).cast(pl.Int32).write_parquet(tmp_path / "parts" / "a.parquet")
    wide = pl.DataFrame({"user": [4], "item": [2**40], "time": [6], "more": ["x"]})
    wide.write_parquet(tmp_path / "parts" / "b.parquet")
    assert interactions.read(tmp_path / "parts", None, Columns()).log.rows() == [(1, 2, 3), (4, 2**40, 6)]


def test_columns_by_name(tmp_path):
    table = {
        "visitor": [1, 2],
        "sku": ["p", "q"],
        "when": [5, 6],
        "bought": [True, False],
        "importance": [0.5, 2.0],
        "device": ["phone", ""],
        "hour": [3, 4],
    }
    columns = Columns("visitor", "sku", "when", "bought", "importance", ("device", "hour"))
    source = interactions.read(write(tmp_path / "log.parquet", table), None, columns)
    assert source.log["click"].to_list() == [True, False] and source.has_non_clicks
    assert source.log["weight"].to_list() == [0.5, 2.0]
    assert source.log["device"].to_list() == ["phone", None] and source.log["hour"].to_list() == ["3", "4"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_items_with_tags_text_and_numbers(tmp_path, suffix):
    items = {
        "sku": ["12", "x"],
        "title": ["Red  shoe", ""],
        "brand": [None, "ACME"],
        "labels": ["red, shoe ,,", None],
        "price": [9.5, None],
    }
    if suffix == ".parquet":
        items["labels"] = [["red", "shoe", ""], None]
    columns = Columns(item_key="sku", tags="labels", tag_separator=",", text=("title", "brand"), numeric=("price",))
    source = interactions.read(write(tmp_path / "log.csv", LOG), write(tmp_path / f"items{suffix}", items), columns)
    first, second = source.items.iter_rows(named=True)
    assert first["tags"] == ["red", "shoe"] and not second["tags"]
    assert (first["text"], second["text"], first["price"], second["price"]) == ("Red  shoe", "ACME", 9.5, None)


@pytest.mark.parametrize(
    "table, columns, message",
    [
        ({"item": ["a", None, "b"]}, {}, "log.csv, column item, line 3: no id"),
        ({"time": ["1", "2", "soon"]}, {}, "log.csv, column time, line 4: 'soon' is not a number"),
        ({"time": ["2024-01-01", "2", "3"]}, {}, "log.csv, column time, line 3: '2' is not a time"),
        ({"time": ["1", None, "3"]}, {}, "log.csv, column time, line 3: no number; fill or drop"),
        ({"time": ["1", "inf", "3"]}, {}, "line 3: 'inf' is not a number"),
        (
            {},
            {"time": "timestamp"},
            "log.csv has no column 'timestamp'; did you mean 'time'\\? It has user, item, time",
        ),
        ({"label": [1, 2, 0]}, {"label": "label"}, "column label, line 3: label 2; labels must be 0 or 1"),
        ({"w": [1.0, 0.0, 2.0]}, {"weight": "w"}, "column w, line 3: weight 0; weights must be above 0"),
        (
            {"label": ["a", "b", "c"]},
            {"side": ("label",)},
            "--side: column 'label' of .* prepared files have a column",
        ),
        (
            {"x_level": [1, 2, 3]},
            {"side": ("x_level",)},
            "--side: column 'x_level' of .* prepared files have a column",
        ),
        (
            {"u": [1, 2, 3]},
            {"user": "u", "side": ("user",)},
            "--side: column 'user' of .* prepared files have a column",
        ),
        ({"../up": [1, 2, 3]}, {"side": ("../up",)}, "column '../up' of .* a feature's name is printable, without '/'"),
        ({"d": [1, 2, 3]}, {"side": ("d", "d")}, "--side: column d is named twice"),
        (
            {"w": [1.0, 1e-50, 2.0]},
            {"weight": "w"},
            "column w, line 3: weight 1e-50; weights must be above 0, in float32",
        ),
        ({"time": ["03/04/2024", "2024-01-01", "2024-01-02"]}, {}, "line 2: '03/04/2024' is not a time"),
        ({"label": [0, 0, 0]}, {"label": "label"}, "every label is 0; there is no click to learn from"),
        ({}, {"tags": "kind"}, "--tags names a column of the item file; name that file with --items"),
    ],
)
def test_what_a_log_is_refused_for(tmp_path, table, columns, message):
    path = write(tmp_path / "log.csv", LOG | table)
    with pytest.raises(InputError, match=message):
        interactions.read(path, None, Columns(**columns))


def test_more_that_is_refused(tmp_path):
    log = write(tmp_path / "log.csv", LOG)
    floats = write(tmp_path / "log.parquet", LOG | {"temperature": [0.5, 1.5, 2.5], "user": [1.0, 2.5, 3.0]})
    with pytest.raises(InputError, match="log.parquet: column user has type Float64; ids must be integers or text"):
        interactions.read(floats, None, Columns())
    with pytest.raises(InputError, match="column temperature has type Float64; categories are text or whole numbers"):
        interactions.read(floats, None, Columns(user="item", side=("temperature",)))
    twice = write(tmp_path / "items.csv", {"item": ["x", "y", "x"]})
    with pytest.raises(InputError, match="items.csv, column item, line 4: item x stands there twice"):
        interactions.read(log, twice, Columns())
    priced = write(tmp_path / "priced.csv", {"item": ["x", "y"], "price": ["", "cheap"]})
    with pytest.raises(InputError, match="priced.csv, column price, line 3: 'cheap' is not a number"):
        interactions.read(log, priced, Columns(numeric=("price",)))
    with pytest.raises(InputError, match="does not exist"):
        interactions.read(tmp_path / "none.csv", None, Columns())
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="broken.parquet cannot be read"):
        interactions.read(tmp_path / "broken.parquet", None, Columns())
    (tmp_path / "empty.csv").write_text("user,item,time\n")
    with pytest.raises(InputError, match="empty.csv has no rows"):
        interactions.read(tmp_path / "empty.csv", None, Columns())
    (tmp_path / "nothing.csv").write_text("")
    with pytest.raises(InputError, match="nothing.csv cannot be read"):
        interactions.read(tmp_path / "nothing.csv", None, Columns())


# The program --------------------------------------------------------------------------------------------------------


def program(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mmctr_jax", "prepare", *arguments]
    environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": ""}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_the_program_from_a_csv_to_a_folder(tmp_path):
    rows = [f"u{i % 7},i{i * i * 31 % 97},{i},{int(i % 3 == 0)}" for i in range(200)]
    (tmp_path / "clicks.csv").write_text("user,item,time,clicked\n" + "\n".join(rows) + "\n")
    (tmp_path / "things.csv").write_text("item,name\n" + "".join(f"i{i},thing {i}\n" for i in range(50)))
    arguments = ("interactions", "clicks.csv", "--items", "things.csv", "--text", "name", "--label", "clicked")
    result = program(tmp_path, *arguments, "--out", "shop")
    assert result.returncode == 0, result.stderr
    assert "Next: mmctr train --config shop/shop.yaml" in result.stdout
    manifest = json.loads((tmp_path / "shop" / "manifest.json").read_text())
    assert manifest["options"]["negatives"] is None  # the log's own non-clicks, since it has some
    assert [file["name"] for file in manifest["files"]] == ["clicks.csv", "things.csv"]
    digest = hashlib.sha256((tmp_path / "things.csv").read_bytes()).hexdigest()
    assert manifest["files"][1]["sha256"] == digest
    sampled = program(tmp_path, *arguments, "--negatives", "4", "--out", "sampled")
    assert sampled.returncode == 0
    assert pq.read_table(tmp_path / "sampled" / "train.parquet")["label"].to_numpy().mean() == pytest.approx(
        1 / 5, 0.05
    )

    again = program(tmp_path, *arguments, "--out", "shop")
    assert again.returncode == 2 and again.stderr == (
        "error: Output folder shop exists; remove it or name another with --out.\n"
    )
    wrong = program(tmp_path, "interactions", "clicks.csv", "--user", "visitor", "--out", "wrong")
    assert wrong.returncode == 2 and "has no column 'visitor'" in wrong.stderr and len(wrong.stderr.splitlines()) == 1
    assert not (tmp_path / "wrong").exists()
