"""The programs as a user runs them: exit codes, one sentence for what is wrong, Ctrl-C."""

import errno
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from bad_files import BAD_ITEMS, BAD_SAMPLES
from compiling import SOON
from synthetic import QUICK, merged, raw_config

from mmctr_jax.cli import run_main
from mmctr_jax.errors import InputError, NoRoomError
from mmctr_jax.files import hold, writing
from mmctr_jax.runs.recorder import read_records

ROOT = Path(__file__).parents[1]


@pytest.fixture
def config_file(dataset, tmp_path):
    def write(change=None):
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(merged(raw_config(dataset), change or {"train": {"epochs": 1}})))
        return str(path)

    return write


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs a program of the top level in this process, in a folder of its own: (exit code, standard out, error)."""
    monkeypatch.chdir(tmp_path)

    def run(program, *args):
        monkeypatch.setattr(sys, "argv", [program, *map(str, args)])
        with pytest.raises(SystemExit) as exit:
            runpy.run_path(str(ROOT / program), run_name="__main__")
        return exit.value.code, *capsys.readouterr()

    return run


def test_train_then_predict(run, config_file, tmp_path, dataset):
    code, out, err = run("train.py", "--config", config_file(), "train.batch_size=60")
    assert (code, err) == (0, "") and "Everything is in runs/tiny." in out
    code, out, err = run("predict.py", "--ckpt", "runs/tiny", "--labels", dataset / "test_labels.parquet")
    assert (code, err) == (0, "") and "Scored 90 rows" in out and "auc 0." in out and "gauc 0." in out
    assert (tmp_path / "runs/tiny/predictions.parquet").is_file()
    code, out, _ = run("predict.py", "--ckpt", "runs/tiny", "--data", dataset, "--out", "s.zip", "--task", "Task1&2")
    assert code == 0 and (tmp_path / "s.zip").is_file()
    code, _, err = run("train.py", "--config", config_file())
    assert code == 2 and err.startswith("error: ") and "--resume" in err and err.count("\n") == 1
    assert run("train.py", "--config", config_file(), "train.batch_size=60", "--resume")[0] == 0


def test_deterministic_is_a_flag_that_xla_knows():
    """XLA ends a process that has an unknown one."""
    module = "mmctr_jax.devices.compilation"
    command = f"from {module} import make_deterministic; make_deterministic(); import jax; jax.devices()"
    process = subprocess.run([sys.executable, "-c", command], cwd=ROOT, timeout=100, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    flag = "import os; os.environ['XLA_FLAGS'] = '--xla_gpu_nonsense=true'"
    wrong = command.replace("; make_deterministic()", f"; {flag}")
    assert subprocess.run([sys.executable, "-c", wrong], cwd=ROOT, timeout=100, capture_output=True).returncode != 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train.batchsize=3"], "did you mean train.batch_size?"),
        (["train.batch_size=0"], "greater than or equal to 1"),
        (["data.train=nowhere.parquet"], "nowhere.parquet does not exist"),
        (["features.side=[{name: age, vocab_size: 4}]"], "column age is missing"),
        (["--process-id", "0"], "give all three"),
        (["--coordinator", "nonsense", "--num-processes", "1", "--process-id", "0"], "is not of the form HOST:PORT"),
        (["--coordinator", "a:1", "--num-processes", "2", "--process-id", "2"], "not in 0 … 1"),
    ],
)
def test_bad_config_or_data_is_one_sentence_and_exit_code_2(run, config_file, args, words, tmp_path):
    code, out, err = run("train.py", "--config", config_file(), *args)
    assert code == 2 and words in err and err.startswith("error: ") and err.count("\n") == 1
    assert "Traceback" not in out + err and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("split", ["train", "valid"])
def test_every_fault_of_the_data_ends_the_same_way(run, config_file, split, tmp_path):
    """The faults of test_parquet and test_items, through the program."""
    config = config_file()
    for name, (table, words) in BAD_SAMPLES.items():
        pq.write_table(table, tmp_path / "rows.parquet")
        code, out, err = run("train.py", "--config", config, f"data.{split}=rows.parquet", "data.cache_dir=cache")
        assert code == 2 and err.startswith("error: rows.parquet") and err.count("\n") == 1, (name, err)
        assert all(word in err for word in words), (name, err)
    assert not (tmp_path / "runs").exists()


def test_every_fault_of_the_items_ends_the_same_way(run, config_file, tmp_path):
    features = [
        {"kind": "tags", "name": "item_tags"},
        {"kind": "embedding", "name": "vector", "dim": 2},
        {"kind": "categorical", "name": "category"},
    ]
    for name, (table, change, words) in BAD_ITEMS.items():
        pq.write_table(table, tmp_path / "item_info.parquet")
        features_now = {"item_features": features, **change}
        config = config_file({"data": {"item_info": "item_info.parquet"}, "features": features_now})
        code, out, err = run("train.py", "--config", config)
        assert code == 2 and err.startswith("error: item_info.parquet") and err.count("\n") == 1, (name, err)
        assert all(word in err for word in words), (name, err)
    assert not (tmp_path / "runs").exists()


def test_a_full_disk_is_told_from_what_must_not_be_written():
    for number, kind in ((errno.ENOSPC, NoRoomError), (errno.EDQUOT, NoRoomError), (errno.EACCES, InputError)):
        with pytest.raises(InputError, match="X cannot be written: why; do that") as refused, writing("X", "do that"):
            raise OSError(number, "why")
        assert type(refused.value) is kind


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (NoRoomError("X cannot be written."), 1, "error: X cannot be written.\n"),
        (OSError(errno.ENOSPC, "No space left on device", "x/y"), 1, "error: x/y: No space left on device; "),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            1,
            "error: No usable temp",
        ),
        (OSError("Matplotlib requires access to a writable cache directory"), 1, "error: Matplotlib requires"),
    ],
    ids=["no room", "a full disk", "no temporary folder", "a library's own"],
)
def test_what_the_system_refuses_is_one_sentence_and_exit_code_1(error, code, words, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as exit:
        run_main(main)
    said = capsys.readouterr().err
    assert exit.value.code == code and said.startswith(words) and said.count("\n") == 1


def test_an_interrupt_before_training_says_so(run, config_file, monkeypatch, tmp_path):
    from mmctr_jax.training import loop as training

    def interrupted(config, *_):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(training, "load_training_data", interrupted)
    code, _, err = run("train.py", "--config", config_file())
    assert code == 130 and "before there was anything to save" in err and not (tmp_path / "runs").exists()


def test_predict_without_a_run(run):
    code, _, err = run("predict.py", "--ckpt", "nowhere")
    assert code == 2 and "not a run directory" in err


def test_divergence_is_exit_code_1(run, config_file):
    config = config_file({"train": {"epochs": 3, "learning_rate": 1e30}})
    code, _, err = run("train.py", "--config", config)
    assert code == 1 and "diverged" in err and err.count("\n") == 1


def start(config, *args, cwd):
    command = [sys.executable, str(ROOT / "train.py"), "--config", config, *args]
    environment = os.environ | {"XLA_FLAGS": SOON}  # one device
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_an_interrupted_process_saves_says_how_to_go_on_and_does(config_file, tmp_path):
    """Ctrl-C, then SIGTERM to the process that goes on, then to the end."""
    train = {"epochs": 100_000, "eval_every": 50, "patience": 100_000, "lr_factor": 1.0}
    config = config_file(merged(QUICK, {"train": train}))
    metrics, step, arguments = tmp_path / "runs/tiny/metrics.jsonl", 0, []
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(config, *arguments, cwd=tmp_path)
        deadline = time.monotonic() + 120
        while not any(r["step"] > step and r["kind"] == "validation" for r in read_records(metrics)):
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
            time.sleep(0.05)
        process.send_signal(number)
        out = process.communicate(timeout=60)[0]
        assert process.returncode == 130, out
        assert "--resume" in out and "Saved at step" in out and "Traceback" not in out
        assert not arguments or f"Resuming at step {step:,}" in out, out
        step = int(out.split("Saved at step ")[1].split(".")[0].replace(",", ""))
        arguments = ["--resume"]
    epochs = step // 5 + 1  # to the end of the epoch it is in
    finish = start(config, f"train.epochs={epochs}", "--resume", cwd=tmp_path)
    out = finish.communicate(timeout=120)[0]
    assert finish.returncode == 0 and f"Resuming at step {step:,}" in out, out


TWICE = """
import os, signal, sys, time
from mmctr_jax import interrupt
with interrupt.watched(), interrupt.Interrupt() as asked:
    os.kill(os.getpid(), signal.SIGTERM)
    assert asked.requested(1)
    if sys.argv[1] == "busy":  # as within a compilation, where no handler runs
        signal.signal(signal.SIGTERM, lambda *_: time.sleep(60))
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", ["busy", "idle"])
def test_a_second_signal_ends_the_process_at_once(how):
    done = subprocess.run([sys.executable, "-c", TWICE, how], cwd=ROOT, timeout=50)
    assert done.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_scheduler_s_warning_asks_and_a_sigterm_after_it_does_not_end_the_saving(number):
    script = f"""
import os, signal
from mmctr_jax import interrupt
with interrupt.watched(), interrupt.Interrupt() as stop:
    os.kill(os.getpid(), {int(number)})
    os.kill(os.getpid(), {int(number)})
    os.kill(os.getpid(), signal.SIGTERM)
    print("saved" if stop.requested(1) else "went on")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("saved\n"), done


def test_under_nohup_a_closed_terminal_stops_nothing():
    script = """
import os, signal
from mmctr_jax import interrupt
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with interrupt.watched(), interrupt.Interrupt() as stop:
    os.kill(os.getpid(), signal.SIGHUP)
    print(stop.requested(1))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60, capture_output=True, text=True)
    assert done.stdout == "False\n", done


def test_off_the_main_thread_training_says_that_no_signal_stops_it(capsys):
    import threading

    from mmctr_jax.interrupt import Interrupt

    def work():
        with Interrupt() as stop:
            asked.append(stop.requested(1))

    asked = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked == [False] and "no signal stops this training" in capsys.readouterr().out


@pytest.mark.parametrize("override", ["batch_size=64", "train.lr=0.1", "train.epochs=2.0", "model.name=other"])
def test_a_wrong_override_is_not_blamed_on_the_file(run, config_file, override):
    code, _, err = run("train.py", "--config", config_file(), "train.seed=3", override, "train.ema=0.9")
    assert code == 2 and err.startswith(f"error: Override {override}: ") and err.count("\n") == 1, err


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("~/x.parquet", str(Path.home())),
        ("ftp://host/x.parquet", "The URL ftp://host/x.parquet cannot"),
        ("data/t*.parquet", "globs"),
    ],
)
def test_paths_that_a_shell_or_a_cloud_knows(run, config_file, path, words):
    code, _, err = run("train.py", "--config", config_file(), f"data.train={path}")
    assert code == 2 and words in err and err.count("\n") == 1, err


def test_a_system_without_file_locks_is_told_of(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with open(tmp_path / "x", "w") as file, pytest.raises(InputError, match="on Windows under WSL"):
        hold(file)


def test_devices_that_are_not_there_are_one_sentence(dataset, tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw_config(dataset)))
    program = [sys.executable, "-m", "mmctr_jax", "train", "--config", str(tmp_path / "c.yaml"), "--run-dir", "run"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "bad"}
    found = subprocess.run(program, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert found.returncode == 2 and not (tmp_path / "run").exists()
    assert "JAX cannot use its devices: Unable to initialize backend 'bad'" in found.stderr
    assert "Traceback" not in found.stderr and "JAX_PLATFORMS is 'bad'; unset it" in found.stderr
