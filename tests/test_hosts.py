"""Two processes of two devices each on loopback do what one process of four does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from synthetic import merged, raw_config

from mmctr_jax.prediction import Predictor

ROOT = Path(__file__).parents[1]


def start(folder, config, devices, *args):
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    command = [sys.executable, str(ROOT / "train.py"), "--config", str(config), "--run-dir", str(folder), *args]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


AGREE = """
import sys
from mmctr_jax import hosts
from mmctr_jax.errors import InputError
hosts.join(sys.argv[1], 2, int(sys.argv[2]))
hosts.agree({"train": "a", "items": "b"})
try:
    hosts.agree({"train": "a", "items": sys.argv[2]})
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


def test_two_processes_equal_one(dataset, tmp_path):
    config = tmp_path / "tiny.yaml"
    config.write_text(
        yaml.safe_dump(
            merged(raw_config(dataset), {"train": {"batch_size": 62, "eval_batch_size": 31, "length_buckets": [2]}})
        )
    )
    port = free_port()
    hosts = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", "2", "--process-id"]
    both = [start(tmp_path / "two", config, 2, *hosts, str(i)) for i in range(2)]
    outs = [process.communicate(timeout=240)[0] for process in both]
    assert [p.returncode for p in both] == [0, 0], outs
    ours = [[line for line in out.splitlines() if not line.startswith("[Gloo]")] for out in outs]
    assert "Done after" in outs[0] and ours[1] == []  # only the first process speaks
    alone = start(tmp_path / "one", config, 4)
    out = alone.communicate(timeout=240)[0]
    assert alone.returncode == 0, out

    one, two = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("one", "two"))
    assert two["steps"] == one["steps"] and two["validation"] == pytest.approx(one["validation"], abs=1e-4)
    losses = [
        [
            r["loss"]
            for r in map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
            if r["kind"] == "train"
        ]
        for name in ("one", "two")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    # Either checkpoint scores on one process.
    logits = [Predictor.load(tmp_path / name).logits(dataset / "test.parquet") for name in ("one", "two")]
    np.testing.assert_allclose(*(1 / (1 + np.exp(-x)) for x in logits), atol=1e-3)
