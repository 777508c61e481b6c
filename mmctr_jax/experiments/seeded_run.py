"""One config with one seed, trained and scored once: a run directory, and a record that says what it is a run of."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmctr_jax.config import Config, parse_config
from mmctr_jax.config.differences import Marker, first_difference
from mmctr_jax.console import log, show
from mmctr_jax.data.cache import digest_of_files
from mmctr_jax.data.parquet import part_files
from mmctr_jax.errors import FailedError, InputError, UnfitError
from mmctr_jax.files import write_atomically, writing
from mmctr_jax.prediction.predict import predict
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.runs.summary import StopReason
from mmctr_jax.training.loop import train


def digests(config: Config, known: dict[str, str], with_test: bool) -> dict[str, str]:
    """What a result depends on besides its config: the contents of the data files. `known`: those read before."""
    digests = {}
    for name in ("train", "valid", "item_info", *(("test", "test_labels") if with_test else ())):
        path = getattr(config.data, name)
        if path:
            if path not in known:
                known[path] = digest_of_files(part_files(path)).hexdigest()
            digests[name] = known[path]
    return digests


def difference(config: Config, other: Config, data: dict[str, str], other_data: dict[str, str]) -> str | None:
    """The first setting or data file that makes results of two configs different ones, in words; None if none does.

    Files are compared by their contents (`data`, `other_data`: `digests`), not by their paths.
    """
    found = first_difference(config, other, ignoring=Marker.FREE_IN_COMPARISON)
    if found is None and data != other_data:
        name = next(n for n in {**data, **other_data} if data.get(n) != other_data.get(n))
        found = f"the contents of data.{name}"
    return found


@dataclass(frozen=True)
class Run:
    """One config with one seed. Its record, beside its run directory, says from the start what it is a run of."""

    directory: Path
    config: Config
    data: dict[str, str]

    @property
    def record(self) -> Path:
        """The file that says what the run is of."""
        return self.directory.with_suffix(".json")

    def result(self) -> dict[str, Any] | None:
        """The outcome, if the run is finished. Raises InputError if what is there is a run of something else."""
        try:
            record = json.loads(self.record.read_text())
            config, data, result = parse_config(record["config"]), dict(record["data"]), record["result"]
            if result is not None and "failed" not in result:
                dict(result["validation"]), dict(result.get("test", {}))
        except (FileNotFoundError, NotADirectoryError):
            if RunDirectory(self.directory).is_started:
                raise InputError(f"{self.directory} is not a run of this comparison; name another --out.") from None
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError):
            raise InputError(f"{self.record} is damaged; remove it and {self.directory}, and start again.") from None
        found = difference(config, self.config, data, self.data)
        if found:
            raise InputError(
                f"{self.directory} is a run of something else ({found}, there ≠ now); "
                "name another folder with --out, or remove that run and its .json."
            )
        return result

    def go(
        self, score_test: bool = True, end_early: Callable[[int, float], bool] | None = None
    ) -> dict[str, Any] | None:
        """Trains, or resumes, and scores the test file unless told not to. None: interrupted, having saved.

        end_early: as in `training.train`. Raises: InputError; TrainingError where another attempt may end well.
        """
        self._write(None)
        result = self._train(end_early)
        if result is not None and score_test and "failed" not in result:
            result |= {"test": predict(self.directory, None, None)["metrics"] if self.config.data.test else {}}
            if result["test"]:
                log.info("Test " + ", ".join(f"{name} {show(value)}" for name, value in result["test"].items()) + ".")
        if result is not None:
            self._write(result)
        return result

    def _write(self, result: dict[str, Any] | None) -> None:
        record = {"config": self.config.model_dump(mode="json"), "data": self.data, "result": result}
        with writing(self.record, "make room there, or name another folder with --out"):
            self.directory.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.record, json.dumps(record, indent=1) + "\n")

    def _train(self, end_early: Callable[[int, float], bool] | None) -> dict[str, Any] | None:
        try:
            summary = train(self.config, self.directory, resume=True, end_early=end_early)
        except (FailedError, UnfitError) as error:
            log.error(f"{error}")
            return {"failed": str(error)}
        return None if summary.stopped is StopReason.INTERRUPTED else summary.to_json()
