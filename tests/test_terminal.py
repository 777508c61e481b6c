"""What is printed has nowhere to go, and the work is done all the same."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from synthetic import QUICK, config_for, merged, raw_config

from mmctr_jax import terminal
from mmctr_jax.console import Progress, log, log_to_file
from mmctr_jax.errors import InputError
from mmctr_jax.training.loop import train

ROOT = Path(__file__).parents[1]


class Broken:
    """A terminal that was closed."""

    def isatty(self):
        return True

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self):
        raise BrokenPipeError(32, "Broken pipe")


class Tee:
    """A stand-in that has only what is needed to print."""

    def write(self, text):
        pass

    def flush(self):
        pass


@pytest.mark.parametrize("stream", [None, Tee(), Broken(), io.TextIOWrapper(io.BytesIO(), "ascii")])
def test_a_training_takes_any_standard_output(stream, dataset, tmp_path, monkeypatch):
    config = config_for(dataset, **QUICK, train={"epochs": 1})
    monkeypatch.setattr(sys, "stdout", stream)
    assert train(config, tmp_path / "run").steps == 5
    with Progress("Reading", 3, "rows") as bar:
        bar.advance(3)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["{} >&- 2>&-", "PYTHONIOENCODING=ascii {} | true"])
def test_the_program_does_its_work_where_output_has_nowhere_to_go(how, dataset, tmp_path):
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(merged(raw_config(dataset), QUICK | {"train": {"epochs": 1}})))
    command = how.format(f"{sys.executable} {ROOT / 'train.py'} --config {config} --run-dir run")
    shell = ["bash", "-c", f"set -o pipefail; {command}"]
    result = subprocess.run(shell, cwd=tmp_path, stderr=subprocess.PIPE, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr and "Exception ignored" not in result.stderr
    log_lines = (tmp_path / "run" / "train.log").read_text()
    assert "Training 2,429 parameters" in log_lines and "Done after 1.00 epochs" in log_lines


def test_what_does_not_fit_the_encoding_is_escaped(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", Tee())
    terminal.protect()
    print("4 – 5", flush=True)
    assert stream.buffer.getvalue() == b"4 \\u2013 5\n"


def test_the_log_has_what_was_said_before_it_and_the_error_that_ended_it(tmp_path):
    path = tmp_path / "train.log"
    earlier = [log.makeRecord(log.name, 20, "", 0, "Read the rows.", (), None)]
    for error, words in ((InputError("No room."), "ERROR error: No room."), (KeyError("x"), "KeyError: 'x'")):
        with pytest.raises(type(error)), log_to_file(path, earlier):
            log.info("Training.")
            raise error
        text = path.read_text()
        assert text.index("Read the rows.") < text.index("Training.") < text.index(words)
        assert ("Traceback" in text) == isinstance(error, KeyError)
        path.unlink()


def test_descriptors_that_are_closed_are_no_later_files(tmp_path):
    program = "from mmctr_jax.terminal import protect; protect(); x = open('n', 'w'); x.write(str(x.fileno()))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(["bash", "-c", f'"{sys.executable}" -c "{program}" <&- >&- 2>&-'], cwd=tmp_path, env=environment)
    assert int((tmp_path / "n").read_text()) > 2


def test_an_interrupt_that_a_callback_swallowed_comes_again():
    program = """
import os, signal, time
from mmctr_jax import interrupt

class Collected:
    def __del__(self):  # as a callback of the garbage collector: nothing is raised from it
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

with interrupt.watched():
    try:
        Collected()
        time.sleep(20)
    except KeyboardInterrupt:
        print("stopped")
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert found.stdout == "stopped\n" and found.stderr == "" and found.returncode == 0
