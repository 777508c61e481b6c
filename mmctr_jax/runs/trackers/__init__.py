"""Experiment trackers: where the records of a training go besides its run directory (`train.trackers`).

A tracker is a class in a file of its own, named here. MLflow and W&B speak to servers, so they work in the background:
whatever becomes of them, the training goes on.
"""

from __future__ import annotations

from importlib.util import find_spec

from mmctr_jax.errors import InputError
from mmctr_jax.runs.trackers.background import InBackground
from mmctr_jax.runs.trackers.base import TrackedRun, Tracker
from mmctr_jax.runs.trackers.mlflow import MLflow
from mmctr_jax.runs.trackers.tensorboard import TensorBoard
from mmctr_jax.runs.trackers.wandb import WandB

_OF_SERVERS = {"mlflow": MLflow, "wandb": WandB}


def check_trackers(names: tuple[str, ...]) -> None:
    """Raises: InputError if one of them is not installed."""
    for name in names:
        if name in _OF_SERVERS and find_spec(name) is None:
            raise InputError(f"train.trackers names {name}, which is not installed: pip install 'mmctr-jax[trackers]'.")


def trackers(names: tuple[str, ...], run: TrackedRun) -> list[Tracker]:
    """The trackers of these names."""
    return [InBackground(name, _OF_SERVERS[name], run) if name in _OF_SERVERS else TensorBoard(run) for name in names]
