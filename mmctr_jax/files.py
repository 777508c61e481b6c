"""Files that are the old ones or the new ones, never half of either; and what the system refuses, in one sentence."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

from mmctr_jax.errors import InputError, NoRoomError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def expanded(path: str | Path) -> Path:
    """With the home folder for ~/, and variables of the environment for $NAME."""
    text = str(path)
    return Path(os.path.expandvars(os.path.expanduser(text) if text.startswith("~/") else text))


def sha256(file: Path) -> hashlib._Hash:
    """Of the file's bytes. Raises InputError if it cannot be read."""
    try:
        with open(file, "rb") as stream:
            return hashlib.file_digest(stream, "sha256")
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from None


@contextmanager
def writing(what: str | Path, advice: str) -> Iterator[None]:
    """What the system refuses in here becomes an InputError: `what` cannot be written, why, and `advice`; a
    NoRoomError where there is no room."""
    try:
        yield
    except OSError as error:
        kind = NoRoomError if error.errno in _FULL else InputError
        raise kind(f"{what} cannot be written: {error.strerror or error}; {advice}.") from None


def hold(file: int | IO, shared: bool = False) -> None:
    """Holds an open file or folder until it is closed; `shared` with others that do so.

    Raises: OSError (BlockingIOError) if another process holds it; InputError on a system that has no such locks.
    """
    try:
        import fcntl
    except ImportError:
        raise InputError("This system has no file locks; run on Linux or macOS, or on Windows under WSL.") from None
    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`: what is written there takes its place when the block ends well, else is gone."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: str | bytes) -> None:
    """Writes a file that is whole at any moment: the old one, then the new one. Raises: OSError."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def writing_cache(folder: str | Path, setting: str) -> AbstractContextManager[None]:
    """What the system refuses in here becomes an InputError that names `folder` and the `setting` to change."""
    return writing(f"Cache folder {folder}", f"make room there, or name another in {setting}")
