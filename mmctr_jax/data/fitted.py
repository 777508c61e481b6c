"""Derived item features, fitted once and kept in the cache folder.

Each is a file named after the vectors' digest and the settings. A run keeps what it was trained with in its item table.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np

from mmctr_jax.console import log
from mmctr_jax.features import Feature
from mmctr_jax.features.base import Fitted
from mmctr_jax.files import writing_cache

_FORMAT = 3


def fitted(feature: Feature, vectors: np.ndarray, digest: str, cache_dir: str | Path) -> Fitted:
    """`feature.fit(vectors)`, or what is kept of it: then the vectors are not read.

    digest: of the vectors. Raises: InputError, also if the folder cannot be written.
    """
    fingerprint = hashlib.sha256(f"{_FORMAT} {feature.model_dump_json()} {digest}".encode())
    file = Path(cache_dir) / f"{feature.kind}-{fingerprint.hexdigest()[:24]}.npz"
    arrays = _read(file)
    if arrays is None:
        log.info(f"Fitting {feature.describe()} to {len(vectors):,} vectors.")
        arrays = feature.fit(vectors)
        _write(file, arrays)
    if quality := feature.quality(arrays):
        log.info(quality)
    return arrays


def _read(file: Path) -> Fitted | None:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception:  # absent or damaged, of many kinds
        return None


def _write(file: Path, arrays: Fitted) -> None:
    with writing_cache(file.parent, "data.cache_dir"):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{file.name}", dir=file.parent)
        try:
            with open(handle, "wb") as stream:
                np.savez(stream, **arrays)
            os.replace(temporary, file)
        finally:
            Path(temporary).unlink(missing_ok=True)
