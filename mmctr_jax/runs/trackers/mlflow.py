"""MLflow: a run of the experiment MLFLOW_EXPERIMENT_NAME (default: mmctr) on the server MLFLOW_TRACKING_URI."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from mmctr_jax.runs.trackers.base import TrackedRun

_NAME = "mlflow"
_PARAMS, _LONGEST = 100, 500  # in one request, and of a value: the least that MLflow's servers take


class MLflow:
    """Uses a client of its own; the process's active run and experiment stay what they are."""

    def __init__(self, run: TrackedRun):
        from mlflow import MlflowClient

        self._run, self._client, self._id = run, MlflowClient(), run.kept_id(_NAME)

    def open(self, step: int) -> None:
        if self._id and step:
            self._client.update_run(self._id, status="RUNNING")
            return
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "mmctr")
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self._id = self._client.create_run(experiment_id, run_name=self._run.folder.name).info.run_id
        self._run.keep_id(_NAME, self._id)
        params = [Param(name, value[:_LONGEST]) for name, value in self._run.settings.items()]
        for start in range(0, len(params), _PARAMS):
            self._client.log_batch(self._id, params=params[start : start + _PARAMS])

    def add(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._id, [Metric(name, float(value), now, step) for name, value in values.items()])

    def flush(self) -> None:
        pass

    def close(self, failed: bool) -> None:
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")
