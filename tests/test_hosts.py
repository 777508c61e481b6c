"""Two processes of two devices each on loopback do what one process of four does."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import yaml
from compiling import SOON
from marks import slow
from synthetic import QUICK, merged, raw_config

from mmctr_jax.devices import hosts
from mmctr_jax.devices.sharding import make_mesh
from mmctr_jax.errors import InputError
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.runs.recorder import read_records
from mmctr_jax.training.step import abstract_state

ROOT = Path(__file__).parents[1]
# Gloo announces each connection on stdout, in these parts, from several threads: its lines can mix.
GLOO = re.compile(r"\[Gloo\] Rank | is connected to | peer ranks\. |Expected number of connected peer ranks is : |\d+")


def start(folder, config, devices, *args):
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {SOON}"}
    command = [sys.executable, str(ROOT / "train.py"), "--config", str(config), "--run-dir", str(folder), *args]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


AGREE = """
import sys
from mmctr_jax.devices import hosts
from mmctr_jax.errors import InputError
hosts.join(sys.argv[1], 2, int(sys.argv[2]))
hosts.check_equal_on_all_hosts({"train": "a", "items": "b"})
try:
    hosts.check_equal_on_all_hosts({"train": "a", "items": sys.argv[2]})
except InputError as error:
    print(error)
"""


def test_processes_that_read_different_data_stop_and_say_which():
    command = [sys.executable, "-c", AGREE, f"127.0.0.1:{free_port()}"]
    both = [
        subprocess.Popen([*command, str(i)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert out.splitlines()[-1] == "Processes 0 and 1 read different data: items; give all the same files.", err


def tiny(dataset, folder) -> Path:
    train = {"batch_size": 62, "eval_batch_size": 31, "length_buckets": [2], "patience": 1000, "lr_factor": 1.0}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(merged(raw_config(dataset), merged(QUICK, {"train": train}))))
    return folder / "tiny.yaml"


def started(config, run_dirs, devices=(1, 1), more=((), ())):
    """Two processes of a run; each as it says."""
    where = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", "2", "--process-id"]
    return [start(run_dirs[i], config, devices[i], *more[i], *where, str(i)) for i in range(2)]


@pytest.mark.parametrize(
    ("devices", "more", "words"),
    [
        ((1, 1), ["train.learning_rate=0.1"], "train.learning_rate is 0.1 in process 1 and .* in process 0"),
        slow((1, 1), ["train.epochs=7"], "train.epochs is 7 in process 1 and .* in process 0"),
        ((1, 3), [], r"Process 0 has 1 device\(s\) and process 1 has 3; all must have as many"),
    ],
    ids=["another rate", "more epochs", "more devices"],
)
def test_processes_that_were_started_otherwise_stop_before_they_train(dataset, tmp_path, devices, more, words):
    both = started(tiny(dataset, tmp_path), [tmp_path / "run"] * 2, devices, ((), more))
    outs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [2, 2], outs
    assert re.search(f"error: .*{words}", outs[1]) and "Traceback" not in "".join(outs), outs
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_error_of_one_process_ends_both_at_once(dataset, tmp_path):
    """The second one's run directory is not the first one's, as on storage that they do not share."""
    both = started(tiny(dataset, tmp_path), [tmp_path / "one", tmp_path / "other"])
    outs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [75, 1], outs
    assert "error: another process cannot be reached any more" in outs[0], outs
    assert "error: " in outs[1] and "Traceback" not in "".join(outs), outs


@pytest.mark.slow
def test_two_processes_interrupted_and_resumed_equal_one_uninterrupted(dataset, tmp_path):
    """A preemption notice reaches one of the two; both save and leave what both can load."""
    # Each process compiles for itself.
    train = {"batch_size": 62, "eval_batch_size": 31, "length_buckets": [2], "eval_every": 10, "patience": 1000}
    change = merged(QUICK, {"train": train | {"lr_factor": 1.0}})
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(merged(raw_config(dataset), change)))

    def two(*args):
        hosts = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", "2", "--process-id"]
        return [start(tmp_path / "two", config, 2, *args, *hosts, str(i)) for i in range(2)]

    def ends(processes, code):
        outs = [process.communicate(timeout=240)[0] for process in processes]
        assert [process.returncode for process in processes] == [code] * len(processes), outs
        return [[line for line in out.splitlines() if GLOO.sub("", line).strip()] for out in outs]

    both = two("train.epochs=1000")
    metrics = tmp_path / "two" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and "validation" in metrics.read_text()):
        assert all(process.poll() is None for process in both) and time.monotonic() < deadline, ends(both, 0)
        time.sleep(0.01)
    both[1].send_signal(signal.SIGTERM)
    first, second = ends(both, 130)
    assert "Saved at step" in first[-1]
    assert len(second) <= 1  # that it was interrupted; only the first process speaks otherwise
    step = int(first[-1].split("Saved at step ")[1].split(".")[0].replace(",", ""))
    epochs = f"train.epochs={step // 5 + 2}"
    first, second = ends(two(epochs, "--resume"), 0)
    assert any(f"Resuming at step {step:,}" in line for line in first) and second == []
    ends([start(tmp_path / "one", config, 4, epochs)], 0)

    one, two_ = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("one", "two"))
    assert two_["steps"] == one["steps"] and two_["validation"] == pytest.approx(one["validation"], abs=1e-3)
    records = [
        [[r["step"], r.get("loss", 0), r.get("logloss", 0)] for r in read_records(tmp_path / name / "metrics.jsonl")]
        for name in ("one", "two")
    ]
    np.testing.assert_allclose(*records, rtol=1e-3)
    # Either checkpoint scores on one process.
    logits = [Predictor.load(tmp_path / name).logits(dataset / "test.parquet") for name in ("one", "two")]
    np.testing.assert_allclose(*(1 / (1 + np.exp(-x)) for x in logits), atol=2e-3)
    moments = [moments_of(tmp_path / name) for name in ("one", "two")]
    for x, y in zip(*map(jax.tree.leaves, moments), strict=True):
        np.testing.assert_allclose(x, y, atol=0.02 * max(np.abs(y).max(), 1e-3))


SHORT = """
import sys
from mmctr_jax.devices import hosts
hosts._SILENT = 4
from mmctr_jax.cli import run
run("train", sys.argv[1:])
"""


@pytest.mark.slow
def test_a_process_that_dies_without_a_word_ends_the_others_and_the_run_resumes(dataset, tmp_path):
    """One is stopped, then one is killed: each time the other says so in a sentence, and soon."""
    change = merged(QUICK, {"train": {"batch_size": 62, "eval_batch_size": 31, "patience": 10000, "lr_factor": 1.0}})
    config, run = tmp_path / "tiny.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(merged(raw_config(dataset), change)))
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {SOON}"}
    ends = []
    for lost, sign, words in (
        (0, signal.SIGSTOP, "process 0 has given no sign"),
        (1, signal.SIGKILL, "be reached any"),
    ):
        hosts = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", "2", "--process-id"]
        command = [sys.executable, "-c", SHORT, "--config", str(config), "--run-dir", str(run), "train.epochs=10000"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment, "cwd": ROOT}
        both = [subprocess.Popen([*command, "--resume", *hosts, str(i)], **pipes) for i in range(2)]
        metrics, before = run / "metrics.jsonl", len(ends) and ends[-1]
        checkpoints = RunDirectory(run).checkpoint_folder
        deadline = time.monotonic() + 120
        while not (
            metrics.exists()
            and metrics.read_text().count("validation") > before
            and any(folder.name.isdigit() for folder in checkpoints.glob("*"))  # whole only some time after the record
        ):
            assert all(process.poll() is None for process in both) and time.monotonic() < deadline
            time.sleep(0.05)
        both[lost].send_signal(sign)
        said, _ = both[1 - lost].communicate(timeout=60)
        both[lost].kill()
        both[lost].communicate()
        assert both[1 - lost].returncode == 75 and words in said.splitlines()[-1] and "--resume" in said, said
        ends.append(metrics.read_text().count("validation"))
    epochs = int(ends[-1]) + 3
    resumed = start(run, config, 4, f"train.epochs={epochs}", "--resume")
    said, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0 and "Resuming at step" in said, said


@pytest.mark.parametrize(("silent", "named"), [("store", 0), (0, 0), (2, 2)])
def test_the_silent_process_is_named_and_no_other(monkeypatch, silent, named):
    """A store that stops answering, wherever it is asked, is process 0's silence and nobody else's."""
    gone = threading.Event()

    class Store:
        def __init__(self):
            self.beats = 0

        def key_value_set(self, *_, **__):
            self.beats += 1
            assert self.beats < 100, "nobody was found silent"

        def key_value_try_get(self, key):
            process = int(key.rpartition("/")[2])
            if silent == "store" and self.beats > 3 and process == 2:
                gone.wait()
            return str(3 if process == silent else self.beats)

    state = SimpleNamespace(num_processes=3, process_id=1, client=Store())
    monkeypatch.setattr("jax._src.distributed.global_state", state)
    monkeypatch.setattr(hosts, "_SILENT", 0.3)

    def give_up(reason):
        raise InputError(reason)

    monkeypatch.setattr(hosts, "give_up", give_up)
    try:
        with pytest.raises(InputError, match=f"process {named} has given no sign of life"):
            hosts._watch_others()
    finally:
        gone.set()


def moments_of(directory):
    run = RunDirectory(directory)
    config, mesh = run.read_config(), make_mesh()
    with run.checkpoints() as checkpoints:
        state, _ = checkpoints.restore_newest(abstract_state(config, run.read_items(), mesh))
    return jax.tree.map(np.asarray, state.opt_state.mu)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"JAX_NUM_PROCESSES": "2"}, "must be, too"),
        ({"JAX_NUM_PROCESSES": "x", "JAX_PROCESS_ID": "0"}, "whole numbers"),
        ({"JAX_NUM_PROCESSES": "2", "JOB_COMPLETION_INDEX": "2"}, "process id 2 is not in 0 … 1"),
    ],
)
def test_the_environment_names_the_processes(monkeypatch, environment, words):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1234")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=words):
        hosts.join(None, None, None)
