"""A run directory by URL: trained in a folder here, copied there as it grows, and read from a copy.

`files.json` at the URL lists the files of one moment, and whose training they are of. It is written after them, and
before those that it no longer names are deleted: whoever reads what it names finds whole checkpoints, wherever the
writer was killed.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import jax

from mmctr_jax.console import Progress, log
from mmctr_jax.errors import InputError, TrainingError
from mmctr_jax.files import hold, replacing, write_atomically, writing
from mmctr_jax.remote import (
    cache_folder,
    delete_file,
    exists,
    fetch,
    is_elsewhere,
    local,
    names_below,
    read_bytes,
    remove,
    shown,
    writing_file,
)
from mmctr_jax.runs.directory import RunDirectory

_LIST, _OWN = "files.json", ".mirror"  # at the URL; here: whose training it is
_SOON, _EVERY = 1, 30  # seconds: to the first copying, and between two
_TRIES = 5  # to copy a run that changes meanwhile
_TEMPORARY = "orbax-checkpoint-tmp"  # in the name of a checkpoint that is not whole yet
_AT_ONCE = 2**22  # bytes
Files = dict[str, list[int]]
"""Name → size in bytes, time of change in nanoseconds."""


def is_run(directory: Path) -> bool:
    """Whether a folder, or what is at a URL, is a run directory. Raises: InputError if it cannot be looked at."""
    if not is_elsewhere(directory):
        return RunDirectory(local(directory)).is_started
    return exists(directory / _LIST) or exists(RunDirectory(directory).config_file)


def copied(directory: str | Path) -> Path:
    """The run directory; for a URL, that of a copy here, as the run was at one moment. A run that somebody copied to
    the URL by hand has no list, and is copied as it is.

    Raises: InputError if there is no run at the URL, or it cannot be read.
    """
    if not is_elsewhere(directory):
        return local(directory)
    url, folder = Path(directory), _folder(directory, "remote")
    listed = _listed(url)
    if listed is None and not is_run(url):
        raise InputError(f"{shown(directory)} is not a run directory (it has no {_LIST}); give what mmctr train wrote.")
    with _held(folder, wait=True):
        if listed is None:
            return local(url)
        with _writing(folder, url):
            _copy_here(url, listed, folder)
    return folder


@contextmanager
def copied_on(directory: str | Path, resume: bool) -> Iterator[Path]:
    """Where to train what is to be at `directory`: there, or for a URL in a folder here, which is copied to the URL
    while the block runs and at its end, and then removed.

    Raises:
        InputError: There is a run at the URL and it is not to be resumed, or it cannot be read.
        TrainingError: The URL could not be written at the end; the folder stays.
    """
    if not is_elsewhere(directory):
        yield local(directory)
        return
    url, name, folder = Path(directory), shown(directory), _folder(directory, "runs")
    if jax.process_count() > 1:
        raise InputError(f"--run-dir {name}: several processes need a folder that all of them see; name one.")
    with _held(folder):
        mirror = _begun(url, name, folder, resume)
        try:
            yield folder
        except BaseException:
            if problem := mirror.end(well=False):
                log.warning(f"{problem} What there is of the run is in {folder}.")
            raise
        if problem := mirror.end(well=True):
            raise TrainingError(
                f"{problem} The run is whole in {folder}: copy it from there, or go on with it by --run-dir {folder} "
                "--resume."
            )
        (folder / _OWN).unlink(missing_ok=True)  # first: without it, what is left here is nobody's
        shutil.rmtree(folder, ignore_errors=True)


def _begun(url: Path, name: str, folder: Path, resume: bool) -> _Mirror:
    """Makes the folder what the run at the URL is, where it is not ahead of that. Raises: InputError."""
    listed, here = _listed(url), RunDirectory(folder).is_started
    if not resume and (listed or exists(url)):
        raise InputError(f"Run directory {name} exists; add --resume to go on with it, or name another with --run-dir.")
    if listed is None and exists(url):
        raise InputError(f"{name} is not a run directory (it has no {_LIST}); name another with --run-dir.")
    if not resume and here:
        raise InputError(
            f"{folder} holds a training of {name} that did not get there; add --resume to go on with it, or remove "
            "that folder."
        )
    own = None
    with suppress(OSError):
        own = (folder / _OWN).read_text()
    with _writing(folder, url):
        if listed and own != listed["writer"]:
            if here:
                aside = folder.with_name(f"{folder.name}-{time.time_ns()}")
                folder.rename(aside)
                log.warning(f"{name} was gone on with elsewhere; what was not copied there of here is in {aside}.")
            _copy_here(url, listed, folder)
            own = None
        folder.mkdir(parents=True, exist_ok=True)
    return _Mirror(url, folder, own or uuid.uuid4().hex, listed["writer"] if listed else None)


class _Mirror:
    """Copies a folder to a URL from time to time, in a thread of its own, from when a training has begun there."""

    def __init__(self, url: Path, folder: Path, own: str, last: str | None):
        """Begins. own: names this training; last: the one that is named at the URL."""
        self._url, self._folder, self._name = url, folder, shown(url)
        self._own, self._known = own, (last, own)
        self._claimed = self._well = False
        self._problem: str | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def end(self, well: bool) -> str | None:
        """Copies what there is now; of a training that failed, if it had begun. Returns: what went wrong."""
        self._well = well
        self._over.set()
        self._thread.join()
        return self._problem

    def _work(self) -> None:
        said = None
        while not self._over.wait(_EVERY if self._claimed else _SOON):
            if self._claimed or RunDirectory(self._folder).is_locked:  # nothing is wrong with config and data
                self._try()
                if self._problem and self._problem != said:
                    log.warning(f"{self._problem} Training goes on, and it is tried again.")
                said = self._problem
        if self._claimed or self._well:
            self._try()

    def _try(self) -> None:
        self._problem = None
        try:
            self.copy()
        except InputError as error:
            self._problem = str(error)
        except OSError as error:  # of the store's library, at length
            reason = (str(error).splitlines() or [type(error).__name__])[0][:300].rstrip(".")
            self._problem = f"{self._name} cannot be written: {reason}."

    def copy(self) -> None:
        """Makes what is at the URL what is in the folder now. Raises: InputError, OSError."""
        listed, there = self._listed_by_this(), names_below(self._url)
        if not self._claimed:  # whoever wrote there, and may yet be at work, is told at its next copying
            self._list(listed)
            self._claimed = True
        with self._moment(bool(_of_checkpoints(listed))) as (files, folder):
            if RunDirectory(self._folder).config_file.name not in files:
                return
            for name, state in files.items():
                if name not in there or listed.get(name) != state:
                    self._listed_by_this()
                    with (folder / name).open("rb") as read, writing_file(self._url / name) as written:
                        left = state[0]  # what has grown since, as records do, is of a later moment
                        while chunk := read.read(min(left, _AT_ONCE)):
                            written.write(chunk)
                            left -= len(chunk)
        self._listed_by_this()
        self._list(files)
        gone = (there & (listed.keys() | _of_checkpoints(there))) - files.keys()
        for name in gone:
            delete_file(self._url / name)
        for folder in sorted(_folders(gone) - _folders(files)):
            remove(self._url / folder)

    def _list(self, files: Files) -> None:
        with writing_file(self._url / _LIST) as written:
            written.write(json.dumps({"writer": self._own, "files": files}).encode())
        write_atomically(self._folder / _OWN, self._own)

    def _listed_by_this(self) -> Files:
        """The files that are listed at the URL. Raises: InputError if another training has listed its own."""
        listed = _listed(self._url)
        writer = listed["writer"] if listed else None
        if writer not in (self._known if not self._claimed else (self._own,)):
            raise InputError(f"Another training writes to {self._name} now, or somebody has removed what was there.")
        return listed["files"] if listed else {}

    @contextmanager
    def _moment(self, had_one: bool) -> Iterator[tuple[Files, Path]]:
        """The files of one moment, and a folder that keeps them while the training goes on and deletes some.

        had_one: whether there was a checkpoint at the last one: then there is one now.
        """
        kept = self._folder / ".moment"
        try:
            for _ in range(_TRIES):
                shutil.rmtree(kept, ignore_errors=True)
                files = self._files()
                with suppress(FileNotFoundError):  # deleted meanwhile
                    for name in files:
                        (kept / name).parent.mkdir(parents=True, exist_ok=True)
                        os.link(self._folder / name, kept / name)
                        files[name] = _state(kept / name)
                    # A walk sees none where the one that it was about to look at has just been replaced.
                    whole = any(path.name.isdigit() for path in RunDirectory(self._folder).checkpoint_folder.glob("*"))
                    found = _of_checkpoints(files)
                    if found == _of_checkpoints(self._files()) and (found or not (had_one or whole)):
                        break
            else:
                raise InputError(f"Checkpoints follow each other too fast to be copied to {self._name}.")
            yield files, kept
        finally:
            shutil.rmtree(kept, ignore_errors=True)

    def _files(self) -> Files:
        """All files but hidden ones and those of checkpoints that are not whole."""
        found = {}
        for place, folders, names in os.walk(self._folder):
            folders[:] = [name for name in folders if not name.startswith(".") and _TEMPORARY not in name]
            for name in names:
                file = Path(place, name)
                with suppress(FileNotFoundError):  # deleted meanwhile
                    if not name.startswith("."):
                        found[file.relative_to(self._folder).as_posix()] = _state(file)
        return found


def _folder(url: str | Path, kind: str) -> Path:
    """The folder here of what is at a URL. Raises: InputError if it could be any folder."""
    if ".." in PurePosixPath(shown(url)).parts or "?" in str(url):
        raise InputError(f"{shown(url)}: a run's URL has neither '..' nor '?'; name the place itself.")
    return cache_folder().parent / kind / PurePosixPath(shown(url).replace("://", "/", 1))


@contextmanager
def _held(folder: Path, wait: bool = False) -> Iterator[None]:
    """Makes this process the only one that uses a folder here. Raises: InputError if another one does."""
    file = folder.with_name(f".{folder.name}.lock")
    with writing(f"Folder {folder.parent}", "make it writable, or set XDG_CACHE_HOME"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        handle = file.open("w")
    with handle:
        while True:
            try:
                hold(handle)
                break
            except OSError:
                if not wait:
                    raise InputError(f"Another training is at work in {folder}; wait for it.") from None
                time.sleep(0.1)
        yield


def _folders(names: Iterable[str]) -> set[PurePosixPath]:
    """Those that the files are in, at any depth."""
    return {folder for name in names for folder in PurePosixPath(name).parents}


def _of_checkpoints(names: Iterable[str]) -> set[str]:
    folder = RunDirectory(Path()).checkpoint_folder.name
    return {name for name in names if name.startswith(f"{folder}/")}


def _listed(url: Path) -> dict[str, Any] | None:
    """What `files.json` says; None where there is none. Raises: InputError if it cannot be read."""
    if not exists(url / _LIST):
        return None
    try:
        found = json.loads(read_bytes(url / _LIST))
        names = [PurePosixPath(name) for name in found["files"]]
        if not isinstance(found["writer"], str) or any(name.is_absolute() or ".." in name.parts for name in names):
            raise ValueError
        if not all(len(state) == 2 and all(isinstance(x, int) for x in state) for state in found["files"].values()):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{shown(url)}/{_LIST} is damaged; the run cannot be used.") from None
    return found


def _writing(folder: Path, url: Path) -> AbstractContextManager[None]:
    return writing(f"{folder}, where files of {shown(url)} are copied to", "make room there, or set XDG_CACHE_HOME")


def _copy_here(url: Path, listed: dict[str, Any], folder: Path) -> None:
    """Makes the folder what the list says, or the one that has taken its place meanwhile. Raises: InputError."""
    for left in reversed(range(_TRIES)):
        try:
            _copy_listed(url, listed["files"], folder)
            return
        except InputError:
            now = _listed(url)
            if now == listed or now is None or not left:
                raise
            listed = now


def _copy_listed(url: Path, files: Files, folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):  # files before the folders that they are in
        if path.is_dir():
            with suppress(OSError):  # not empty
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in files:
            path.unlink()
    changed = {name: state for name, state in files.items() if not _is_copy(folder / name, state)}
    with Progress(f"Copying {shown(url)}", sum(size for size, _ in changed.values()), "bytes") as progress:
        for name, (_, changed_at) in changed.items():
            copy = folder / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            with replacing(copy) as temporary:
                fetch(url / name, temporary, progress.advance)
                os.utime(temporary, ns=(changed_at, changed_at))


def _state(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns]


def _is_copy(file: Path, state: list[int]) -> bool:
    return file.is_file() and _state(file) == state
