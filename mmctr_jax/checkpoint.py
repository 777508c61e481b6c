"""Checkpoints through Orbax: all that a run needs to go on, saved together; `best` and `last` are kept.

A checkpoint at step n is the folder checkpoints/n with three parts: `model` (parameters, running means), `optimizer`
(moments, step, random key) and `progress` (loader position, plateau and patience counters, sums). Orbax writes it
beside its final name and renames it when whole, in the background.
"""

from __future__ import annotations

import gc
import json
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from mmctr_jax.errors import InputError
from mmctr_jax.step import TrainState

# Orbax restores onto the shardings we ask for; what it says about those in the file is of no use here.
warnings.filterwarnings("ignore", message="Sharding info not provided", module="orbax")


class _KeepBestAndLast:
    """The newest checkpoint names the best step in its metrics; these two stay. (Orbax's own `BestN` would count an
    AUC above the best by less than min_delta as better.)"""

    def should_preserve(self, checkpoints, *, context):
        best = checkpoints[-1].metrics["best_step"] if checkpoints else None
        return [c is checkpoints[-1] or c.step == best for c in checkpoints]


class Checkpoints:
    """The checkpoints of a run directory. A context manager: leaving it waits for writes in the background."""

    def __init__(self, folder: Path, writable: bool = False):
        self.folder = folder
        self._orbax = ocp.training.Checkpointer(
            folder.resolve(), preservation_policy=_KeepBestAndLast(), cleanup_tmp_directories=writable
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_) -> None:
        self._orbax.close()

    @property
    def last_step(self) -> int | None:
        return self._orbax.latest.step if self._orbax.latest else None

    @property
    def best_step(self) -> int | None:
        """The step of the best validation AUC; None before the first validation."""
        latest = self._orbax.latest
        if latest and not latest.metrics:
            raise InputError(
                f"Checkpoint {self.folder / str(latest.step)} is damaged; remove it to use the one before."
            )
        return latest.metrics["best_step"] if latest else None

    def save(self, state: TrainState, progress: dict[str, Any], step: int, best_step: int | None) -> None:
        """Starts saving; returns once the state may be donated to the next step."""
        parts = {
            "model": {"params": state.params, "batch_stats": state.batch_stats},
            "optimizer": {"opt_state": state.opt_state, "step": state.step, "rng": state.rng},
            "progress": {"json": json.dumps(progress)},
        }
        self._orbax.save_checkpointables_async(step, parts, force=True, metrics={"best_step": best_step})

    def wait(self) -> None:
        """Until all that was saved is on disk."""
        self._orbax.wait()

    def _load(self, step: int, parts: dict[str, Any]) -> dict[str, Any]:
        # Where one of Orbax's readers fails, the others complain at length, the moment they are collected.
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        loaded = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            with suppress(Exception):  # of many kinds
                loaded = self._orbax.load_checkpointables(step, parts)
            gc.collect()
        sys.unraisablehook = hook
        if loaded is None:
            raise InputError(
                f"Checkpoint {self.folder / str(step)} cannot be restored: "
                "it is damaged, or of another model than the run's config.yaml describes."
            )
        return loaded

    def restore(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """State and progress at `step`, on the shardings of `like`."""
        like = jax.tree.map(_abstract, like)
        loaded = self._load(
            step,
            {
                "model": {"params": like.params, "batch_stats": like.batch_stats},
                "optimizer": {"opt_state": like.opt_state, "step": like.step, "rng": like.rng},
                "progress": None,
            },
        )
        state = TrainState(**loaded["model"], **loaded["optimizer"])
        return state, json.loads(loaded["progress"]["json"])

    def restore_model(self, step: int, like: TrainState) -> tuple[Any, Any]:
        """Parameters and running means at `step`: what scoring needs. `like` may be abstract."""
        like = jax.tree.map(_abstract, like)
        model = self._load(step, {"model": {"params": like.params, "batch_stats": like.batch_stats}})["model"]
        return model["params"], model["batch_stats"]


def _abstract(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
