"""Weights & Biases: a run of the project WANDB_PROJECT (default: mmctr). The key: WANDB_API_KEY, or `wandb login`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mmctr_jax.runs.trackers.base import TrackedRun

_NAME = "wandb"


class WandB:
    """Its files go into the run directory. With WANDB_MODE=offline nothing else happens; `wandb sync` sends them."""

    def __init__(self, run: TrackedRun):
        self._run, self._wandb = run, None

    def open(self, step: int) -> None:
        import wandb

        offline = os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled")
        if not offline and not wandb.api.api_key:  # it would ask on the terminal
            raise RuntimeError("no API key; set WANDB_API_KEY, or WANDB_MODE=offline")
        kept = self._run.kept_id(_NAME) if step else None
        settings: dict[str, Any] = {"console": "off", "silent": True, "disable_git": True, "save_code": False}
        self._wandb = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "mmctr"),
            name=self._run.folder.name,
            id=kept,
            resume="allow" if kept else None,
            dir=self._run.folder,
            config=self._run.settings,
            reinit="create_new",  # the process's own run, if it has one, stays what it is
            settings=wandb.Settings(**settings),
        )
        self._run.keep_id(_NAME, self._wandb.id)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self._wandb.log(dict(values), step=step)

    def flush(self) -> None:
        pass

    def close(self, failed: bool) -> None:
        self._wandb.finish(exit_code=int(failed))
