"""The run directory: what a training leaves behind, and all that predicting needs besides the data.

config.yaml     resolved configuration          metrics.jsonl   a line per log interval and per validation
metadata.json   versions, devices, fingerprints curves.png      loss, AUC and learning rate over steps
items.npz       the item table                  tensorboard/    the same as metrics.jsonl, as events
checkpoints/    best and last                   train.log       what the terminal showed
damaged/        checkpoints set aside           summary.json    the result, whenever training stops
calibration.json, predictions.parquet           what mmctr predict adds
trackers.json   by what MLflow and W&B know it  .lock           held by the process that trains
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

from mmctr_jax.config import Config, load_config, to_yaml
from mmctr_jax.config.differences import Marker, first_difference
from mmctr_jax.data.items import Items, ItemTable, fingerprint
from mmctr_jax.data.kept import mapped_npz
from mmctr_jax.errors import InputError
from mmctr_jax.features.base import Fitted
from mmctr_jax.files import hold, replacing, write_atomically
from mmctr_jax.runs.checkpoint import Checkpoints
from mmctr_jax.runs.recorder import Recorder, read_records
from mmctr_jax.runs.summary import Summary
from mmctr_jax.runs.trackers import TrackedRun, trackers

_LOCK_TRIES = 3
_FEATURE, _FITTED = "feature/", "fitted/"  # in items.npz
_CENTROIDS = "centroids/"  # in those of version 0.1: codes alone were fitted
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pyarrow", "scikit-learn")


@dataclass(frozen=True)
class RunDirectory:
    """One training's directory. The only place that knows the names of the files in it."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    # Files

    @property
    def config_file(self) -> Path:
        """The resolved configuration; its presence says that the run was begun."""
        return self.path / "config.yaml"

    @property
    def metadata_file(self) -> Path:
        """Versions, devices, fingerprints of the data."""
        return self.path / "metadata.json"

    @property
    def items_file(self) -> Path:
        """The item table, and what deriving features gave."""
        return self.path / "items.npz"

    @property
    def checkpoint_folder(self) -> Path:
        """The best and the last checkpoint."""
        return self.path / "checkpoints"

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is one, whole or not. (To ask `checkpoints` makes the folder.)"""
        return any(self.checkpoint_folder.glob("[0-9]*"))

    @property
    def damaged_folder(self) -> Path:
        """Where checkpoints go that were found to be damaged; absent if none was."""
        return self.path / "damaged"

    @property
    def records_file(self) -> Path:
        """A line for each training record and each validation."""
        return self.path / "metrics.jsonl"

    @property
    def curves_file(self) -> Path:
        """Loss, AUC and learning rate over the steps, as a picture."""
        return self.path / "curves.png"

    @property
    def log_file(self) -> Path:
        """What the terminal showed."""
        return self.path / "train.log"

    @property
    def summary_file(self) -> Path:
        """The result, whenever training stops."""
        return self.path / "summary.json"

    @property
    def calibration_file(self) -> Path:
        """The map from logits to calibrated ones, if one was fitted."""
        return self.path / "calibration.json"

    @property
    def predictions_file(self) -> Path:
        """Where predictions go if no other place is named."""
        return self.path / "predictions.parquet"

    @property
    def _lock_file(self) -> Path:
        return self.path / ".lock"

    # Beginning and resuming

    def check_free(self, resume: bool) -> None:
        """Raises: InputError where a training would overwrite something that is not its own."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"Run directory {self} is a file; name another with --run-dir.")
        used = self.path.is_dir() and any(self.path.iterdir())
        if used and not resume:
            raise InputError(
                f"Run directory {self} exists; add --resume to go on with it, or name another with --run-dir."
            )
        # A .lock without a config.yaml is a run that was killed before it had written its configuration.
        if used and not self.is_started and not self._lock_file.exists():
            raise InputError(f"{self} is not a run directory (it has no config.yaml); name another with --run-dir.")

    @property
    def is_started(self) -> bool:
        """Whether a training was begun here, or weights were converted into it."""
        return self.config_file.is_file()

    def check_same_run(self, config: Config, fingerprints: dict[str, str], lengths: tuple[int, ...]) -> None:
        """Checks that a training would go on here as it was begun.

        Args:
            config: The resolved configuration.
            fingerprints: Of the data, by the names of their settings in `data`.
            lengths: Those of padded histories, rising.

        Raises:
            InputError: It was begun with another configuration, on other data or with other batches.
        """
        difference = first_difference(self.read_config(), config, ignoring=Marker.FREE_ON_RESUME)
        if difference:
            raise InputError(
                f"{self} was begun with another config ({difference}, run ≠ now); "
                "resume with the same one, or name another --run-dir."
            )
        metadata = self.read_metadata()
        if metadata.get("converted"):
            raise InputError(f"{self} holds converted weights, no training to go on with; name another --run-dir.")
        for name, now in fingerprints.items():
            if metadata["data"].get(name) != now:
                raise InputError(
                    f"{self} was begun on other data: data.{name} has changed since; "
                    "bring the old files back, or name another --run-dir."
                )
        begun = metadata.get("training_lengths")
        if begun != list(lengths):
            raise InputError(
                f"{self} was begun by another version, with batches of other lengths ({begun or 'one only'}; now "
                f"{list(lengths)}), in another order; name another --run-dir."
            )

    # Not the package filelock: its locks are exclusive and its files are opened for writing, so that looking whether a
    # run is at work would write into the directory of somebody else's run, and could turn a training away.

    def lock(self) -> IO:
        """Makes this process the only one that trains here for as long as the returned file is open.

        The system lets go of the lock when the process ends, however it ends.
        Raises: InputError if another process holds it, or the directory cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = open(self._lock_file, "w")
        except OSError as error:
            raise InputError(f"Run directory {self} cannot be written: {error.strerror}.") from None
        for left in reversed(range(_LOCK_TRIES)):
            try:
                hold(handle)
                break
            except OSError:
                if left:
                    time.sleep(0.1)  # an `is_locked` may hold it in passing
                    continue
                handle.close()
                raise InputError(
                    f"Another training is at work in {self}; wait for it, or name another folder."
                ) from None
        return handle

    @property
    def is_locked(self) -> bool:
        """Whether a process trains here now."""
        try:
            with open(self._lock_file) as handle:
                hold(handle, shared=True)
        except BlockingIOError:
            return True
        except OSError:  # no such file, or not ours to read
            return False
        return False

    def write_start(self, config: Config, items: Items, fingerprints: dict[str, str], **more: Any) -> None:
        """Writes what does not change during training; config.yaml last, as the sign that the rest is there.

        Args:
            config: Resolved by the items.
            items: The item table, and what deriving it gave.
            fingerprints: Of the data, by the names of their settings in `data`.
            more: Joins metadata.json.
        """
        arrays = {f"{_FEATURE}{name}": values for name, values in items.table.items()}
        for name, codebook in items.codebooks.items():
            arrays |= {f"{_FITTED}{name}/{part}": values for part, values in codebook.items()}
        with replacing(self.items_file) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **arrays)
        codebooks = {
            name: {part: values.tolist() for part, values in codebook.items() if values.ndim == 1}
            for name, codebook in items.codebooks.items()
        }
        metadata = _metadata(config, fingerprints | {"items": fingerprint(arrays)})
        metadata |= {"codebooks": codebooks} | more
        write_atomically(self.metadata_file, json.dumps(metadata, indent=1) + "\n")
        self.write_config(config)

    def write_config(self, config: Config) -> None:
        """Replaces the configuration: a resumption may change some of it (`Marker.FREE_ON_RESUME`)."""
        write_atomically(self.config_file, to_yaml(config))

    def checkpoints(self, writable: bool = False) -> Checkpoints:
        """Its checkpoints. writable: for training. Raises: InputError if they cannot be read."""
        return Checkpoints(self.checkpoint_folder, self.damaged_folder, writable)

    def recorder(self, config: Config) -> Recorder:
        """What a training with this configuration appends its records with."""
        run = TrackedRun(self.path, config.model_dump(mode="json"))
        return Recorder(self.records_file, self.curves_file, trackers(config.train.trackers, run))

    def write_summary(self, summary: Summary) -> None:
        """Replaces the summary, whole or not at all."""
        write_atomically(self.summary_file, json.dumps(summary.to_json(), indent=1) + "\n")

    # Reading

    def read_config(self) -> Config:
        """The resolved configuration. Raises: InputError if this is no run directory, or the file is damaged."""
        if not self.is_started:
            raise InputError(f"{self} is not a run directory (it has no config.yaml); give what mmctr train wrote.")
        config = load_config(self.config_file)
        if config.features.num_items is None:
            raise InputError(f"{self.config_file} is not as training wrote it: features.num_items is null.")
        return config

    def read_metadata(self) -> dict[str, Any]:
        """Versions, devices and fingerprints. Raises: InputError if the file is missing or damaged."""
        try:
            metadata = json.loads(self.metadata_file.read_text())
            if isinstance(metadata["data"], dict):
                return metadata
        except (OSError, ValueError, KeyError, TypeError):
            pass
        raise InputError(f"{self.metadata_file} is missing or damaged; the run cannot be used.")

    def read_items(self) -> ItemTable:
        """The item table that the run was trained with. Raises: InputError if it is not that any more."""
        return self._read_arrays(_FEATURE)

    def read_codebooks(self) -> dict[str, Fitted]:
        """What new items need of each derived feature, as `Items.codebooks`. Raises: InputError likewise."""
        codebooks: dict[str, Fitted] = {name: {"centroids": x} for name, x in self._read_arrays(_CENTROIDS).items()}
        for path, values in self._read_arrays(_FITTED).items():
            name, _, part = path.rpartition("/")
            codebooks.setdefault(name, {})[part] = values
        return codebooks

    def _read_arrays(self, prefix: str) -> dict[str, np.ndarray]:
        expected = self.read_metadata()["data"].get("items")
        try:
            arrays = mapped_npz(self.items_file)
            whole = jax.process_index() != 0 or fingerprint(arrays) == expected  # one reads all of it, for all
        except Exception:  # zip and numpy raise many kinds
            whole = False
        if not whole:
            raise InputError(f"{self.items_file} is missing or damaged; the run cannot be used.")
        return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}

    def read_records(self) -> list[dict[str, Any]]:
        """The records of training, up to the first that is cut short, as by a kill. Empty if there are none."""
        return read_records(self.records_file)

    def read_summary(self) -> Summary | None:
        """How training ended when it last did; None where it never did, or the file is damaged."""
        try:
            return Summary.from_json(json.loads(self.summary_file.read_text()))
        except (OSError, ValueError, TypeError, KeyError):
            return None


def _metadata(config: Config, fingerprints: dict[str, str]) -> dict[str, Any]:
    devices = jax.devices()
    return {
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "devices": {"count": len(devices), "kind": devices[0].device_kind, "processes": jax.process_count()},
        "seed": config.train.seed,
        "data": fingerprints,
        "git": _git_revision(),
    }


def _git_revision() -> str | None:
    """Of the code that runs; None where it is not a git checkout."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
