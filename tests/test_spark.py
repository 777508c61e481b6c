"""`--engine spark`: the rows that the local engine writes, byte for byte; bad logs are refused in a sentence."""

import datetime
import importlib.util
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from mmctr_jax.commands import prepare as prepare_command
from mmctr_jax.errors import InputError

needs_spark = pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None, reason="pyspark is not installed (extra: spark)"
)
PARTITIONS = 4


@pytest.fixture(scope="module")
def spark():
    """A session of four partitions on two cores, as a person's spark-submit would have made it."""
    from pyspark.sql import SparkSession

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = {
            "spark.default.parallelism": PARTITIONS,
            "spark.ui.enabled": False,
            "spark.driver.host": "127.0.0.1",
        }
        builder = SparkSession.builder.master("local[2]").config(map=settings | {"spark.driver.host": "127.0.0.1"})
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYSPARK_PYTHON", sys.executable)
            patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
            session = builder.getOrCreate()
            yield session
            session.stop()


def shop_log(seed: int = 0, rows: int = 3000, users: int = 150) -> pl.DataFrame:
    """A shop's log with a column of every kind, ids that are numbers and ids that are not, and equal times."""
    rng = np.random.default_rng(seed)
    start = datetime.datetime(2026, 3, 1)
    return pl.DataFrame(
        {
            "user": [str(u) if u % 3 else f"guest {u}" for u in rng.integers(0, users, rows)],
            "item": (rng.pareto(1, rows) * 20).astype(int) % 80,
            "time": [start + datetime.timedelta(minutes=int(m)) for m in rng.integers(0, 4000, rows)],
            "shown": rng.random(rows) < 0.7,
            "liked": rng.random(rows) < 0.3,
            "weight": rng.random(rows) + 0.5,
            "price": np.where(rng.random(rows) < 0.1, np.nan, rng.random(rows) * 9),
            "device": [["phone", "tablet", None][i] for i in rng.integers(0, 3, rows)],
            "shop": [f"s{i}" for i in rng.integers(0, 500, rows)],
            "action": [["click", "buy"][i] for i in rng.integers(0, 2, rows)],
            "interests": [["a", "b", "c"][:n] for n in rng.integers(0, 4, rows)],
        }
    )


ITEMS = pl.DataFrame(
    {
        "item": [str(i) for i in range(0, 90, 2)],
        "topics": [["even", f"t{i % 5}"] for i in range(0, 90, 2)],
        "name": [f"item {i}" for i in range(0, 90, 2)],
        "brand": [f"b{i % 7}" for i in range(0, 90, 2)],
        "cost": [float(i % 13) for i in range(0, 90, 2)],
    }
)
EVERY_KIND = [
    *("--label", "shown", "--weight", "weight", "--labels", "liked=0.3", "--side", "device", "--numeric", "price"),
    *("--lists", "interests", "--hash", "shop=50", "--click-features", "action,price,gap"),
    *("--histories", "action=buy", "--tags", "topics", "--text", "name", "--item-side", "brand"),
    *("--item-numeric", "cost", "--levels", "clicks,cost", "--history", "7", "--ignore", "*"),
]


def write_parts(folder: Path, log: pl.DataFrame, parts: int = 3) -> Path:
    folder.mkdir()
    each = -(-len(log) // parts)
    for number in range(parts):
        part = log.slice(number * each, each)
        part.write_parquet(folder / f"part-{number}.parquet", row_group_size=max(len(log) // 7, 1))
    return folder


def prepared(log: Path, out: Path, *options: object) -> Path:
    arguments = ["interactions", log, "--out", out, *options]
    assert prepare_command.main([str(argument) for argument in arguments]) == 0
    return out


def assert_same(local: Path, spark: Path) -> None:
    for split in ("train", "valid", "test", "test_labels"):
        parts = spark / f"{split}.parquet"
        assert pl.read_parquet(local / parts.name).equals(pl.read_parquet(parts)), split
        assert pq.read_schema(local / parts.name).metadata == pq.ParquetDataset(parts).schema.metadata
        assert (parts / "_SUCCESS").exists()
    for file in [local / "item_info.parquet", local / "item_feature.parquet", *(local / "vocabularies").iterdir()]:
        assert file.read_bytes() == (spark / file.relative_to(local)).read_bytes(), file
    one, other = (json.loads((folder / "manifest.json").read_text()) for folder in (local, spark))
    for manifest in (one, other):
        del manifest["folder"], manifest["files"]
    assert one == other


@needs_spark
@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--split", "time", "--negatives", "2"],
        ["--split", "user", "--min-item-clicks", "5", "--min-value-count", "200"],
        ["--split", "last", "--negatives", "logged", "--per-user", "2"],
    ],
    ids=lambda options: options[1],
)
def test_the_rows_are_those_of_the_local_engine(tmp_path, spark, options):
    log, items = write_parts(tmp_path / "log", shop_log()), tmp_path / "items.parquet"
    ITEMS.write_parquet(items)
    options = [*EVERY_KIND, "--items", items, *options]
    local = prepared(log, tmp_path / "local", *options)
    assert_same(local, prepared(log, tmp_path / "spark", *options, "--engine", "spark"))
    assert len(list((tmp_path / "spark" / "train.parquet").glob("*.parquet"))) == PARTITIONS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.parquet", "local", "log", "spark"]


@needs_spark
@pytest.mark.slow
def test_a_later_day_goes_on_with_an_earlier_one(tmp_path, spark):
    options = ["--side", "device", "--numeric", "price", "--lists", "interests", "--ignore", "*"]
    first = prepared(write_parts(tmp_path / "one", shop_log()), tmp_path / "first", *options)
    later = shop_log(1).with_columns(pl.col("item") + 3, device=pl.col("device").replace("tablet", "watch"))
    log = write_parts(tmp_path / "two", later)
    local = prepared(log, tmp_path / "local", "--like", first)
    assert_same(local, prepared(log, tmp_path / "spark", "--like", first, "--engine", "spark"))


@needs_spark
@pytest.mark.slow
def test_text_files_are_read_by_one_task(tmp_path, spark):
    log = shop_log().select("user", "item", "price", pl.col("time").dt.to_string("%Y-%m-%dT%H:%M:%S+02:00"))
    log.write_csv(tmp_path / "log.csv", separator=";")
    options = ["--separator", ";", "--numeric", "price"]
    local = prepared(tmp_path / "log.csv", tmp_path / "local", *options)
    assert_same(local, prepared(tmp_path / "log.csv", tmp_path / "spark", *options, "--engine", "spark"))


@needs_spark
@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda log: log.with_columns(user=pl.when(pl.int_range(len(log)) == 2700).then(None).otherwise("user")),
         "part-2.parquet, row group 1, column user, row 272: no id"),
        (lambda log: log.with_columns(shown=False), "every shown is 0"),
        (lambda log: log.with_columns(time=pl.when(pl.int_range(len(log)) < 1000).then(pl.lit("2026-03-01"))
            .otherwise(pl.lit("2026-03-01T00:00:00Z"))),
         "column time is dates with a time zone in one part and dates without a time zone in another"),
        (lambda log: log.head(0), "has no rows"),
        (lambda log: log.drop("liked"), "has no column 'liked'"),
    ],
)  # fmt: skip
def test_bad_logs_are_refused_in_a_sentence(tmp_path, spark, broken, message):
    log = write_parts(tmp_path / "log", broken(shop_log()))
    options = ["--label", "shown", "--labels", "liked=0.3", "--ignore", "*", "--engine", "spark"]
    with pytest.raises(InputError, match=message) as raised:
        prepared(log, tmp_path / "out", *options)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


@needs_spark
@pytest.mark.slow
def test_spark_submit_takes_the_file_that_the_docs_name(tmp_path):
    import pyspark

    log = write_parts(tmp_path / "log", shop_log())
    options = ["--side", "device", "--ignore", "*"]
    local = prepared(log, tmp_path / "local", *options)
    submit = Path(pyspark.__file__).parent / "bin" / "spark-submit"
    script = Path(__file__).parents[1] / "deploy" / "prepare.py"
    command = [submit, "--master", "local[2]", script, "interactions", log, "--out", "spark", *options]
    environment = os.environ | {"PYSPARK_PYTHON": sys.executable, "PYTHONPATH": str(script.parents[1])}
    subprocess.run([*map(str, command), "--engine", "spark"], cwd=tmp_path, env=environment, check=True)
    assert_same(local, tmp_path / "spark")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tags", "topics", "--ignore", "*"], "--tags names a column of the item file; name that file with --items"),
        (["--ignore", "prize"], "--ignore prize: there is no such column"),
        (["--side", "devise", "--ignore", "*"], "has no column 'devise'; did you mean 'device'"),
    ],
)
def test_options_that_name_nothing_are_refused_before_spark_starts(tmp_path, options, message):
    log = write_parts(tmp_path / "log", shop_log())
    with pytest.raises(InputError, match=message):
        prepared(log, tmp_path / "out", *options, "--engine", "spark")


def test_without_pyspark_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark", None)
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    monkeypatch.setitem(sys.modules, "pyspark.errors", None)
    log = write_parts(tmp_path / "log", shop_log())
    with pytest.raises(InputError, match=r"install it: pip install 'mmctr-jax\[spark\]'"):
        prepared(log, tmp_path / "out", "--engine", "spark", "--ignore", "*")
