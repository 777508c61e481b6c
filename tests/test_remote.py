"""URLs where paths may stand, on an S3 server that others wrote: read whole, kept, made again when they change."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from stores import SECRET
from synthetic import items_of, raw_config, write_dataset

from mmctr_jax import remote
from mmctr_jax.commands import predict as predict_command
from mmctr_jax.commands import prepare as prepare_command
from mmctr_jax.commands import train as train_command
from mmctr_jax.config import parse_config
from mmctr_jax.data.cache import load_split
from mmctr_jax.data.parquet import part_files
from mmctr_jax.errors import InputError
from mmctr_jax.prediction.predict import predict
from mmctr_jax.training.loop import train


def upload(store, path: Path, key: str) -> None:
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        at = key if path.is_file() else f"{key}/{file.relative_to(path)}"
        with store.open_output_stream(f"shop/{at}") as stream:
            stream.write(file.read_bytes())


@pytest.mark.slow
def test_a_training_and_its_predictions_are_those_of_local_files(store, tmp_path, capsys):
    data = write_dataset(tmp_path / "data")
    upload(store, data, "day one")
    raw = raw_config(data)
    there = {name: str(path).replace(str(data), "s3://shop/day one") for name, path in raw["data"].items()}
    there["cache_dir"] = raw["data"]["cache_dir"]
    raw["train"]["epochs"] = 1
    runs = {"local": raw, "remote": raw | {"data": there}}
    for name, settings in runs.items():
        train(parse_config(settings), tmp_path / name)
        predict(tmp_path / name, out=tmp_path / f"{name}.parquet")
    frames = [pl.read_parquet(tmp_path / f"{name}.parquet") for name in runs]
    assert frames[0].equals(frames[1]) and len(frames[0]) > 0
    assert "s3://shop/day one/train.parquet" in (tmp_path / "remote" / "config.yaml").read_text()
    out = capsys.readouterr()
    assert SECRET not in out.out + out.err + "".join(p.read_text() for p in (tmp_path / "remote").glob("*.*l*"))
    # Resumed where copies are gone, and with the same files from elsewhere.
    remote._remove(remote.cache_folder())
    assert train(parse_config(runs["remote"]), tmp_path / "remote", resume=True).steps > 0
    assert train(parse_config(raw), tmp_path / "remote", resume=True).steps > 0


def test_a_log_is_prepared_from_there(store, tmp_path):
    rng = np.random.default_rng(0)
    log = {"user": rng.integers(0, 20, 300), "item": rng.integers(0, 30, 300), "time": np.arange(300)}
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    pl.DataFrame({"item": range(30), "tags": [f"t{i % 3}" for i in range(30)]}).write_csv(tmp_path / "items.csv")
    upload(store, tmp_path / "log.csv", "raw/log.csv")
    upload(store, tmp_path / "items.csv", "raw/items.csv")
    for name, place in (("here", tmp_path), ("there", "s3://shop/raw")):
        arguments = ["interactions", f"{place}/log.csv", "--items", f"{place}/items.csv", "--tags", "tags"]
        assert prepare_command.main([*arguments, "--negatives", "1", "--out", str(tmp_path / name)]) == 0
    for file in ("train.parquet", "item_info.parquet"):
        assert (tmp_path / "here" / file).read_bytes() == (tmp_path / "there" / file).read_bytes()


@pytest.mark.slow
def test_a_folder_is_prepared_into_the_store_and_trained_from_there(store, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    log = {"user": rng.integers(0, 40, 900), "item": rng.integers(0, 30, 900), "time": np.arange(900)}
    pl.DataFrame(log).write_parquet(tmp_path / "log.parquet")
    arguments = ["interactions", str(tmp_path / "log.parquet"), "--negatives", "1", "--out"]
    assert prepare_command.main([*arguments, str(tmp_path / "shop")]) == 0
    assert prepare_command.main([*arguments, "s3://shop/days/shop"]) == 0
    with pytest.raises(InputError, match="Output folder s3://shop/days/shop exists"):
        prepare_command.main([*arguments, "s3://shop/days/shop"])
    for name in ("train.parquet", "test_labels.parquet", "item_info.parquet", "vocabularies/user_id.parquet"):
        with store.open_input_stream(f"shop/days/shop/{name}") as stream:
            assert stream.read() == (tmp_path / "shop" / name).read_bytes()
    monkeypatch.chdir(tmp_path)
    few = ["train.epochs=1", "model.embedding_dim=4", "train.ema=null"]
    assert train_command.main(["--config", "s3://shop/days/shop/shop.yaml", *few, "--run-dir", "run"]) == 0
    assert "s3://shop/days/shop/valid.parquet" in (tmp_path / "run" / "config.yaml").read_text()
    likes = {"folder": tmp_path / "shop", "by_url": "s3://shop/days/shop", "by_run": "run"}
    for name, like in likes.items():
        assert prepare_command.main([*arguments, str(tmp_path / name), "--like", str(like)]) == 0
        assert (tmp_path / name / "train.parquet").read_bytes() == (tmp_path / "folder/train.parquet").read_bytes()
        manifest = json.loads((tmp_path / name / "manifest.json").read_text())
        assert manifest["like"] == (str(like) if name == "folder" else "s3://shop/days/shop")


def test_what_fails_leaves_nothing_in_the_store(store, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    log = {"user": rng.integers(0, 40, 900), "item": rng.integers(0, 30, 900), "time": np.arange(900)}
    pl.DataFrame(log).write_parquet(tmp_path / "log.parquet")
    monkeypatch.setattr("mmctr_jax.prepare.folder.write", lambda *_: (_ for _ in ()).throw(OSError("no room")))
    with pytest.raises(InputError, match="s3://shop/out cannot be written: no room"):
        prepare_command.main(["interactions", str(tmp_path / "log.parquet"), "--out", "s3://shop/out"])
    assert store.get_file_info("shop/out").type == pyarrow.fs.FileType.NotFound


@pytest.mark.parametrize("other", ["day=2/b.parquet", "_delta_log/0.json", "metadata/v1.metadata.json", "notes.txt"])
def test_a_folder_there_is_prepared_whole_or_refused(store, tmp_path, other):
    pl.DataFrame({"user": [1], "item": [2], "time": [3]}).write_parquet(tmp_path / "a.parquet")
    for key in ("log/a.parquet", f"log/{other}"):
        upload(store, tmp_path / "a.parquet", key)
    with pytest.raises(InputError, match=f"s3://shop/log holds {other.split('/')[0]}"):
        prepare_command.main(["interactions", "s3://shop/log", "--engine", "spark", "--out", str(tmp_path / "out")])


@pytest.mark.slow
def test_on_spark_from_store_to_store(store, tmp_path):
    pytest.importorskip("pyspark", reason="pyspark is not installed (extra: spark)")
    rng = np.random.default_rng(0)
    log = pl.DataFrame({"user": rng.integers(0, 40, 900), "item": rng.integers(0, 30, 900), "time": np.arange(900)})
    (tmp_path / "log").mkdir()
    for part in range(3):
        log.slice(300 * part, 300).write_parquet(tmp_path / "log" / f"{part}.parquet")
    upload(store, tmp_path / "log", "raw/log")
    options = ["--negatives", "1", "--ignore", "*", "--out"]
    assert prepare_command.main(["interactions", str(tmp_path / "log"), *options, str(tmp_path / "here")]) == 0
    there = ["interactions", "s3://shop/raw/log", "--engine", "spark", *options, "s3://shop/there"]
    environment = os.environ | {"PYSPARK_SUBMIT_ARGS": "--master local[2] pyspark-shell"}
    found = subprocess.run([sys.executable, "-m", "mmctr_jax", "prepare", *there], env=environment, capture_output=True)
    assert found.returncode == 0, found.stderr[-2000:]
    for split in ("train", "test", "test_labels"):
        assert pl.read_parquet(part_files(f"s3://shop/there/{split}.parquet")).equals(
            pl.read_parquet(tmp_path / "here" / f"{split}.parquet")
        )
    names = [file.path for file in store.get_file_info(pyarrow.fs.FileSelector("shop", recursive=True))]
    assert "shop/there/train.parquet/_SUCCESS" in names and not any("_log_" in name for name in names)
    assert SECRET not in (found.stdout + found.stderr).decode()


def test_copies_are_made_again_when_the_original_changes_and_kept_when_not(store, tmp_path):
    for name, rows in (("a", 3), ("b", 2)):
        pl.DataFrame({"x": np.arange(rows)}).write_parquet(tmp_path / f"{name}.parquet")
        upload(store, tmp_path / f"{name}.parquet", f"parts/{name}.parquet")
    files = part_files("s3://shop/parts")
    assert [pq.read_table(file).num_rows for file in files] == [3, 2]
    before = [file.stat().st_ino for file in files]
    assert [file.stat().st_ino for file in part_files(Path("s3://shop/parts"))] == before  # and by a Path
    store.delete_file("shop/parts/a.parquet")
    pl.DataFrame({"x": np.arange(7)}).write_parquet(tmp_path / "b.parquet")
    upload(store, tmp_path / "b.parquet", "parts/b.parquet")
    assert [pq.read_table(file).num_rows for file in part_files("s3://shop/parts")] == [7]
    time.sleep(1.1)  # S3's times are in seconds
    same_size = pl.DataFrame({"x": np.arange(7)[::-1].copy()})
    same_size.write_parquet(tmp_path / "b.parquet")
    upload(store, tmp_path / "b.parquet", "parts/b.parquet")
    (file,) = part_files("s3://shop/parts")
    assert pl.read_parquet(file).equals(same_size)


def test_a_copy_that_was_cut_short_is_made_again(store, tmp_path):
    pl.DataFrame({"x": np.arange(9)}).write_parquet(tmp_path / "a.parquet")
    upload(store, tmp_path / "a.parquet", "a.parquet")
    (file,) = part_files("s3://shop/a.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    assert part_files("s3://shop/a.parquet") == [file] and file.read_bytes() == whole


def test_folders_are_whole_or_refused_there_too(store, tmp_path):
    pl.DataFrame({"x": np.arange(9)}).write_parquet(tmp_path / "a.parquet")
    upload(store, tmp_path / "a.parquet", "mixed/a.parquet")
    (tmp_path / "b.csv").write_text("x\n1\n")
    upload(store, tmp_path / "b.csv", "mixed/b.csv")
    with pytest.raises(InputError, match="mixed"):
        part_files("s3://shop/mixed")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://shop/nothing.parquet", "There is nothing at s3://shop/nothing.parquet; check the URL"),
        (f"s3://someone:{SECRET}@shop/x.parquet", "A URL of s3:// holds credentials; leave them out"),
        ("https://host/x.parquet", "The URL https://host/x.parquet cannot be read: only s3, gs, hdfs and file can"),
        ("hdfs://host/x.parquet", "The URL hdfs://host/x.parquet cannot be read: "),
    ],
)
def test_what_is_not_there_is_one_sentence(store, url, words):
    with pytest.raises(InputError) as error:
        part_files(url)
    assert words in str(error.value) and "\n" not in str(error.value) and SECRET not in str(error.value)


@pytest.mark.slow
def test_a_store_that_refuses_is_one_sentence(store, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(InputError, match="The URL s3://shop/x.parquet cannot be read: "):
        part_files("s3://shop/x.parquet")


def test_files_of_this_machine_are_read_where_they_are(tmp_path):
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "a.parquet")
    assert part_files(f"file://{tmp_path}/a.parquet") == [tmp_path / "a.parquet"]


@pytest.mark.parametrize("command", ["compare", "convert", "embed", "export", "inspect", "report", "tune"])
def test_what_is_written_here_alone_is_not_written_by_url(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = {
        "compare": ["a.yaml"],
        "convert": ["jax-to-torch", "run"],
        "tune": ["--config", "a.yaml", "--space", "b.yaml"],
    }
    main = importlib.import_module(f"mmctr_jax.commands.{command}").main
    with pytest.raises(InputError, match="s3://shop/out is a URL, and this is written to this machine alone"):
        main([*arguments.get(command, ["place"]), "--out", "s3://shop/out"])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_scores_are_written_to_the_store(store, tmp_path):
    data = write_dataset(tmp_path / "data")
    raw = raw_config(data)
    raw["train"]["epochs"] = 1
    train(parse_config(raw), tmp_path / "run")
    upload(store, data / "test.parquet", "test.parquet")
    for name in ("scores.parquet", "scores.csv", "scores.zip"):
        task = ["--task", "Task2"] if name.endswith("zip") else []
        for place in (tmp_path, "s3://shop/out"):
            assert predict_command.main(["--ckpt", str(tmp_path / "run"), "--out", f"{place}/{name}", *task]) == 0
        with store.open_input_stream(f"shop/out/{name}") as stream:
            assert stream.read() == (tmp_path / name).read_bytes()
    assert predict_command.main(["--ckpt", f"file://{tmp_path}/run", "--out", f"file://{tmp_path}/there.csv"]) == 0
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "scores.csv").read_bytes()
    there = ["--data", "s3://shop/test.parquet", "--out", "s3://shop/test.parquet"]
    with pytest.raises(InputError, match="would overwrite what is to be read"):
        predict_command.main(["--ckpt", str(tmp_path / "run"), *there])


def test_rows_of_a_folder_there(store, tmp_path):
    data = write_dataset(tmp_path / "data")
    upload(store, data / "train.parquet", "train/part-0.parquet")
    config = parse_config(raw_config(data))
    features = config.with_features(items_of(config).features).features
    here = load_split(data / "train.parquet", features, None, with_labels=True)
    there = load_split("s3://shop/train", features, None, with_labels=True)
    assert here.rows == there.rows and np.array_equal(here.label, there.label)
