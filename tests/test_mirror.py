"""Runs by URL: the run that a folder would be, whole at the URL wherever its writer dies, and one writer at a time."""

import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.fs
import pytest
import yaml
from synthetic import merged, raw_config, write_dataset

from mmctr_jax.commands import predict as predict_command
from mmctr_jax.commands import report as report_command
from mmctr_jax.commands import train as train_command
from mmctr_jax.config import parse_config
from mmctr_jax.errors import InputError, TrainingError
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.runs import mirror
from mmctr_jax.runs.recorder import read_records
from mmctr_jax.training.loop import train

RUN, KEY = "s3://shop/runs/a day", "shop/runs/a day"


def raw_settings(tmp_path, **changed):
    data = tmp_path / "data"
    raw = raw_config(data if data.is_dir() else write_dataset(data))
    return merged(raw, {"train": {"epochs": 1, "patience": 100} | changed})


def settings(tmp_path, **changed):
    return parse_config(raw_settings(tmp_path, **changed))


def elsewhere(tmp_path, monkeypatch, name) -> Path:
    """Another machine: another cache. Returns where it keeps the run while it trains."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
    return tmp_path / name / "mmctr_jax" / "runs" / "s3" / "shop" / "runs" / "a day"


def names_at(store) -> set[str]:
    found = store.get_file_info(pyarrow.fs.FileSelector(KEY, recursive=True))
    return {file.path.removeprefix(f"{KEY}/") for file in found if file.type == pyarrow.fs.FileType.File}


def files_of(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()} - {".lock"}


def steps_of(names) -> set[str]:
    return {name.split("/")[1] for name in names if name.startswith("checkpoints/")}


def beside_checkpoints(names) -> set[str]:
    return {name for name in names if not name.startswith(("checkpoints", "tensorboard"))}


def aucs(directory) -> list[float]:
    records = read_records(mirror.copied(directory) / "metrics.jsonl")
    return [record["auc"] for record in records if record["kind"] == "validation"]


@pytest.mark.slow
def test_a_run_at_a_url_goes_on_elsewhere_and_is_read_from_there(store, tmp_path, monkeypatch):
    """As in a folder, to the bit; by whatever reads runs."""
    folder, here = tmp_path / "run", elsewhere(tmp_path, monkeypatch, "one")
    train(settings(tmp_path), folder)
    train(settings(tmp_path), RUN)
    assert not here.exists() and not Path("s3:").exists()
    here = elsewhere(tmp_path, monkeypatch, "two")
    with pytest.raises(InputError, match=f"Run directory {RUN} exists; add --resume"):
        train(settings(tmp_path), RUN)
    for place in (folder, RUN):
        train(settings(tmp_path, epochs=3), place, resume=True)
    assert not here.exists() and aucs(folder) == aucs(RUN) and len(aucs(RUN)) == 3
    there = names_at(store) - {"files.json"}
    assert steps_of(there) == steps_of(files_of(folder))
    beside = [
        {n for n in names if not n.startswith(("checkpoints", "tensorboard"))} for names in (there, files_of(folder))
    ]
    assert beside[0] == beside[1]
    assert np.array_equal(*(Predictor.load(place).logits(tmp_path / "data/valid.parquet") for place in (folder, RUN)))
    for file in (file for file in folder.rglob("*") if file.is_file()):  # copied by hand
        with store.open_output_stream(f"shop/by hand/{file.relative_to(folder)}") as stream:
            stream.write(file.read_bytes())
    scored = Predictor.load("s3://shop/by hand").logits(tmp_path / "data/valid.parquet")
    assert np.array_equal(scored, Predictor.load(folder).logits(tmp_path / "data/valid.parquet"))
    with pytest.raises(InputError, match=f"The run is at {RUN}; say where the scores go"):
        predict_command.main(["--ckpt", RUN])
    with pytest.raises(InputError, match="keeps what it fits in the run directory"):
        predict_command.main(["--ckpt", RUN, "--calibrate", "platt", "--out", str(tmp_path / "scores.csv")])
    assert report_command.main([RUN, str(folder), "--out", str(tmp_path / "page.html")]) == 0
    assert train(settings(tmp_path), tmp_path / "next", init_from=RUN).steps > 0
    assert RUN in (tmp_path / "next" / "metadata.json").read_text()


@pytest.mark.slow
def test_wherever_copying_stops_the_files_at_the_url_are_those_of_one_moment(store, tmp_path, monkeypatch):
    """Whatever is written, deleted and cut off: checkpoints that the list names are whole, and of one training."""
    elsewhere(tmp_path, monkeypatch, "reader")
    monkeypatch.setattr(mirror, "_SOON", 600)
    rng, folder, last = np.random.default_rng(0), tmp_path / "run", None
    real, moments, seen = mirror.writing_file, [], set()
    for step in range(1, 12):
        for old in sorted((folder / "checkpoints").glob("???"))[:-1]:
            shutil.rmtree(old)
        for name in ("a/x", "a/y", "b"):
            file = folder / "checkpoints" / str(100 + step) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(rng.bytes(int(rng.integers(0, 50))))
        (folder / "checkpoints" / "999.orbax-checkpoint-tmp-1").mkdir(exist_ok=True)
        (folder / "checkpoints" / "999.orbax-checkpoint-tmp-1" / "b").write_text("not whole yet")
        (folder / "config.yaml").write_text("x")
        moments.append(
            {name: (folder / name).read_bytes() for name in files_of(folder) if "tmp" not in name and name != ".mirror"}
        )
        asked, most = [], int(rng.integers(0, 6)) if step % 3 else 99

        def cut_off(path, asked=asked, most=most):
            asked.append(path)
            if len(asked) > most:
                raise OSError("cut off")
            return real(path)

        monkeypatch.setattr(mirror, "writing_file", cut_off)
        problem = mirror._Mirror(Path(RUN), folder, f"training {step}", last).end(well=True)
        assert (problem is None) == (len(asked) <= most), (problem, asked)
        listed = mirror._listed(Path(RUN))
        last = listed and listed["writer"]
        if listed and listed["files"]:
            here = mirror.copied(RUN)
            found = {name: (here / name).read_bytes() for name in files_of(here)}
            seen.add(moments.index(found))
        if most == 99:
            assert names_at(store) == moments[-1].keys() | {"files.json"}
            directories = store.get_file_info(pyarrow.fs.FileSelector(f"{KEY}/checkpoints"))
            assert len(directories) == len(list((folder / "checkpoints").glob("???")))
    assert {2, 5, 8} <= seen


def test_a_moment_without_a_checkpoint_is_none_where_there_is_one(tmp_path, monkeypatch):
    """A walk over the folder sees none where one is replaced just before it looks into it."""
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    for name in ("config.yaml", "checkpoints/7/weights"):
        (tmp_path / name).write_text("x")
    it = object.__new__(mirror._Mirror)
    it._folder, it._name = tmp_path, RUN
    whole, looks = it._files(), []

    def files():
        looks.append(1)
        return {"config.yaml": whole["config.yaml"]} if len(looks) <= unlucky else whole

    monkeypatch.setattr(it, "_files", files)
    for unlucky in (1, 2, 4, 100):
        looks.clear()
        if unlucky == 100:
            with pytest.raises(InputError, match="too fast"), it._moment(True):
                pass
        else:
            with it._moment(False) as (found, _):
                assert found == whole
    (tmp_path / "checkpoints" / "7").rename(tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp")
    looks.clear()
    with it._moment(False) as (found, _):  # the first one is being written
        assert list(found) == ["config.yaml"]


def test_records_at_the_url_are_of_the_moment_of_the_checkpoints(store, tmp_path, monkeypatch):
    """Training goes on while its files are copied: records that come meanwhile have no checkpoint there yet."""
    elsewhere(tmp_path, monkeypatch, "reader")
    monkeypatch.setattr(mirror, "_SOON", 600)
    folder, real = tmp_path / "run", mirror.writing_file
    folder.mkdir()
    (folder / "config.yaml").write_text("x")
    (folder / "metrics.jsonl").write_text("1\n")

    def while_it_goes_on(path):
        with (folder / "metrics.jsonl").open("a") as records:
            records.write("2\n")
        return real(path)

    monkeypatch.setattr(mirror, "writing_file", while_it_goes_on)
    assert mirror._Mirror(Path(RUN), folder, "training", None).end(well=True) is None
    at_first = "1\n2\n"  # the list was begun before the moment, config.yaml was copied after it
    assert (mirror.copied(RUN) / "metrics.jsonl").read_text() == at_first
    assert mirror._listed(Path(RUN))["files"]["metrics.jsonl"][0] == len(at_first)
    assert len((folder / "metrics.jsonl").read_text()) > len(at_first)


@pytest.mark.slow
def test_wherever_copying_stops_the_run_goes_on_elsewhere(store, tmp_path, monkeypatch):
    """The machine is gone before all files are there; another goes on, and ends where one alone does."""
    train(settings(tmp_path, epochs=3), tmp_path / "straight")
    train(settings(tmp_path), RUN)
    real, here, written = mirror.writing_file, elsewhere(tmp_path, monkeypatch, "one"), []

    def cut_off(path):
        if len([path for path in written if "/checkpoints/10/" in str(path)]) >= 12:  # half of its files
            raise OSError("cut off")
        written.append(path)
        return real(path)

    monkeypatch.setattr(mirror, "writing_file", cut_off)
    with pytest.raises(TrainingError, match=f"{RUN} cannot be written: cut off. The run is whole in {here}"):
        train(settings(tmp_path, epochs=2), RUN, resume=True)
    monkeypatch.setattr(mirror, "writing_file", real)
    assert Predictor.load(RUN).step > 0
    assert files_of(mirror.copied(RUN)) <= names_at(store)
    elsewhere(tmp_path, monkeypatch, "two")
    train(settings(tmp_path, epochs=3), RUN, resume=True)
    assert aucs(RUN) == aucs(tmp_path / "straight")
    assert steps_of(names_at(store)) == steps_of(files_of(tmp_path / "straight"))


@pytest.mark.slow
def test_what_did_not_get_there_goes_on_from_here(store, tmp_path, monkeypatch):
    here = elsewhere(tmp_path, monkeypatch, "one")
    address = os.environ["AWS_ENDPOINT_URL"]

    def unplugged(step, auc):
        os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
        return True

    monkeypatch.setattr(mirror, "_SOON", 600)
    with pytest.raises(TrainingError, match="The run is whole in"):
        train(settings(tmp_path, epochs=2), RUN, end_early=unplugged)
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    assert (here / "config.yaml").is_file()
    with suppress(FileNotFoundError):
        assert not [name for name in names_at(store) if name.startswith("checkpoints")]
    with pytest.raises(InputError, match="add --resume to go on with it"):
        train(settings(tmp_path, epochs=2), RUN)
    train(settings(tmp_path, epochs=2), tmp_path / "straight")
    train(settings(tmp_path, epochs=2), RUN, resume=True)
    assert aucs(RUN) == aucs(tmp_path / "straight") and not here.exists()


@pytest.mark.slow
def test_the_one_that_was_resumed_elsewhere_says_so_and_overwrites_nothing(store, tmp_path, monkeypatch):
    train(settings(tmp_path), RUN)

    before = mirror._listed(Path(RUN))["writer"]

    def resumed_elsewhere(step, auc):
        while mirror._listed(Path(RUN))["writer"] == before:
            time.sleep(0.1)
        with monkeypatch.context() as there:
            elsewhere(tmp_path, there, "two")
            train(settings(tmp_path, epochs=3), RUN, resume=True)
        return True

    elsewhere(tmp_path, monkeypatch, "one")
    with pytest.raises(TrainingError, match=f"Another training writes to {RUN} now"):
        train(settings(tmp_path, epochs=2), RUN, resume=True, end_early=resumed_elsewhere)
    assert len(aucs(RUN)) == 3
    # Gone on with where it was left behind: from the URL, and what was there stays.
    train(settings(tmp_path, epochs=4), RUN, resume=True)
    assert len(aucs(RUN)) == 4
    (aside,) = elsewhere(tmp_path, monkeypatch, "one").parent.glob("a day-*")
    assert len(aucs(aside)) == 2


@pytest.mark.slow
def test_what_is_wrong_leaves_the_run_to_the_one_at_work(store, tmp_path, monkeypatch):
    """A config that does not fit, and data that is not there."""
    train(settings(tmp_path), RUN)
    before = store.open_input_stream(f"{KEY}/files.json").read()
    with pytest.raises(InputError, match="was begun with another config"):
        train(settings(tmp_path, batch_size=32), RUN, resume=True)
    assert store.open_input_stream(f"{KEY}/files.json").read() == before
    with pytest.raises(InputError):
        train(parse_config(merged(raw_settings(tmp_path), {"data": {"train": "nowhere"}})), "s3://shop/runs/new")
    assert not store.get_file_info(pyarrow.fs.FileSelector("shop/runs/new", allow_not_found=True))


@pytest.mark.slow
def test_a_killed_process_is_resumed_on_another_machine(store, tmp_path, monkeypatch):
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(raw_settings(tmp_path, lr_factor=1.0, patience=10000)))
    program = "import sys; from mmctr_jax.cli import run; from mmctr_jax.runs import mirror; "
    program += "mirror._EVERY = 3; run('train', sys.argv[1:])"
    command = [sys.executable, "-c", program, "--config", str(config), "--run-dir", RUN]
    with (tmp_path / "said").open("w") as said:
        pipes = {"stdout": said, "stderr": said, "cwd": Path(__file__).parents[1]}
        running = subprocess.Popen([*command, "train.epochs=10000", "--resume"], **pipes)
        deadline, validations = time.monotonic() + 120, 0
        while validations < 4:
            assert running.poll() is None and time.monotonic() < deadline, Path(said.name).read_text()
            time.sleep(0.3)
            with suppress(InputError):
                validations = len(aucs(RUN))
        running.kill()
        running.wait()
    elsewhere(tmp_path, monkeypatch, "another")
    assert Predictor.load(RUN).step > 0
    epochs = len(aucs(RUN)) + 2
    assert train_command.main(["--config", str(config), "--run-dir", RUN, "--resume", f"train.epochs={epochs}"]) == 0
    assert len(aucs(RUN)) == epochs


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "is not a run directory (it has no files.json)"),
        ("{", "files.json is damaged"),
        ('{"writer": "x", "files": {"../../.bashrc": [1, 2]}}', "files.json is damaged"),
        ('{"writer": "x", "files": {"/etc/passwd": [1, 2]}}', "files.json is damaged"),
        ('{"writer": "x", "files": {"config.yaml": [1]}}', "files.json is damaged"),
        ('{"writer": "x", "files": {"config.yaml": [1, 2]}}', "cannot be read"),
    ],
)
def test_what_is_no_run_is_refused(store, tmp_path, text, words):
    store.create_dir(KEY)
    for name, content in (("other.txt", "x"), ("files.json", text)):
        if content is not None:
            with store.open_output_stream(f"{KEY}/{name}") as stream:
                stream.write(content.encode())
    with pytest.raises(InputError) as error:
        Predictor.load(RUN)
    assert words in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(InputError):
        train(settings(tmp_path), RUN, resume=True)
    assert names_at(store) == {"other.txt", "files.json"} - ({"files.json"} if text is None else set())
