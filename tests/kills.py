"""Trainings killed again and again, and resumed by the same command, against one that was left alone.

Each process is a real `train.py`. What it is doing is read from outside: from the terminal that it is given, where it
shows its progress (JAX also names what it compiles there), and from the temporary folders in which caches and
checkpoints are built.
"""

from __future__ import annotations

import errno
import math
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from compiling import SOON

from mmctr_jax.devices.sharding import make_mesh
from mmctr_jax.errors import InputError
from mmctr_jax.files import sha256
from mmctr_jax.prediction.predict import predict
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.training.step import abstract_state

ROOT = Path(__file__).parents[1]
PHASES = {
    "imports": "nothing is shown yet; later starts check the data here, too",
    "cache build": "a temporary file or folder lies in data.cache_dir",
    "setup": "from there to the first step: compiled, restored, the first batch",
    "compilation": "a program is being compiled, or read from those that JAX keeps",
    "steps": "after the training step's first compilation, none of the others",
    "evaluation": "from the validation's start to the line of its result",
    "checkpoint write": "Orbax's temporary folder lies in checkpoints/; training goes on meanwhile",
}
_POLL_SECONDS = 0.004
_STUCK_SECONDS = 300
_DELETING_SECONDS = 0.05
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Job:
    """A training, as it is started, and started again."""

    config: Path
    folder: Path  # of all that it writes
    devices: int = 1  # simulated
    own_programs: bool = False  # what JAX compiles is kept in `folder`, not where the environment says

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    @property
    def cache_dir(self) -> Path:
        return self.folder / "cache"

    @property
    def environment(self) -> dict[str, str]:
        programs = {"JAX_COMPILATION_CACHE_DIR": str(self.folder / "programs")} if self.own_programs else {}
        return {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={self.devices} {SOON}",
            "JAX_LOG_COMPILES": "1",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "TERM": "xterm",
            "COLUMNS": "1000",  # no line is wrapped
            **programs,
        }

    @property
    def command(self) -> list[str]:
        arguments = ["--config", self.config, f"data.cache_dir={self.cache_dir}", "--run-dir", self.run_dir, "--resume"]
        return [sys.executable, str(ROOT / "train.py"), *map(str, arguments)]

    def temporaries(self) -> dict[Path, str]:
        """What is being built now, or was when a process was killed, and the phase that builds it."""
        caches = self.cache_dir.glob(".*")
        checkpoints = RunDirectory(self.run_dir).checkpoint_folder.glob("*.orbax-checkpoint-tmp*")
        return dict.fromkeys(caches, "cache build") | dict.fromkeys(checkpoints, "checkpoint write")

    def last_step(self) -> int | None:
        """Of the checkpoints that carry their final name."""
        names = [path.name for path in RunDirectory(self.run_dir).checkpoint_folder.glob("*")]
        return max((int(name) for name in names if name.isdigit()), default=None)


@dataclass(frozen=True)
class Kill:
    """One SIGKILL, and what it hit."""

    seconds: float  # since the process was started
    phase: str
    step: int | None  # of the last whole checkpoint; None: there was none yet


class Failed(Exception):
    """A process that was not killed did not come to a good end."""


class Training:
    """A process of a job, at work. `phase` is what it was last seen doing."""

    def __init__(self, job: Job):
        self.job, self.shown, self.phase = job, "", "imports"
        self._left = set(job.temporaries())  # by those killed before
        self._terminal, theirs = pty.openpty()
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            job.command, cwd=ROOT, env=job.environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
        )
        os.close(theirs)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def look(self) -> bool:
        """Looks, after a moment, what the process is doing; returns whether it is still there. Raises Failed."""
        time.sleep(_POLL_SECONDS)
        alive = self.process.poll() is None
        self.shown += self._read()
        now = self.job.temporaries()
        self._left &= now.keys()
        building = [phase for path, phase in now.items() if path not in self._left]
        self.phase = building[0] if building else shown_phase(self.shown)
        if self.seconds > _STUCK_SECONDS:
            raise Failed(f"still in {self.phase} after {self.seconds:.0f} s: {self.shown[-500:]}")
        return alive

    def _read(self) -> str:
        """What came to the terminal since the last call."""
        parts = []
        while select.select([self._terminal], [], [], 0)[0]:
            try:
                part = os.read(self._terminal, 2**16)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                break  # the process has gone
            parts.append(part)
        return _ESCAPES.sub("", b"".join(parts).decode(errors="replace"))

    def kill(self) -> Kill | None:
        """None if the process was faster, and has come to its end."""
        seconds = self.seconds
        self.process.kill()
        self.process.wait()
        self.look()
        killed = self.process.returncode == -signal.SIGKILL
        return Kill(seconds, self.phase, self.job.last_step()) if killed else None

    def check_end(self) -> None:
        """Raises Failed if the process, which was not killed, did not end well."""
        if self.process.returncode != 0:
            raise Failed(f"exit code {self.process.returncode}: {self.shown[-500:]}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)


def shown_phase(shown: str) -> str:
    """The phase that a terminal shows, apart from those that temporary folders show."""
    if shown.count("Compiling jit(") > shown.count("Finished XLA compilation"):
        return "compilation"
    if shown.rfind("Validating") > shown.rfind("validation auc"):
        return "evaluation"
    if "Finished XLA compilation of jit(train_step)" in shown:
        return "steps"
    return "setup" if shown else "imports"


@contextmanager
def started(job: Job) -> Iterator[Training]:
    training = Training(job)
    try:
        yield training
    finally:
        training.close()


@dataclass
class Alone:
    """An uninterrupted run, and how long it took."""

    job: Job
    seconds: float = 0.0
    before_steps: float = 0.0  # of them
    longest: dict[str, float] = field(default_factory=dict)  # seconds that a phase lasted at a time
    steps: int = 0


def run_alone(job: Job) -> Alone:
    """Trains without a kill. Raises Failed."""
    alone, phase, since = Alone(job), "imports", 0.0
    with started(job) as training:
        while training.look():
            if training.phase != phase:
                alone.longest[phase] = max(alone.longest.get(phase, 0.0), training.seconds - since)
                phase, since = training.phase, training.seconds
                if phase == "steps" and not alone.before_steps:
                    alone.before_steps = since
        alone.seconds = training.seconds
        training.check_end()
    alone.steps = RunDirectory(job.run_dir).read_summary().steps
    return alone


Aim = str | int | None
"""What a kill waits for: a phase; a step, whose checkpoint (or a later one) is whole; nothing."""


def kill_once(job: Job, aim: Aim, seconds: float) -> Kill | None:
    """Starts or resumes; kills where the aim is met, `seconds` or more after it first was.

    Returns None if the process came to its end before. Raises Failed if that was not a good one.
    """
    since = 0.0 if aim is None else math.inf
    with started(job) as training:
        while training.look():
            there = aim in (None, training.phase) or (isinstance(aim, int) and (job.last_step() or 0) >= aim)
            if there:
                since = min(since, training.seconds)
            if there and training.seconds >= since + seconds and (kill := training.kill()):
                return kill
        training.check_end()
    return None


def run_killed(job: Job, alone: Alone, aims: Sequence[Aim], rng: np.random.Generator) -> list[Kill]:
    """Starts a run, kills and resumes it, once for each aim, and then lets it finish. Raises Failed.

    A phase is hit at a random moment of it, a step just after its checkpoint, while older ones are being deleted. Where
    an aim is None, at a random moment of the time left, or rather of the share of it that lets the run go on evenly.
    Returns fewer kills than aims if the run came to its end before.
    """
    kills: list[Kill] = []
    for i, aim in enumerate(aims):
        if aim is None:
            left = (alone.seconds - alone.before_steps) * (1 - (job.last_step() or 0) / alone.steps)
            longest = alone.before_steps + 2 * left / (len(aims) - i + 1)
        elif isinstance(aim, int):
            longest = _DELETING_SECONDS
        else:
            longest = alone.longest.get(aim, 0.0)
        kill = kill_once(job, aim, rng.uniform(0, longest))
        if kill is None:
            return kills
        kills.append(kill)
    finish(job)
    return kills


def finish(job: Job) -> None:
    """Starts or resumes, and waits for the end. Raises Failed."""
    with started(job) as training:
        while training.look():
            pass
        training.check_end()


@dataclass
class Outcome:
    """What came of killing a training again and again."""

    kills: list[Kill] = field(default_factory=list)
    runs: int = 0  # that they were spread over; each came to its end
    compared: int = 0  # bytes of all arrays in their checkpoints, best and last
    differing: int = 0  # of these
    others: list[str] = field(default_factory=list)  # what else differs from the run left alone
    seconds: float = 0.0

    @property
    def same(self) -> bool:
        return not self.differing and not self.others


_MOST_RUNS = 4


def soak(
    config: Path, folder: Path, aims: Sequence[Aim], seed: int, devices: int = 1, own_programs: bool = False
) -> Outcome:
    """Kills the config's training once for each aim (see `run_killed`) and compares its end with that of one left
    alone. A run that ends before all aims were met is followed by another one, up to a few."""
    start, outcome, rng = time.monotonic(), Outcome(), np.random.default_rng(seed)
    try:
        alone = run_alone(Job(config, folder / "alone", devices, own_programs))
        while len(outcome.kills) < len(aims) and outcome.runs < _MOST_RUNS:
            outcome.runs += 1
            job = Job(config, folder / f"killed_{outcome.runs}", devices, own_programs)
            outcome.kills += run_killed(job, alone, aims[len(outcome.kills) :], rng)
            compare(alone.job, job, outcome)
    except (Failed, InputError) as error:
        outcome.others.append(f"{type(error).__name__}: {error}")
    outcome.seconds = time.monotonic() - start
    return outcome


# What must be the same


def compare(alone: Job, killed: Job, outcome: Outcome) -> None:
    """Adds to `outcome` what two finished runs do not have in common; times and rates are not compared."""
    a, b = (_steps(job) for job in (alone, killed))
    _expect_equal("best and last checkpoint", a, b, outcome)
    for step_a, step_b in zip(a, b, strict=True):
        _compare_checkpoints(_read_checkpoint(alone, step_a), _read_checkpoint(killed, step_b), outcome)
    a, b = (_records(job) for job in (alone, killed))
    _expect_equal("number of records in metrics.jsonl", len(a), len(b), outcome)
    for i, (record_a, record_b) in enumerate(zip(a, b, strict=False)):
        _expect_equal(f"metrics.jsonl, line {i + 1}", record_a, record_b, outcome)
    a, b = (_without_times(RunDirectory(job.run_dir).read_summary().to_json()) for job in (alone, killed))
    _expect_equal("summary.json", a, b, outcome)
    a, b = (_predictions(job) for job in (alone, killed))
    _expect_equal("SHA-256 of predictions.parquet", a, b, outcome)


def _expect_equal(what: str, a: Any, b: Any, outcome: Outcome) -> None:
    if a != b:
        outcome.others.append(f"{what}: {a} ≠ {b}")


_TIMES = ("samples_per_second", "seconds", "stepping_rows", "stepping_seconds")


def _without_times(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in _TIMES}


def _records(job: Job) -> list[dict[str, Any]]:
    return [_without_times(record) for record in RunDirectory(job.run_dir).read_records()]


def _steps(job: Job) -> tuple[int | None, int | None]:
    with RunDirectory(job.run_dir).checkpoints() as checkpoints:
        return checkpoints.best_step, checkpoints.last_step


def _read_checkpoint(job: Job, step: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of all parts by name, and progress without its times."""
    run = RunDirectory(job.run_dir)
    like = abstract_state(run.read_config(), run.read_items(), make_mesh())
    with RunDirectory(job.run_dir).checkpoints() as checkpoints:
        state, progress = checkpoints.restore(step, like)
    arrays = {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(state)}
    return arrays, progress | {"position": _without_times(progress["position"])}


def _compare_checkpoints(a: tuple, b: tuple, outcome: Outcome) -> None:
    (arrays_a, progress_a), (arrays_b, progress_b) = a, b
    _expect_equal("progress", progress_a, progress_b, outcome)
    for name, array in arrays_a.items():
        outcome.compared += array.nbytes
        outcome.differing += _differing_bytes(array, arrays_b[name])


def _differing_bytes(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.count_nonzero(np.frombuffer(a.tobytes(), np.uint8) != np.frombuffer(b.tobytes(), np.uint8)))


def _predictions(job: Job) -> str:
    """SHA-256 of what predict.py, through the same function, writes for the config's test file."""
    predict(job.run_dir, None, job.folder / "predictions.parquet")
    return sha256(job.folder / "predictions.parquet").hexdigest()
