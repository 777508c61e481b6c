"""What disks and users do to a run: each fault is one sentence, and the run goes on to the model it would have been."""

import json
import os
import resource
import shutil
import signal
import time
from contextlib import contextmanager
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from same_run import assert_same_run
from synthetic import QUICK, config_for, merged

from mmctr_jax import interrupt
from mmctr_jax.console import log, log_to_file
from mmctr_jax.devices.sharding import make_mesh
from mmctr_jax.errors import InputError, TrainingError
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.runs import checkpoint, recorder
from mmctr_jax.runs.checkpoint import Checkpoints
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.runs.recorder import read_records
from mmctr_jax.runs.summary import StopReason
from mmctr_jax.training import loop as training
from mmctr_jax.training.loop import train


@contextmanager
def files_of_at_most(size):
    """The system refuses to write more into any file, as where a disk is full or a quota is used up."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole") / "run"
    config = config_for(dataset, train={"epochs": 3})
    return config, directory, train(config, directory)


@pytest.fixture(scope="module")
def begun(whole, tmp_path_factory):
    """The same run, stopped after its first epoch."""
    config, directory = whole[0], tmp_path_factory.mktemp("begun") / "run"
    train(config.model_copy(update={"train": config.train.model_copy(update={"epochs": 1})}), directory)
    return directory


def test_no_room_for_a_checkpoint(whole, tmp_path):
    config, directory, _ = whole
    with files_of_at_most(150_000), pytest.raises(TrainingError) as error:
        train(config, tmp_path / "run")
    assert "checkpoint cannot be written" in str(error.value) and "File too large" in str(error.value)
    assert "no checkpoint was made yet" in str(error.value) and "--resume" in str(error.value)
    train(config, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", directory)


def test_a_disk_that_is_full_for_a_while_is_waited_for(tmp_path, monkeypatch, caplog):
    free = [0, 3, 100]
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free.pop(0)))
    monkeypatch.setattr(checkpoint, "_LOOK", 1)
    monkeypatch.setattr(log, "propagate", True)
    parts = {"model": {"w": jnp.arange(20.0)}, "optimizer": {"step": jnp.int32(3)}}
    with Checkpoints(tmp_path / "kept", tmp_path / "damaged", writable=True) as checkpoints:
        checkpoints.save(parts, {"plateau": {"best_step": 3}}, 3, 3)
        checkpoints.wait()
        assert checkpoints.steps == [3] and not free
    assert "kept has 0.00 GB free" in caplog.text and "10 more minutes at most" in caplog.text


@pytest.mark.slow
def test_no_room_for_a_later_checkpoint(whole, begun, tmp_path):
    config, directory, _ = whole
    shutil.copytree(begun, tmp_path / "run")
    with files_of_at_most(150_000), pytest.raises(TrainingError, match="step 5 is the last good checkpoint"):
        train(config, tmp_path / "run", resume=True)
    train(config, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", directory)


@pytest.mark.slow
def test_no_room_for_the_records(whole, begun, tmp_path):
    config, directory, _ = whole
    shutil.copytree(begun, tmp_path / "run")
    records = tmp_path / "run" / "metrics.jsonl"
    line = records.read_text().splitlines(keepends=True)[0]
    records.write_text(line * (30_000 // len(line)))  # no room for another
    with files_of_at_most(30_000), pytest.raises(TrainingError, match="Training stopped: .*File too large; .*--resume"):
        train(config, tmp_path / "run", resume=True)
    shutil.copy(begun / "metrics.jsonl", records)
    train(config, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", directory)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_log_that_is_full_hides_no_error():
    with pytest.raises(TrainingError, match="the cause"), log_to_file("/dev/full"):
        log.info("A line.")
        raise TrainingError("the cause")


def test_curves_that_cannot_be_drawn_stop_no_training(whole, tmp_path, monkeypatch):
    def no_folder(*_):
        raise OSError("Matplotlib requires access to a writable cache directory")

    monkeypatch.setattr(recorder, "draw_curves", no_folder)
    monkeypatch.setattr(training, "_DRAW_SECONDS", 0.0)
    train(whole[0], tmp_path / "run")
    assert_same_run(tmp_path / "run", whole[1])
    log_file = (tmp_path / "run" / "train.log").read_text()
    assert log_file.count("curves.png is not drawn: Matplotlib requires") == 1


def test_a_trial_that_was_ended_early_does_not_go_on(whole, tmp_path):
    """It was killed between its checkpoint and its record; the second time nobody is asked again."""
    first = train(whole[0], tmp_path / "run", end_early=lambda number, auc: np.bool_(number == 1))
    again = train(whole[0], tmp_path / "run", resume=True, end_early=lambda number, auc: 1 / 0)
    assert first.stopped is again.stopped is StopReason.PRUNED and again.epochs == 1
    assert train(whole[0], tmp_path / "run", resume=True).epochs == 3  # whoever wants it whole
    assert_same_run(tmp_path / "run", whole[1])


def test_no_room_for_a_run_directory(whole, tmp_path):
    with files_of_at_most(500), pytest.raises(InputError, match="Run directory .* cannot be written: File too large"):
        train(whole[0], tmp_path / "run")


def test_divergence_names_step_rate_and_the_largest_gradients(dataset, tmp_path):
    """An embedding table whose numbers leave float32's range in a later product, at a rate that no model bears."""
    with pytest.raises(TrainingError) as error:
        change = {"train": {"epochs": 3, "learning_rate": 1e12, "clip_norm": 1e30}}
        train(config_for(dataset, **merged(QUICK, change)), tmp_path / "run")
    message = str(error.value)
    assert message.count("\n") == 0 and "learning rate 1e+12" in message and "largest gradients are those of" in message
    assert any(group in message for group in ("cross/layer_", "deep/layer_", "head/", "encoder/", "embedding/"))


@pytest.fixture(scope="module")
def on_eight_devices(dataset, tmp_path_factory):
    """Config, whole run, and run that was stopped after its first epoch, of the model that is compiled soonest."""
    folder = tmp_path_factory.mktemp("eight")
    config = config_for(dataset, **merged(QUICK, {"train": {"epochs": 3}}))
    train(config, folder / "whole")
    train(config.model_copy(update={"train": config.train.model_copy(update={"epochs": 1})}), folder / "begun")
    return config, folder / "whole", folder / "begun"


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_a_run_begun_on_eight_devices_goes_on_with_fewer(on_eight_devices, tmp_path, monkeypatch, devices):
    config, directory, begun = on_eight_devices
    shutil.copytree(begun, tmp_path / "run")
    monkeypatch.setattr(training, "make_mesh", lambda: make_mesh(jax.devices()[:devices]))
    train(config, tmp_path / "run", resume=True)
    ours, theirs = (
        [[r.get(name, 0) for name in ("step", "loss", "auc", "logloss")] for r in read_records(d / "metrics.jsonl")]
        for d in (tmp_path / "run", directory)
    )
    np.testing.assert_allclose(ours, theirs, rtol=2e-4)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 15


# Signals and damage


@pytest.mark.parametrize("when", [1, 2])
def test_a_signal_while_a_checkpoint_is_read_is_no_damage(begun, tmp_path, monkeypatch, when):
    directory, calls = shutil.copytree(begun, tmp_path / "run"), []
    load = checkpoint.ocp.training.Checkpointer.load_checkpointables

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) == when:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.01)
            except KeyboardInterrupt:  # which comes out of Orbax's own loop as an error like any other
                raise RuntimeError("cancelled") from None
        return load(*args, **kwargs)

    monkeypatch.setattr(checkpoint.ocp.training.Checkpointer, "load_checkpointables", interrupted)
    before = sorted(path.name for path in (directory / "checkpoints").iterdir())
    with interrupt.watched(), pytest.raises(KeyboardInterrupt):
        if when == 1:
            train(directory / "config.yaml", directory, resume=True)
        else:
            Predictor.load(directory)
    assert len(calls) == when and sorted(path.name for path in (directory / "checkpoints").iterdir()) == before
    assert not (directory / "damaged").exists()


def test_damaged_records_are_left_out_and_the_rest_is_kept(begun, tmp_path, caplog):
    directory = shutil.copytree(begun, tmp_path / "run")
    file = directory / "metrics.jsonl"
    lines = file.read_text().splitlines()
    whole = len(lines)
    lines[1:1] = ["garbage", '{"kind": "validation", "step": 3}', "[]", '{"kind": [], "step": 1}']
    file.write_text("\n".join(lines) + '\n{"kind": "tra')
    assert len(read_records(file)) == whole
    with caplog.at_level("WARNING", log.name):
        train(directory / "config.yaml", directory, resume=True)
    assert "metrics.jsonl: 4 damaged lines are left out" in caplog.text
    assert read_records(file)[:whole] == [
        json.loads(line) for line in (begun / "metrics.jsonl").read_text().splitlines()
    ]


def test_what_cannot_be_listed_or_read_is_no_good_checkpoint(begun, tmp_path):
    directory = shutil.copytree(begun, tmp_path / "run")
    shutil.rmtree(directory / "checkpoints")
    (directory / "checkpoints").write_text("")
    with pytest.raises((InputError, TrainingError), match="checkpoints"):
        train(directory / "config.yaml", directory, resume=True)

    run = RunDirectory(shutil.copytree(begun, tmp_path / "other"))
    with run.checkpoints() as checkpoints:
        assert checkpoints.kept == f"step {checkpoints.last_step:,} is the last good checkpoint"
        for path in (run.path / "checkpoints" / str(checkpoints.last_step)).rglob("*"):
            if path.is_file():
                path.write_bytes(path.read_bytes()[:50])
        with pytest.raises(InputError, match="it is damaged"):
            assert checkpoints.best_step
        assert checkpoints.kept == "none of its checkpoints can be read"
