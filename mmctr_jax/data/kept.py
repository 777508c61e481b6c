"""Arrays kept in a cache folder, memory-mapped: built once, whole or not there at all.

Each set of arrays is one folder, named after what it was made of, so that a changed file or config never meets stale
arrays. It is built beside its final name and renamed when whole: what carries the final name is complete.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from mmctr_jax.files import hold, writing_cache

_AT_ONCE = 2**20  # bytes


def filled_with_zeros(folder: Path, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """An array of `Kept`, mapped to be written to in any order.

    Raises: OSError where there is no room: later, a write to a map would end the process.
    """
    size = dtype.itemsize * math.prod(shape)
    with open(_file(folder, name), "wb") as stream:
        for at in range(0, size, _AT_ONCE):
            stream.write(bytes(min(_AT_ONCE, size - at)))
    return np.memmap(_file(folder, name), dtype, "r+", shape=shape)


def zeros_for_now(shape: tuple[int, ...], dtype: type | np.dtype = np.float32) -> np.ndarray:
    """An array in a file without a name: the vectors of very many items need not fit into memory.

    Raises: InputError where there is no room.
    """
    with writing_cache(tempfile.gettempdir(), "TMPDIR"), tempfile.TemporaryDirectory(prefix="mmctr_") as folder:
        return filled_with_zeros(Path(folder), "zeros", np.dtype(dtype), shape)


@dataclass(frozen=True)
class Kept:
    """A folder of arrays: each NAME.bin, and meta.json, which says what they are."""

    folder: Path
    meta: dict[str, Any]  # "arrays": name → [dtype, shape], and what `build` said besides

    def array(self, name: str) -> np.ndarray | None:
        """A read-only map; None where there is no such array."""
        if name not in self.meta["arrays"]:
            return None
        dtype, shape = self.meta["arrays"][name]
        if 0 in shape:  # nothing to map
            return np.zeros(shape, dtype)
        return np.asarray(np.memmap(_file(self.folder, name), dtype, "r", shape=tuple(shape)))


def find(cache_dir: str | Path, name: str) -> Kept | None:
    """What is kept under this name, if every array is there in full length."""
    folder = Path(cache_dir) / name
    try:
        meta = json.loads((folder / "meta.json").read_text())
        whole = all(
            _file(folder, array).stat().st_size == np.dtype(dtype).itemsize * int(np.prod(shape))
            for array, (dtype, shape) in meta["arrays"].items()
        )
    except (OSError, ValueError, KeyError):
        return None
    return Kept(folder, meta) if whole else None


def built(cache_dir: str | Path, name: str, build: Callable[[Path], dict[str, Any]]) -> Kept:
    """What is kept under this name, or what `build` writes into the folder it is given. It returns `Kept.meta`.

    Raises: InputError if the folder cannot be written.
    """
    kept = find(cache_dir, name)
    if kept is None:
        with writing_cache(cache_dir, "data.cache_dir"):
            Path(cache_dir).mkdir(parents=True, exist_ok=True)
            with _temporary(Path(cache_dir)) as temporary:
                meta = build(temporary)
                (temporary / "meta.json").write_text(json.dumps(meta))
                _put_in_place(temporary, Path(cache_dir), name)
                kept = Kept(Path(cache_dir) / name, meta)
    return kept


@contextmanager
def built_for_now(build: Callable[[Path], dict[str, Any]]) -> Iterator[Kept]:
    """The same in a folder that is gone at the end; maps outlive their files' names. Raises InputError."""
    with writing_cache(tempfile.gettempdir(), "TMPDIR"), tempfile.TemporaryDirectory(prefix="mmctr_") as temporary:
        yield Kept(Path(temporary), build(Path(temporary)))


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.bin"


_BUILDING = ".building_"


@contextmanager
def _temporary(cache_dir: Path) -> Iterator[Path]:
    """A folder to build in, held by a lock. Others, whose builders were killed and hold them no longer, are removed."""
    for folder in cache_dir.glob(f"{_BUILDING}*"):
        with suppress(OSError), _held(folder):
            if time.time() - folder.stat().st_mtime > 60:  # a younger one may be about to be held
                shutil.rmtree(folder)
    temporary = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=cache_dir))
    with _held(temporary):
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Raises OSError if another process holds it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        hold(handle)
        yield
    finally:
        os.close(handle)


def _put_in_place(temporary: Path, cache_dir: Path, name: str) -> None:
    folder = cache_dir / name
    if folder.exists() and find(cache_dir, name) is None:  # damaged
        shutil.rmtree(folder)
    try:
        os.replace(temporary, folder)
    except OSError:
        if find(cache_dir, name) is None:  # not just another process that was faster
            raise


def mapped_npz(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that `np.savez` wrote, as read-only maps. Raises: errors of many kinds, if it is damaged."""
    with zipfile.ZipFile(file) as archive, open(file, "rb") as stream:
        return {entry.filename.removesuffix(".npy"): _mapped(file, stream, entry) for entry in archive.infolist()}


def _mapped(file: Path, stream: IO[bytes], entry: zipfile.ZipInfo) -> np.ndarray:
    """An entry's bytes stand in the file as they are, behind a header of its own and then the array's."""
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{entry.filename} is compressed")
    stream.seek(entry.header_offset + 26)  # of a local file header, where its 30 bytes end with two lengths
    stream.seek(sum(struct.unpack("<2H", stream.read(4))), os.SEEK_CUR)
    shape, column_order, dtype = _HEADERS[np.lib.format.read_magic(stream)](stream)
    if 0 in shape:  # nothing to map
        return np.zeros(shape, dtype)
    order = "F" if column_order else "C"
    return np.asarray(np.memmap(file, dtype, "r", stream.tell(), shape, order))


_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
