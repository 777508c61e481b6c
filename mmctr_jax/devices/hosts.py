"""Several processes acting as one run: joining, and failing together."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mmctr_jax.console import log
from mmctr_jax.errors import InputError, TrainingError

_TELL_AFTER, _PATIENCE = 10, 300  # seconds
_LAST = 2  # seconds that process 0 outlives its error: where it is gone, JAX ends the others before they can speak
_SILENT = 25  # seconds without a sign of life after which a process is given up; JAX itself would wait for 100
_ENVIRONMENT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Connects this process to the others of its run, if it has any: from the three arguments, from the environment
    (JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, and JAX_PROCESS_ID or a Kubernetes job's JOB_COMPLETION_INDEX), or from
    SLURM.

    Must come before any other use of JAX. Raises InputError.
    """
    if coordinator is num_processes is process_id is None and os.environ.get(_ENVIRONMENT[0]):
        coordinator, num_processes, process_id = _from_environment()
    given = [coordinator, num_processes, process_id]
    slurm = os.environ.get("SLURM_STEP_NUM_TASKS", "1")  # set by srun alone: a batch script without it is one process
    if all(value is None for value in given) and not (slurm.isdigit() and int(slurm) > 1):
        return
    if any(value is not None for value in given):
        if coordinator is None or num_processes is None or process_id is None:
            raise InputError("--coordinator, --num-processes and --process-id go together; give all three.")
        host, colon, port = coordinator.rpartition(":")
        if not (host and colon and port.isdigit()):
            raise InputError(f"The coordinator {coordinator} is not of the form HOST:PORT.")
        if not 0 <= process_id < num_processes:
            raise InputError(f"The process id {process_id} is not in 0 … {num_processes - 1}.")
    try:
        with _waiting(coordinator, num_processes, process_id):
            jax.distributed.initialize(
                coordinator,
                num_processes,
                process_id,
                initialization_timeout=2 * _PATIENCE,
                heartbeat_timeout_seconds=2 * _SILENT + 10,  # for what our own watch cannot see
            )
    except (RuntimeError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"Cannot connect the processes of this run: {reason}.") from None
    threading.Thread(target=_watch_others, daemon=True).start()


def all_devices() -> list[jax.Device]:
    """Of all processes.

    Raises: InputError if JAX finds none, as where it was told to use others than there are, or one process has more
    than another, as where one's GPU is broken.
    """
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS")
        why = str(error).splitlines()[0].rstrip(".") if str(error) else "its plugin did not load"
        advice = f"JAX_PLATFORMS is {asked!r}; unset it, or name what there is" if asked else "see JAX's installation"
        raise InputError(f"JAX cannot use its devices: {why}; {advice}.") from None
    counts = Counter(device.process_index for device in devices)
    other = next((i for i in range(jax.process_count()) if counts[i] != counts[0]), None)
    if other is not None:
        raise InputError(
            f"Process 0 has {counts[0]} device(s) and process {other} has {counts[other]}; all must have as many: see "
            "which devices its host makes visible."
        )
    return devices


def _watch_others() -> None:
    """Gives up, in a sentence, once another process has been silent: killed, stopped, or cut off.

    Each writes a number into the run's key-value store, which process 0 has, and reads those of the others. Where the
    store does not answer, it is process 0 that is silent, and nothing is known of the others.
    """
    from jax._src import distributed  # JAX has no other door to the store

    state = distributed.global_state
    answered = time.monotonic()
    heard = {i: answered for i in range(state.num_processes) if i != state.process_id}
    over = threading.Event()

    def listen() -> None:
        nonlocal answered
        last: dict[int, str] = {}
        with suppress(Exception):  # where the store is gone, so is process 0, and JAX ends this one
            for beat in itertools.count():
                state.client.key_value_set(f"mmctr/alive/{state.process_id}", str(beat), allow_overwrite=True)
                answered = time.monotonic()
                for i in heard:
                    with suppress(jax.errors.JaxRuntimeError):  # not written yet
                        beat_of_i = state.client.key_value_try_get(f"mmctr/alive/{i}")
                        answered = time.monotonic()
                        if beat_of_i != last.get(i):
                            last[i], heard[i] = beat_of_i, answered
                time.sleep(_SILENT / 10)
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    while not over.wait(_SILENT / 10):
        silent = [0] if time.monotonic() - answered > _SILENT else []
        silent += [i for i, since in heard.items() if answered - since > _SILENT]
        if silent:
            give_up(f"process {silent[0]} has given no sign of life for {_SILENT} s")


_TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: schedulers start again what ends so
_LOST = re.compile("gloo|nccl|connection (closed|reset|refused)|socket closed|heartbeat|coordination", re.IGNORECASE)


@contextmanager
def ending_together() -> Iterator[None]:
    """Where the block fails on one of several processes, this one ends at once: to leave in order it would wait for
    the others, and they for it. An InputError is raised on all of them (`raising_on_all_hosts`), and passes."""
    try:
        yield
    except (InputError, KeyboardInterrupt):
        raise
    except Exception as error:
        give_up_if_lost(error)
        if jax.process_count() == 1:
            raise
        if isinstance(error, TrainingError):
            print(f"error: {error}", file=sys.stderr)
        else:
            traceback.print_exc()
        _end(1)


def give_up_if_lost(error: Exception) -> None:
    """Ends this process, in a sentence, if the error is that another one cannot be reached."""
    if jax.process_count() > 1 and _LOST.search(str(error)):
        give_up("another process cannot be reached any more")


def give_up(reason: str) -> None:
    """Ends this process at once, with exit code 75: to leave in order it would wait for those that are gone."""
    log.error(
        f"error: {reason}; its own log may say why. Start the processes of this run again with --resume: they go on "
        "from the last checkpoint."
    )
    _end(_TRY_AGAIN)


def _end(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    if code != _TRY_AGAIN and jax.process_index() == 0:
        time.sleep(_LAST)
    os._exit(code)


@contextmanager
def _waiting(coordinator: str | None, num_processes: int | None, process_id: int | None) -> Iterator[None]:
    """Says for whom this process waits, and gives up in a sentence where JAX would end it with a stack of C++."""
    others = "the other processes" if num_processes is None else f"the other {num_processes - 1} process(es)"
    whom = f"{others} of this run" if process_id in (0, None) else f"process 0 at {coordinator}"
    come = threading.Event()

    def watch() -> None:
        waited = 0
        while not come.wait(_TELL_AFTER if waited < _PATIENCE else 0):
            if waited >= _PATIENCE:
                print(
                    f"error: {whom} did not come within {_PATIENCE} s; start the same command for each, with the same "
                    "coordinator and number of processes.",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(_TRY_AGAIN)
            waited += _TELL_AFTER
            log.info(f"Waiting for {whom} ({waited} s, at most {_PATIENCE} s).")

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        come.set()


def _from_environment() -> tuple[str, int, int]:
    coordinator, number, process = (os.environ.get(name) for name in _ENVIRONMENT)
    process = process or os.environ.get("JOB_COMPLETION_INDEX")
    if not (number and number.isdigit() and process and process.isdigit()):
        raise InputError(
            f"{_ENVIRONMENT[0]} is set, so {_ENVIRONMENT[1]} and {_ENVIRONMENT[2]} must be, too, to whole numbers."
        )
    return coordinator, int(number), int(process)


@contextmanager
def raising_on_all_hosts() -> Iterator[None]:
    """Where the block raises InputError on one process, it does so on all of them, and none waits in vain."""
    problem = None
    try:
        yield
    except InputError as error:
        problem = error
    if jax.process_count() > 1:
        failed = np.flatnonzero(multihost_utils.process_allgather(np.array(problem is not None)))
        if failed.size and problem is None:
            problem = InputError(f"Process {failed[0]} stopped; its own message says why.")
    if problem:
        raise problem


def of_process_0(value: Any) -> Any:
    """What process 0 gives, of plain values as JSON has them, on every process. What others give is of no account."""
    if jax.process_count() == 1:
        return value
    text = json.dumps(value).encode()
    size = int(multihost_utils.broadcast_one_to_all(np.array(len(text))))
    text = text.ljust(size)[:size]
    return json.loads(bytes(multihost_utils.broadcast_one_to_all(np.frombuffer(text, np.uint8))))


def check_same_settings(ours: dict[str, Any], theirs: dict[str, Any], place: str = "") -> None:
    """Raises: InputError for the first setting of this process that process 0 has otherwise."""
    for name in theirs | ours:
        here, there = ours.get(name), theirs.get(name)
        if isinstance(here, dict) and isinstance(there, dict):
            check_same_settings(here, there, f"{place}{name}.")
        elif here != there:
            raise InputError(
                f"{place}{name} is {here} in process {jax.process_index()} and {there} in process 0; start all with "
                "the same config and settings."
            )


def check_equal_on_all_hosts(values: dict[str, str]) -> None:
    """Raises: InputError on every process, naming the first of `values` that is not the same on all of them."""
    if jax.process_count() == 1:
        return
    digests = [np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8) for value in values.values()]
    of_all = multihost_utils.process_allgather(np.stack(digests))
    for i, name in enumerate(values):
        other = np.flatnonzero((of_all[:, i] != of_all[0, i]).any(axis=1))
        if other.size:
            raise InputError(f"Processes 0 and {other[0]} read different data: {name}; give all the same files.")
