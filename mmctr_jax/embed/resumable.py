"""An encoding of hours, kept on disk while it is made: a float32 array, and a small JSON that says how much is done.

They are DIR/.embed/DIGEST/vectors.f32 and progress.json, with a digest of everything that the vectors depend on. The
number of rows done is written after the rows themselves, so that a process killed at any moment continues from the
last whole chunk, and what is finished is never encoded again. The folder .embed is safe to delete.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mmctr_jax.console import Progress, log
from mmctr_jax.files import write_atomically, writing

_CHUNK_BATCHES = 16  # between two saves: more would cost less to save, fewer would be less to lose


def encode_resumably(
    folder: Path, items: int, order: np.ndarray, batch_size: int, encode: Callable[[np.ndarray], np.ndarray], what: str
) -> np.ndarray:
    """Encodes the rows that are not done yet.

    Args:
      folder: of this encoding alone, named after a digest of everything that it depends on.
      items: number of rows of the result.
      order: (n,) the rows to encode, in the order of encoding, which is the same at every call with this folder.
      encode: (batch,) rows → (batch, width) float32.
      what: is encoded, for messages ("titles").
    Returns: (items, width) float32, memory-mapped; zeros for rows that are not in `order`.
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
    """Width and rows done; zeros where there is nothing to continue from."""
    try:
        progress = json.loads((folder / "progress.json").read_text())
        width, done = int(progress["width"]), int(progress["done"])
        return (width, done) if (folder / "vectors.f32").stat().st_size == items * width * 4 else (0, 0)
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0


def _create(folder: Path, items: int, width: int) -> None:
    """Writes an array of zeros. All of them: in a file with holes, a full disk would crash the process later on."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "progress.json").unlink(missing_ok=True)
    row = bytes(4 * width)
    with open(folder / "vectors.f32", "wb", buffering=1 << 20) as stream:
        for _ in range(items):
            stream.write(row)


def _write_progress(folder: Path, width: int, done: int) -> None:
    write_atomically(folder / "progress.json", json.dumps({"width": width, "done": done}) + "\n")
