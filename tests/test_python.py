"""As a library: rows in memory, any number of them, in a notebook, under any flags; and the docs' page of that."""

import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from compiling import SOON
from synthetic import ITEMS, QUICK, SYSTEMS, config_for, items_of, merged, raw_config

from benchmarks.shop import write_shop
from mmctr_jax.commands import prepare as prepare_command
from mmctr_jax.config import load_config
from mmctr_jax.data.cache import read_labelled
from mmctr_jax.data.items import load_items
from mmctr_jax.data.parquet import Column
from mmctr_jax.devices import hosts
from mmctr_jax.devices.flags import plain_jax
from mmctr_jax.errors import InputError
from mmctr_jax.files import expanded
from mmctr_jax.prediction import calibration
from mmctr_jax.prediction.calibration import Calibration
from mmctr_jax.prediction.predict import predict
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.training.loop import train

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    directory = tmp_path_factory.mktemp("python") / "run"
    train(config_for(dataset, **merged(SYSTEMS["matching"], {"train": {"epochs": 1}})), directory)
    return directory


@pytest.fixture(scope="module")
def predictor(run):
    return Predictor.load(str(run))


@pytest.mark.slow
def test_the_page_of_the_docs(tmp_path, monkeypatch):
    write_shop(tmp_path, users=60, shown=20, items=60)
    arguments = ["interactions", "day1.csv", "--items", "items.csv", "--label", "clicked", "--split", "user"]
    monkeypatch.chdir(tmp_path)
    assert prepare_command.main([*arguments, "--out", "data/shop"]) == 0
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.S)
    assert len(code) > 5
    names = {}
    for block in code:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert len(names["best"]) == 40 and names["retrieved"].shape == (3, 10)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    """In a kernel of its own, from the folder of the documentation."""
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install '.[notebook]'")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install '.[notebook]'")
    pytest.importorskip("ipykernel", reason="needs ipykernel: pip install '.[notebook]'")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT / "docs")}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert "(epoch 2.00): loss" in "".join(output.get("text", "") for output in outputs)  # it shows how training goes
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3


def test_rows_in_memory_of_every_kind_are_scored_as_files_are(predictor, dataset, tmp_path):
    frame = pl.read_parquet(dataset / "test.parquet")
    expected = predictor.score(dataset / "test.parquet")
    predict(predictor.directory, dataset / "test.parquet", tmp_path / "p.parquet")
    np.testing.assert_allclose(expected, pq.read_table(tmp_path / "p.parquet")["score"].to_numpy(), atol=1e-6)
    wide = frame["item_seq"].list.len().max()
    padded = np.array([[0] * (wide - len(h)) + h for h in frame["item_seq"].to_list()])
    arrays = {name: frame[name].to_numpy() for name in ("item_id", "likes_level", "views_level")}
    for rows in (frame, frame.to_arrow(), frame.to_dict(as_series=False), arrays | {"item_seq": padded}):
        np.testing.assert_allclose(predictor.score(rows), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"item_id": [ITEMS]}, f"rows: column item_id, row 0: id {ITEMS}; item_info has ids 0 … {ITEMS - 1}"),
        ({"item_id": [-1]}, "rows: column item_id, row 0: id -1"),
        ({"item_seq": [[1, 10**6]]}, "rows: column item_seq, row 0: id 1000000"),
        ({"likes_level": [None]}, "rows: column likes_level, row 0: null"),
        ({"likes_level": [1, 2]}, "The rows are no table"),
        ({"item_id": [object()]}, "The rows are no table"),
    ],
)
def test_what_is_wrong_in_memory_is_said(predictor, change, sentence):
    rows = {"item_seq": [[1, 2]], "item_id": [3], "likes_level": [1], "views_level": [1]} | change
    with pytest.raises(InputError) as error:
        predictor.score(rows)
    assert sentence in str(error.value)


def test_columns_of_other_libraries_and_empty_histories_are_rows(predictor):
    torch = pytest.importorskip("torch", reason="needs torch")
    rows = {"item_seq": [[1, 2], []], "item_id": [3, 4], "likes_level": [1, 2], "views_level": [1, 2]}
    expected = predictor.score(rows)
    for array in (pl.Series, jax.numpy.asarray, torch.tensor):
        changed = {name: array(values) for name, values in rows.items() if name != "item_seq"}
        lists = pl.Series(rows["item_seq"]) if array is pl.Series else rows["item_seq"]
        np.testing.assert_array_equal(predictor.score(changed | {"item_seq": lists}), expected)
    Column(Path("rows"), "c", 0, pa.array([[], []]).flatten()).integers()  # of clicks, where there are none


def test_rows_in_memory_without_a_folder_for_files_are_one_sentence(predictor, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(InputError, match="temporary file, which cannot be written .*TMPDIR"):
        predictor.score({"item_id": [1]})


def test_a_predictor_stays_calibrated_whatever_becomes_of_its_run(run, dataset, tmp_path, monkeypatch):
    shutil.copytree(run, tmp_path / "run")
    calibration.write(tmp_path / "run", Calibration("platt", Predictor.load(run).step, slope=2.0, intercept=1.0))
    monkeypatch.chdir(tmp_path)
    calibrated = Predictor.load("run")
    expected = calibrated.score(dataset / "test.parquet")
    assert np.abs(expected - Predictor.load(run).score(dataset / "test.parquet")).max() > 1e-3
    monkeypatch.chdir("/")
    shutil.rmtree(tmp_path / "run")
    np.testing.assert_array_equal(calibrated.score(dataset / "test.parquet"), expected)


def test_a_precision_that_is_none_is_refused(run):
    with pytest.raises(InputError, match="'float16' is not known; it is one of float32, tf32, bfloat16"):
        Predictor.load(run, precision="float16")


@pytest.mark.slow
def test_threads_train_one_after_the_other_while_others_score(predictor, dataset, tmp_path):
    ended, scored = {}, threading.Event()

    def training(seed):
        changes = merged(QUICK, {"train": {"seed": seed, "epochs": 2}})
        ended[seed] = train(config_for(dataset, **changes), tmp_path / f"run{seed}")

    def scoring():
        while not scored.is_set():
            predictor.score({"item_seq": [[1]], "item_id": [3], "likes_level": [1], "views_level": [1]})

    level = logging.getLogger("mmctr_jax").level
    trainings = [threading.Thread(target=training, args=(seed,)) for seed in (1, 2)]
    scorings = [threading.Thread(target=scoring) for _ in range(2)]
    for thread in (*trainings, *scorings):
        thread.start()
    for thread in trainings:
        thread.join()
    scored.set()
    for thread in scorings:
        thread.join()
    assert logging.getLogger("mmctr_jax").level == level and len(ended) == 2
    for seed in (1, 2):
        text = (tmp_path / f"run{seed}" / "train.log").read_text()
        assert text.count("(epoch 2.00): loss") == 1


def test_the_root_logger_has_no_handler_of_ours():
    program = "import logging, mmctr_jax; mmctr_jax.Predictor; print(len(logging.root.handlers))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split()[-1] == "0"


def test_what_is_no_rows_at_all(predictor):
    with pytest.raises(InputError, match="Rows are of type int; give a dictionary"):
        predictor.score(3)
    with pytest.raises(InputError, match="rows: column item_seq is missing"):
        predictor.score({"item_id": [1]})


def test_any_number_of_candidates_is_scored_without_compiling_anew(predictor, dataset):
    rows = pa.concat_tables([pq.read_table(dataset / "test.parquet")] * 2)
    predictor.warm_up(rows=128)
    compiled = []

    def listen(name, *_, **__):
        if name.endswith("backend_compile_duration"):
            compiled.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    alone = [predictor.score(rows.slice(i, 1))[0] for i in range(3)]
    for count in (1, 2, 9, 33, 90, 100, 101):
        np.testing.assert_allclose(predictor.score(rows.slice(0, count))[: min(count, 3)], alone[:count], atol=1e-6)
    assert not compiled


def test_vectors_are_what_the_affinity_is_made_of(predictor, dataset):
    items, users = predictor.item_vectors(), predictor.user_vectors(dataset / "test.parquet")
    assert items.shape == (ITEMS, 4) and users.shape == (90, 4)
    np.testing.assert_allclose(np.linalg.norm(items[1:], axis=1), 1, atol=1e-3)
    histories = pl.read_parquet(dataset / "test.parquet").select("item_seq")
    alike = histories.with_row_index().group_by("item_seq").agg("index").filter(pl.col("index").list.len() > 1)["index"]
    assert all(np.ptp(users[rows.to_list()], axis=0).max() < 1e-6 for rows in alike)


@pytest.mark.slow
def test_other_models_have_item_vectors_alone(dataset, tmp_path):
    train(config_for(dataset, **QUICK, train={"epochs": 1}), tmp_path / "run")
    other = Predictor.load(tmp_path / "run")
    assert other.item_vectors().shape == (ITEMS, other.config.features.item_width(4))
    with pytest.raises(InputError, match="without_transformer has no vectors of users"):
        other.user_vectors(dataset / "test.parquet")


# A guest in its host's process


ALONE = """
import sys, logging, os, threading
before = logging.getLogger().handlers, logging.getLogger("mmctr_jax").level, os.getcwd()
import mmctr_jax
assert "jax" not in sys.modules and "numpy" not in sys.modules
def work():
    mmctr_jax.train({config!r}, {run!r})
thread = threading.Thread(target=work); thread.start(); thread.join()
import jax
assert jax.config.jax_enable_x64 is True
assert before == (logging.getLogger().handlers, logging.getLogger("mmctr_jax").level, os.getcwd())
assert not logging.getLogger("mmctr_jax").handlers and logging.getLogger("mmctr_jax").propagate
"""
FLAGS = {
    "JAX_ENABLE_X64": "1",
    "JAX_DEBUG_NANS": "1",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_ENABLE_CUSTOM_PRNG": "1",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
}


@pytest.mark.slow
def test_a_guest_in_a_process_with_other_flags_that_prints_and_leaves_all_as_it_was(dataset, tmp_path):
    raw = merged(raw_config(dataset), QUICK | {"train": {"epochs": 1}})
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    environment = os.environ | FLAGS | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": SOON}
    code = ALONE.format(config=str(tmp_path / "c.yaml"), run=str(tmp_path / "run"))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-1000:]
    assert "validation auc" in done.stdout and "no signal stops this training" in done.stdout
    plain = tmp_path / "plain"
    train(load_config(tmp_path / "c.yaml"), plain)
    first, second = (Predictor.load(path).logits(dataset / "test.parquet") for path in (tmp_path / "run", plain))
    np.testing.assert_allclose(first, second, atol=1e-4)  # 8 devices here, one there


def test_flags_are_given_back():
    with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
        with plain_jax():
            assert jax.numpy.ones(1).dtype == np.float32 and jax.config.jax_numpy_rank_promotion == "allow"
        assert jax.config.jax_enable_x64 and jax.config.jax_numpy_rank_promotion == "raise"


# From anywhere


def test_home_and_variables_stand_in_paths_of_any_kind(run, monkeypatch):
    monkeypatch.setenv("HOME", str(run.parent))
    monkeypatch.setenv("RUN", run.name)
    for path in ("~/run", "~/$RUN"):
        assert Predictor.load(path).step == Predictor.load(run).step
    assert expanded("~/${RUN}/x") == run / "x" and expanded("$NOT_SET/x") == Path("$NOT_SET/x")
    with pytest.raises(InputError, match=r"~ and \$NAME stand for .*check the name"):
        Predictor.load(run).score("$NOT_SET/x.parquet")


def test_paths_of_a_config_are_seen_from_its_folder_and_beside_it_where_it_was_moved(dataset, tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "configs").mkdir()
    for file in ("train", "valid", "test", "item_info"):
        (tmp_path / "a" / f"{file}.parquet").write_bytes((dataset / f"{file}.parquet").read_bytes())
    data = {name: f"a/{name}.parquet" for name in ("train", "valid", "test", "item_info")}
    raw = raw_config(dataset) | {"data": data}
    (tmp_path / "a" / "c.yaml").write_text(yaml.safe_dump(raw))
    above = {"data": {name: f"../{path}" for name, path in data.items()}}
    (tmp_path / "configs" / "c.yaml").write_text(yaml.safe_dump(raw | above))
    monkeypatch.chdir(tmp_path)
    assert load_config("a/c.yaml").data.train == "a/train.parquet"  # as it is, from here
    monkeypatch.chdir("/")
    for config in ("a/c.yaml", "configs/c.yaml"):
        found = load_config(tmp_path / config)
        assert Path(found.data.train).resolve() == tmp_path / "a" / "train.parquet"
        assert load_items(found.data.item_info, found.features, tmp_path / "cache").features.num_items == ITEMS
    monkeypatch.setenv("SHOP", str(tmp_path))
    (tmp_path / "v.yaml").write_text(yaml.safe_dump(raw | {"data": data | {"train": "$SHOP/a/train.parquet"}}))
    assert load_config(tmp_path / "v.yaml").data.train == str(tmp_path / "a" / "train.parquet")
    assert load_config(tmp_path / "v.yaml", ["data.train=none.parquet"]).data.train == "none.parquet"


def test_a_run_is_scored_and_calibrated_where_its_files_were_moved(dataset, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for file in ("train", "valid", "test", "item_info"):
        (data / f"{file}.parquet").write_bytes((dataset / f"{file}.parquet").read_bytes())
    train(config_for(data, **QUICK, train={"epochs": 5, "learning_rate": 0.05}), tmp_path / "run")
    data.rename(tmp_path / "moved")
    moved = tmp_path / "moved" / "test.parquet"
    predict(tmp_path / "run", moved, tmp_path / "a.csv", calibrate="platt")
    assert not data.exists()  # not for a cache, either
    (tmp_path / "moved" / "valid.parquet").rename(tmp_path / "v.parquet")
    with pytest.raises(InputError, match="does not exist any more; name it with --valid"):
        predict(tmp_path / "run", moved, tmp_path / "b.csv", calibrate="platt")
    predict(tmp_path / "run", moved, tmp_path / "b.csv", calibrate="platt", valid=tmp_path / "v.parquet")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_a_cache_folder_that_cannot_be_used_changes_nothing_that_is_read(dataset, tmp_path):
    features = items_of(config_for(dataset)).features
    (tmp_path / "file").touch()
    kept, without = (read_labelled(dataset / "valid.parquet", features, tmp_path / name) for name in ("cache", "file"))
    assert without.fingerprint == kept.fingerprint and np.array_equal(without.item, kept.item)


@pytest.mark.slow
def test_a_run_that_is_being_trained_is_never_called_damaged(dataset, tmp_path, caplog):
    raw = merged(raw_config(dataset), QUICK | {"train": {"epochs": 12, "eval_every": 1, "patience": 999}})
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    command = [
        sys.executable,
        "-m",
        "mmctr_jax",
        "train",
        "--config",
        tmp_path / "c.yaml",
        "--run-dir",
        tmp_path / "run",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": SOON}
    training = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, cwd=tmp_path)
    loaded, failed = 0, []
    while training.poll() is None:
        if any(path.name.isdigit() for path in (tmp_path / "run" / "checkpoints").glob("*")):
            try:
                Predictor.load(tmp_path / "run")
                loaded += 1
            except InputError as error:
                failed.append(str(error))
        time.sleep(0.02)
    assert training.returncode == 0 and loaded > 2 and not failed
    assert not [line for line in caplog.messages if "damaged" in line or "restored" in line]


def test_waiting_for_another_host_is_told_and_ends(monkeypatch, caplog):
    ended = threading.Event()
    monkeypatch.setattr(hosts, "_TELL_AFTER", 0.02)
    monkeypatch.setattr(hosts, "_PATIENCE", 0.1)
    monkeypatch.setattr(os, "_exit", lambda code: (ended.set(), sys.exit()))
    with hosts._waiting("node1:1234", 4, 2):
        assert ended.wait(10)
    with hosts._waiting("node1:1234", 4, 2):
        pass  # it came
