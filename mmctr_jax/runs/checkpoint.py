"""Checkpoints through Orbax: all that a run needs to go on, saved together; `best` and `last` are kept.

A checkpoint at step n is the folder n with three parts: `model` (the weights that predict, running means), `optimizer`
(moments, step, random key; the weights that steps go on from, where averaged ones predict) and `progress` (loader
position, plateau and patience counters, sums). Orbax writes it beside its final name and renames it when whole, in the
background. What a disk does to it later is found out by sums over every array's bits, which stand in `progress`.
"""

from __future__ import annotations

import errno
import gc
import hashlib
import json
import os
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from mmctr_jax import interrupt
from mmctr_jax.console import log
from mmctr_jax.devices.hosts import give_up_if_lost
from mmctr_jax.errors import InputError, TrainingError
from mmctr_jax.runs.state import TrainState

T = TypeVar("T")

# Orbax restores onto the shardings we ask for; what it says about those in the file is of no use here.
warnings.filterwarnings("ignore", message="Sharding info not provided", module="orbax")


def _each_array_by_one_device() -> ocp.Context:
    """What is on every device is written by one. (Orbax would have each write a part, and compile a program for each
    part of each array: most of the time of a first, small checkpoint.)"""
    context = ocp.Context()
    context.array.saving.use_replica_parallel = False
    return context


class _KeepBestAndLast:
    """The newest checkpoint names the best step in its metrics; these two stay. (Orbax's own `BestN` would count an
    AUC above the best by less than min_delta as better.)"""

    def should_preserve(self, checkpoints, *, context):
        best = checkpoints[-1].metrics["best_step"] if checkpoints else None
        return [c is checkpoints[-1] or c.step == best for c in checkpoints]


_WAIT, _LOOK = 600, 10  # seconds: for room on a disk that is full, and between two looks
_TRIES = 20  # to read the best checkpoint of a run that is still training


def _while_it_changes(read: Callable[[], T]) -> T:
    """Reads a folder, again where a file went away meanwhile, as a training deletes checkpoints."""
    for _ in range(_TRIES):
        with suppress(FileNotFoundError):
            return read()
        time.sleep(0.02)
    return read()


class _ReplacedError(InputError):
    """A checkpoint went away while it was read."""


class Checkpoints:
    """The checkpoints of a run directory. A context manager: leaving it waits for writes in the background."""

    def __init__(self, folder: Path, damaged: Path, writable: bool = False):
        """Opens the checkpoints in `folder`; those found to be damaged on resumption are moved to `damaged`.

        Raises: InputError if what is there cannot be read as checkpoints.
        """
        self.folder, self._damaged = folder, damaged
        self._not_whole: set[int] = set()  # steps whose reading failed
        try:
            self._orbax = _while_it_changes(
                lambda: ocp.training.Checkpointer(
                    folder.resolve(), preservation_policy=_KeepBestAndLast(), cleanup_tmp_directories=writable
                )
            )
        except (ValueError, KeyError, TypeError) as error:  # of a damaged file
            raise InputError(
                f"{folder} cannot be read ({_reason(error)}); remove the checkpoint that is damaged."
            ) from None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        if kind is None:
            with self._writing():
                self._orbax.close()
        else:  # what went wrong first is what counts
            with suppress(Exception):
                self._orbax.close()

    @property
    def steps(self) -> list[int]:
        """Of the checkpoints on disk, newest first."""
        return [checkpoint.step for checkpoint in reversed(self._orbax.checkpoints)]

    @property
    def last_step(self) -> int | None:
        """Of the newest checkpoint on disk; None where there is none."""
        return next(iter(self.steps), None)

    @property
    def best_step(self) -> int | None:
        """The step of the best validation; None before the first validation. Raises InputError if none is whole."""
        return self._first_whole(self.steps, self._best_step)[1]

    @property
    def kept(self) -> str:
        """What there is to go back to, for messages."""
        with suppress(Exception):  # what is being written may yet be whole
            self._orbax.wait()
        try:
            names = [path.name for path in self.folder.iterdir()]
        except OSError as error:
            return f"what checkpoints there are cannot be seen ({self.folder}: {error.strerror})"
        made = {int(name) for name in names if name.isdigit()}
        if whole := made - self._not_whole:
            return f"step {max(whole):,} is the last good checkpoint"
        return "none of its checkpoints can be read" if made else "no checkpoint was made yet"

    # Saving

    def save(self, parts: dict[str, Any], progress: dict[str, Any], step: int, best_step: int | None) -> None:
        """Starts saving `TrainState.parts`; returns once the state may be donated to the next step.

        Raises: TrainingError.
        """
        self._not_whole.discard(step)
        self._wait_for_room(sum(x.nbytes for x in jax.tree.leaves(parts)))
        sums = {name: _sums(part) for name, part in parts.items()}
        parts = parts | {"progress": _seal({"progress": progress, "sums": sums})}
        with self._writing(), _each_array_by_one_device():
            self._orbax.save_checkpointables_async(step, parts, force=True, metrics={"best_step": best_step})

    def _wait_for_room(self, size: int) -> None:
        """Waits while the disk is full, as shared ones are for a while; in the end lets the writing find out."""
        for waited in range(0, _WAIT, _LOOK):
            free = shutil.disk_usage(self.folder.parent).free
            if free >= 0.9 * size:  # which numbers that compress badly are compressed to
                return
            if waited % (6 * _LOOK) == 0:
                log.warning(
                    f"{self.folder} has {free / 1e9:.2f} GB free, and a checkpoint needs {size / 1e9:.2f}: make room. "
                    f"Training waits, {(_WAIT - waited) / 60:.0f} more minutes at most."
                )
            time.sleep(_LOOK)

    def wait(self) -> None:
        """Until all that was saved is on disk. Raises TrainingError."""
        with self._writing():
            self._orbax.wait()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of many kinds
            give_up_if_lost(error)
            raise TrainingError(
                f"A checkpoint cannot be written in {self.folder} ({_reason(error)}); {self.kept}. Make room or make "
                "the folder writable, then go on with --resume."
            ) from None

    # Restoring

    def restore(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """State and progress at `step`, on the shardings of `like`. Raises InputError if it is not whole."""
        loaded = self._load(step, jax.tree.map(_abstract, like).parts())
        return TrainState.of_parts(loaded["model"], loaded["optimizer"]), loaded["progress"]

    def restore_newest(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The same of the newest checkpoint that is whole; newer ones are set aside. None where there are none.

        Raises: InputError if none is whole.
        """
        if not self.steps:
            return None
        step, restored = self._first_whole(self.steps, lambda step: self.restore(step, like))
        damaged = [newer for newer in self.steps if newer > step]
        if damaged:
            self._set_aside(damaged)
        return restored

    def restore_best(self, like: TrainState) -> tuple[int, Any, Any]:
        """Step, parameters and running means of the best validation: what scoring needs. `like` may be abstract.

        Where there was no validation yet, or the best is damaged: of the newest that is whole.
        Raises: InputError if none is whole.
        """
        model_like = jax.tree.map(_abstract, like).parts()["model"]
        step, restored = self._best(lambda step: self._load(step, {"model": model_like})["model"])
        return step, restored["params"], restored["batch_stats"]

    def restore_best_state(self, like: TrainState) -> tuple[int, TrainState]:
        """Step and whole state of the same checkpoint, on the shardings of `like`: what a training goes on from."""
        step, (state, _) = self._best(lambda step: self.restore(step, like))
        return step, state

    def _best(self, read: Callable[[int], T]) -> tuple[int, T]:
        for _ in range(_TRIES):
            with suppress(_ReplacedError):
                return self._best_now(read)
            _while_it_changes(self._orbax.reload)
        return self._best_now(read)

    def warn_without(self, best: int | None) -> None:
        """Where the checkpoint of the best validation is not there any more, as after half a copy."""
        if best is not None and best not in self.steps:
            log.warning(
                f"{self.folder} has no checkpoint {best:,}, that of the best validation; the newest, step "
                f"{self.last_step:,}, takes its place."
            )

    def _best_now(self, read: Callable[[int], T]) -> tuple[int, T]:
        best = self.best_step
        if best is None:
            log.warning(f"No validation was reached yet: taking the last checkpoint, step {self.last_step}.")
        self.warn_without(best)
        steps = sorted(self.steps, key=lambda step: step != best)  # the best one, then newest first
        return self._first_whole(steps, read)

    def _best_step(self, step: int) -> int | None:
        """The step of the best validation, as known at `step`; None before the first validation."""
        return self._load(step, {})["progress"]["plateau"]["best_step"]

    def _first_whole(self, steps: list[int], restore: Callable[[int], T]) -> tuple[int, T]:
        problem = None
        for step in steps:
            try:
                restored = restore(step)
            except InputError as error:
                if self._is_gone(step):
                    raise _ReplacedError(
                        f"{self.folder}: the training replaces its checkpoints faster than one can be read; try again."
                    ) from None
                problem = problem or error
                continue
            if problem:
                log.warning(f"{problem} Taking step {step:,} instead.")
            return step, restored
        raise problem or InputError(f"{self.folder} holds no checkpoint.")

    def _is_gone(self, step: int) -> bool:
        """Whether the training has deleted a checkpoint, or is about to: not a damaged one."""
        for _ in range(10):
            if not (self.folder / str(step)).is_dir():
                return True
            time.sleep(0.02)
        return False

    def _load(self, step: int, parts: dict[str, Any]) -> dict[str, Any]:
        """These parts and `progress`, checked. Raises InputError."""
        # Where one of Orbax's readers fails, the others complain at length, the moment they are collected.
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        loaded = None
        # Orbax reads in a loop of its own, where to be interrupted looks like damage.
        with interrupt.deferred(), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            with suppress(Exception):  # of many kinds
                self._check_shapes(step, parts)
                found = self._orbax.load_checkpointables(step, parts | {"progress": None})
                sealed = _unseal(found["progress"])
                if all(_sums(found[name]) == sealed["sums"][name] for name in parts):
                    loaded = found | {"progress": sealed["progress"]}
            if loaded is None:
                gc.collect()
            sys.unraisablehook = hook
        if loaded is None:
            self._not_whole.add(step)
            raise InputError(
                f"Checkpoint {self.folder / str(step)} cannot be restored: "
                "it is damaged, or of another model than the run's config.yaml describes."
            )
        return loaded

    def _check_shapes(self, step: int, parts: dict[str, Any]) -> None:
        """Raises: ValueError if the arrays there are others. (Orbax's readers would find out one by one, at length.)"""
        if parts:
            there = self._orbax.checkpointables_metadata(step).metadata
            for name, part in parts.items():
                if _shapes(there[name]) != _shapes(part):
                    raise ValueError(name)

    def _set_aside(self, steps: list[int]) -> None:
        if jax.process_index() == 0:
            self._damaged.mkdir(exist_ok=True)
            for step in steps:
                (self.folder / str(step)).rename(self._damaged / f"{step}-{time.time_ns()}")
            log.warning(f"What was damaged is in {self._damaged} now, and may be deleted.")
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._orbax.reload()


def _shapes(tree: Any) -> Counter[tuple[int, ...]]:
    return Counter(tuple(x.shape) for x in jax.tree.leaves(tree))


def _seal(values: dict[str, Any]) -> dict[str, str]:
    text = json.dumps(values)
    return {"json": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _unseal(sealed: dict[str, str]) -> dict[str, Any]:
    if hashlib.sha256(sealed["json"].encode()).hexdigest() != sealed["sha256"]:
        raise ValueError("damaged")
    return json.loads(sealed["json"])


def _sums(tree: Any) -> list[int]:
    """One number for each array, of all its bits and their places, the same however it is split over devices."""
    return [int(x) for x in jax.device_get(_bit_sums(jax.tree.leaves(tree)))]


@jax.jit
def _bit_sums(arrays: list[jax.Array]) -> list[jax.Array]:
    def one(x: jax.Array) -> jax.Array:
        bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
        place = jnp.zeros(bits.shape, jnp.uint32)
        for axis, size in enumerate(bits.shape):
            place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        # Times an odd number, a change of one word changes the sum (modulo 2³²).
        return (bits * (2 * place + 1)).sum(dtype=jnp.uint32)

    return [one(x) for x in arrays]


def _reason(error: Exception) -> str:
    """What the system said, of all that Orbax says."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    known = [os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)]
    found = [reason for reason in known if reason.lower() in text.lower()]
    return found[0] if found else (text.splitlines() or [type(error).__name__])[0][:200]


def _abstract(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
