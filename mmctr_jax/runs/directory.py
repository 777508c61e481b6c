"""The run directory: what a training leaves behind, and all that predicting needs besides the data.

config.yaml     resolved configuration          metrics.jsonl   a line per log interval and per validation
metadata.json   versions, devices, fingerprints curves.png      loss, AUC and learning rate over steps
items.npz       the item table                  tensorboard/    the same as metrics.jsonl, as events
checkpoints/    best and last                   train.log       what the terminal showed
summary.json    the result, whenever training stops
calibration.json, predictions.parquet           what predict.py adds
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import platform
import subprocess
import time
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

from mmctr_jax.config.schema import Config, first_difference, load_config, to_yaml
from mmctr_jax.data.items import Items, ItemTable, fingerprint
from mmctr_jax.errors import InputError
from mmctr_jax.files import replacing, write_atomically

CHECKPOINTS = "checkpoints"
_TRIES = 3  # at the lock
_FEATURE, _CENTROIDS = "feature/", "centroids/"  # in items.npz
# What may change between a run and its resumption without changing the model that was being trained.
_MAY_CHANGE = (
    *("data.train", "data.valid", "data.item_info"),  # moved: their contents are compared
    *("data.test", "data.test_labels", "data.cache_dir"),
    *("train.epochs", "train.patience", "train.checkpoint_every", "train.eval_batch_size"),
)
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pyarrow", "scikit-learn")


def check_free(run_dir: Path, resume: bool) -> None:
    """Raises InputError where a training would overwrite something that is not its own."""
    if run_dir.exists() and not run_dir.is_dir():
        raise InputError(f"Run directory {run_dir} is a file; name another with --run-dir.")
    used = run_dir.is_dir() and any(run_dir.iterdir())
    if used and not resume:
        raise InputError(
            f"Run directory {run_dir} exists; add --resume to go on with it, or name another with --run-dir."
        )
    # A .lock without a config.yaml is a run that was killed before it had written its configuration.
    if used and not is_started(run_dir) and not (run_dir / ".lock").exists():
        raise InputError(f"{run_dir} is not a run directory (it has no config.yaml); name another with --run-dir.")


def is_started(run_dir: Path) -> bool:
    return (run_dir / "config.yaml").is_file()


def read_config(run_dir: Path) -> Config:
    if not is_started(run_dir):
        raise InputError(f"{run_dir} is not a run directory (it has no config.yaml); give what train.py wrote.")
    config = load_config(run_dir / "config.yaml")
    if config.features.num_items is None:
        raise InputError(f"{run_dir / 'config.yaml'} is not as training wrote it: features.num_items is null.")
    return config


def check_same_run(run_dir: Path, config: Config, fingerprints: dict[str, str], lengths: tuple[int, ...]) -> None:
    """Raises InputError if the run was begun with another configuration, on other data or with other batches.

    lengths: those of padded histories.
    """
    difference = first_difference(read_config(run_dir), config, ignore=_MAY_CHANGE)
    if difference:
        raise InputError(
            f"{run_dir} was begun with another config ({difference}, run ≠ now); "
            "resume with the same one, or name another --run-dir."
        )
    metadata = read_metadata(run_dir)
    if metadata.get("converted"):
        raise InputError(f"{run_dir} holds converted weights, no training to go on with; name another --run-dir.")
    for name, now in fingerprints.items():
        if metadata["data"].get(name) != now:
            raise InputError(
                f"{run_dir} was begun on other data: data.{name} has changed since; "
                "bring the old files back, or name another --run-dir."
            )
    begun = metadata.get("training_lengths")
    if begun != list(lengths):
        raise InputError(
            f"{run_dir} was begun by another version, with batches of other lengths ({begun or 'one only'}; now "
            f"{list(lengths)}), in another order; name another --run-dir."
        )


def lock(run_dir: Path) -> IO:
    """Makes this process the only one that trains in `run_dir` for as long as the returned file is open.

    Raises: InputError if another process holds it, or the directory cannot be written.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        handle = open(run_dir / ".lock", "w")
    except OSError as error:
        raise InputError(f"Run directory {run_dir} cannot be written: {error.strerror}.") from None
    for left in reversed(range(_TRIES)):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            if left:
                time.sleep(0.1)  # it may have been `is_locked`, in passing
                continue
            handle.close()
            raise InputError(
                f"Another training is at work in {run_dir}; wait for it, or name another --run-dir."
            ) from None
    return handle


def is_locked(run_dir: Path) -> bool:
    """Whether a process trains in `run_dir` now."""
    try:
        with open(run_dir / ".lock") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file, or not ours to read
        return False
    return False


def start(run_dir: Path, items: Items, fingerprints: dict[str, str], **more: Any) -> None:
    """Writes what does not change during training; config.yaml last, as the sign that the rest is there.

    `more` joins metadata.json.
    """
    arrays = {f"{_FEATURE}{name}": values for name, values in items.table.items()}
    arrays |= {f"{_CENTROIDS}{name}": codebook["centroids"] for name, codebook in items.codebooks.items()}
    with replacing(run_dir / "items.npz") as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **arrays)
    codebooks = {
        name: {key: codebook[key].tolist() for key in ("used", "error")} for name, codebook in items.codebooks.items()
    }
    metadata = _metadata(items.config, fingerprints | {"items": fingerprint(arrays)}) | {"codebooks": codebooks} | more
    write_atomically(run_dir / "metadata.json", json.dumps(metadata, indent=1) + "\n")
    write_atomically(run_dir / "config.yaml", to_yaml(items.config))


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
    """Of the code that runs; null where it is not a git checkout."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def go_on(run_dir: Path, config: Config) -> None:
    """Takes over what may change when a run is resumed."""
    write_atomically(run_dir / "config.yaml", to_yaml(config))


def read_metadata(run_dir: Path) -> dict[str, Any]:
    try:
        metadata = json.loads((run_dir / "metadata.json").read_text())
        dict(metadata["data"])
        return metadata
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{run_dir / 'metadata.json'} is missing or damaged; the run cannot be used.") from None


def read_items(run_dir: Path) -> ItemTable:
    """The item table that the run was trained with. Raises InputError if it is not that any more."""
    return _part(_read_arrays(run_dir), _FEATURE)


def read_centroids(run_dir: Path) -> dict[str, np.ndarray]:
    """Of each codes feature: (levels, size, dim) float32. Raises InputError likewise."""
    return _part(_read_arrays(run_dir), _CENTROIDS)


def _part(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}


def _read_arrays(run_dir: Path) -> dict[str, np.ndarray]:
    expected = read_metadata(run_dir)["data"].get("items")
    try:
        with np.load(run_dir / "items.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        whole = fingerprint(arrays) == expected
    except Exception:  # zip and numpy raise many kinds
        whole = False
    if not whole:
        raise InputError(f"{run_dir / 'items.npz'} is missing or damaged; the run cannot be used.")
    return arrays
