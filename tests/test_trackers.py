"""Trackers get what metrics.jsonl gets, on servers that others wrote; whatever becomes of them, training goes on."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from marks import slow
from synthetic import raw_config, write_dataset

from mmctr_jax.config import parse_config
from mmctr_jax.errors import InputError
from mmctr_jax.runs import trackers
from mmctr_jax.runs.trackers import background
from mmctr_jax.runs.trackers.base import TrackedRun
from mmctr_jax.training.loop import train


def config(folder: Path, *names: str, epochs: int = 2):
    raw = raw_config(folder)
    return parse_config(raw | {"train": raw["train"] | {"trackers": list(names), "epochs": epochs, "patience": 9}})


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


def records(run: Path) -> dict[tuple[str, int], float]:
    """(name, step) → value, as metrics.jsonl has them."""
    found = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        kind, step = record.pop("kind"), record.pop("step")
        found |= {(f"{kind}/{name}", step): float(v) for name, v in record.items() if isinstance(v, int | float)}
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder / 'runs.db'}"]
    command += ["--default-artifact-root", str(folder), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1).read()
                break
            except OSError:
                assert process.poll() is None, "the server ended"
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
def test_mlflow_has_settings_and_records_of_a_run_that_was_resumed(data, server, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setattr(background, "_AT_THE_END", 300)
    run = tmp_path / "a-run"
    train(config(data, "mlflow", epochs=1), run)
    train(config(data, "mlflow", epochs=2), run, resume=True)
    client = MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("mmctr").experiment_id])
    assert found.info.run_name == "a-run" and found.info.status == "FINISHED"
    assert found.data.params["train.epochs"] == "1" and found.data.params["model.embedding_dim"] == "4"
    expected = records(run)
    for name in {name for name, _ in expected}:
        theirs = {(name, m.step): m.value for m in client.get_metric_history(found.info.run_id, name)}
        assert theirs == {key: value for key, value in expected.items() if key[0] == name}
    assert not (run / "tensorboard").exists()


def logged(file: bytes) -> list[bytes]:
    """What a log as LevelDB writes it holds: blocks of 32 KB with parts of a check sum, length and kind before each."""
    found, parts, at = [], b"", 7  # W&B's own header
    while at + 7 <= len(file):
        if 32_768 - at % 32_768 < 7:
            at += 32_768 - at % 32_768
            continue
        length, kind = int.from_bytes(file[at + 4 : at + 6], "little"), file[at + 6]
        if at + 7 + length > len(file):  # still being written
            break
        parts += file[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(parts)
            parts = b""
    return found


@pytest.mark.slow
def test_wandb_offline_has_the_records(data, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(background, "_AT_THE_END", 300)  # its service starts slowly on a busy machine
    run = tmp_path / "a-run"
    train(config(data, "wandb"), run)
    (file,) = run.glob("wandb/offline-run-*/run-*.wandb")
    read, until = [], time.monotonic() + 120
    # Its service writes the end of the file after `finish` has returned.
    while not (read and read[-1].HasField("exit")) and time.monotonic() < until:
        time.sleep(0.1)
        read = [wandb_internal_pb2.Record.FromString(record) for record in logged(file.read_bytes())]
    found = {}
    for record in read:
        values = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
        found |= {(name, values["_step"]): float(v) for name, v in values.items() if not name.startswith("_")}
    assert found == pytest.approx(records(run)) and read[-1].HasField("exit") and read[-1].exit.exit_code == 0


class Tracker:
    """Fails where it is told to."""

    fails: str | None = None
    error: BaseException = RuntimeError("the server said no.\nand more")

    def __init__(self, run: TrackedRun):
        self._do("make")

    def open(self, step):
        self._do("open")

    def add(self, step, values):
        self._do("add")

    def flush(self):
        self._do("flush")

    def close(self, failed):
        self._do("close")

    def _do(self, what):
        if what == self.fails:
            raise self.error


@pytest.mark.parametrize("fails", ["make", slow("open"), "add", slow("flush"), slow("close")])
@pytest.mark.parametrize("error", [RuntimeError("the server said no.\nand more"), SystemExit("no key")], ids=type)
def test_a_tracker_that_fails_is_warned_of_once_and_trains_on(data, tmp_path, monkeypatch, capsys, fails, error):
    monkeypatch.setattr(Tracker, "fails", fails)
    monkeypatch.setattr(Tracker, "error", error)
    monkeypatch.setitem(trackers._OF_SERVERS, "mlflow", Tracker)
    monkeypatch.setattr(trackers, "find_spec", lambda name: True)
    assert train(config(data, "mlflow", epochs=1), tmp_path / "run").steps > 0
    said = str(error).splitlines()[0].rstrip(".")
    assert capsys.readouterr().out.count(f"mlflow gets no more records ({said}); the training goes on.") == 1


def test_a_server_that_never_answers_holds_nothing_up(data, tmp_path, monkeypatch, capsys):
    held = threading.Event()

    class Silent(Tracker):
        def add(self, step, values):
            held.wait()

    monkeypatch.setitem(trackers._OF_SERVERS, "mlflow", Silent)
    monkeypatch.setattr(trackers, "find_spec", lambda name: True)
    monkeypatch.setattr(background, "_AT_THE_END", 0.2)
    monkeypatch.setattr(background, "_WAITING", 3)
    try:
        assert train(config(data, "mlflow", epochs=1), tmp_path / "run").steps > 0
        assert "mlflow still has records to send after 0.2 s" in capsys.readouterr().out
    finally:
        held.set()


def test_without_its_package_nothing_begins(data, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="train.trackers names wandb, which is not installed: pip install"):
        train(config(data, "wandb"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_a_key_wandb_does_not_ask(data, tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    code = (
        "import sys; from pathlib import Path; from mmctr_jax.runs.trackers import trackers; "
        "from mmctr_jax.runs.trackers.base import TrackedRun; "
        "(t,) = trackers(('wandb',), TrackedRun(Path(sys.argv[1]), {})); t.open(0); t.close(False)"
    )
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=100
    )
    assert "wandb gets no more records (no API key; set WANDB_API_KEY, or WANDB_MODE=offline)" in done.stderr
