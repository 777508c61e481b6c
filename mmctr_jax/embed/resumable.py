"""Hours of encoding, kept: a raw float32 array on disk and a small JSON that says how far it is filled.

DIR/.embed/DIGEST/vectors.f32 and progress.json, DIGEST standing for everything that goes into the encoder. The count
of rows done is written after the rows themselves, so that a process killed anywhere goes on from a whole chunk, and
what is finished is never encoded again. The folder .embed is safe to delete.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mmctr_jax.console import Progress, log
from mmctr_jax.files import write_atomically, writing

_CHUNK_BATCHES = 16  # between two saves: many batches cost little to save, few are little to lose


def encode_resumably(
    folder: Path, items: int, order: np.ndarray, batch_size: int, encode: Callable[[np.ndarray], np.ndarray], what: str
) -> np.ndarray:
    """(items, width) float32, memory-mapped: encode(rows) for every row of `order`, zeros elsewhere.

    Args:
      folder: of this encoding alone, named after a digest of all that it depends on.
      order: (n,) rows in the order of encoding, the same at every call with this folder.
      encode: (batch,) rows → (batch, width) float32.
    Raises: InputError if the folder cannot be written.
    """
    with writing(folder, "make room there, or delete it"):
        width, done = _read_progress(folder, items)
        if done:
            log.info(f"{what.capitalize()}: {done:,} of {len(order):,} are encoded already ({folder}).")
        with Progress(f"Encoding {what}", len(order), what, done) as progress:
            for start in range(done, len(order), _CHUNK_BATCHES * batch_size):
                chunk = order[start : start + _CHUNK_BATCHES * batch_size]
                vectors = []
                for first in range(0, len(chunk), batch_size):
                    vectors.append(encode(chunk[first : first + batch_size]))
                    progress.advance(len(vectors[-1]))
                vectors = np.concatenate(vectors)
                if not width:
                    width = vectors.shape[1]
                    _create(folder, items, width)
                stored = np.memmap(folder / "vectors.f32", np.float32, "r+", shape=(items, width))
                stored[chunk] = vectors
                stored.flush()
                _write_progress(folder, width, start + len(chunk))
        return np.memmap(folder / "vectors.f32", np.float32, "r", shape=(items, width))


def _read_progress(folder: Path, items: int) -> tuple[int, int]:
    """Width and rows done; zeros where there is nothing to go on with."""
    try:
        progress = json.loads((folder / "progress.json").read_text())
        width, done = int(progress["width"]), int(progress["done"])
        return (width, done) if (folder / "vectors.f32").stat().st_size == items * width * 4 else (0, 0)
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0


def _create(folder: Path, items: int, width: int) -> None:
    """Writes the zeros out: in a file with holes, a full disk would show as a crash in the middle."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "progress.json").unlink(missing_ok=True)
    row = bytes(4 * width)
    with open(folder / "vectors.f32", "wb", buffering=1 << 20) as stream:
        for _ in range(items):
            stream.write(row)


def _write_progress(folder: Path, width: int, done: int) -> None:
    write_atomically(folder / "progress.json", json.dumps({"width": width, "done": done}) + "\n")
