"""Files by URL: copied to this machine and read there; or, where many machines work, read and written in place.

Whatever reads files asks `local` for their path, so that a URL may stand wherever a path may, and all checks of files
are those of the copies. Credentials are those of the environment (AWS_ACCESS_KEY_ID …, as the store's own tools know).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

from mmctr_jax.console import Progress
from mmctr_jax.errors import InputError
from mmctr_jax.files import expanded, replacing, writing

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileInfo, FileSystem

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)  # a Path has one slash where a URL has two
_STORES = ("s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss")
_WITHOUT_FOLDERS = ("s3", "gs", "gcs")  # where a file's name may have slashes, and folders are nothing
_AT_ONCE = 2**22  # bytes
_PATIENCE = 10  # seconds, with a store that does not answer


def is_remote(path: str | Path) -> bool:
    """Whether it is a URL."""
    return _URL.fullmatch(str(path)) is not None


def is_elsewhere(path: str | Path) -> bool:
    """Whether it is a URL of another place than this machine's files."""
    return is_remote(path) and not str(path).lower().startswith("file:")


def place_here(path: str) -> Path:
    """A place to write at, of a command that writes on this machine alone. Raises: InputError if it is a URL."""
    if is_remote(path):
        raise InputError(f"{shown(path)} is a URL, and this is written to this machine alone; name a place here.")
    return expanded(path)


def cache_folder() -> Path:
    """Where copies go, by their URL; safe to delete at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmctr_jax" / "remote"


def local(path: str | Path) -> Path:
    """The path; for a URL that of a copy here, of a file or of a whole folder, which is as the original is now.

    A copy is kept, and made again where the original's size or time differs.

    Raises: InputError if there is nothing at the URL, if it cannot be read, or if it holds credentials.
    """
    place = _place(path)
    if isinstance(place, Path):
        return place
    with place.read():
        return _copied(*place.opened(), place.shown, place.scheme)


@dataclass(frozen=True)
class _Place:
    """What a URL names."""

    scheme: str
    url: str
    shown: str  # without what it may hold besides

    def opened(self) -> tuple[FileSystem, str]:
        """The store, and the path there."""
        from pyarrow.fs import FileSystem

        return FileSystem.from_uri(self.url)

    @contextmanager
    def read(self) -> Iterator[None]:
        """Raises: InputError where the block cannot read what it names."""
        try:
            yield
        except (OSError, ValueError, NotImplementedError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:300].rstrip(".")
            raise InputError(f"The URL {self.shown} cannot be read: {reason}.") from None


def _place(path: str | Path) -> Path | _Place:
    """The path on this machine, or what a URL names. Raises: InputError if it cannot be read, or holds credentials."""
    found = _URL.fullmatch(str(path))
    if not found:
        return expanded(path)
    scheme, rest = found[1].lower(), found[2]
    if scheme == "file":
        return Path("/" + rest)
    if "@" in rest.split("/")[0]:
        raise InputError(f"A URL of {scheme}:// holds credentials; leave them out, and give them by the environment.")
    url = f"{scheme}://{rest}"
    if scheme not in _STORES:
        raise InputError(f"The URL {url.split('?')[0]} cannot be read: only s3, gs, hdfs and file can; download it.")
    shown, url = url.split("?")[0], quote(url, safe="/%:?=&,+!$'()*;~[]")
    if scheme in ("gs", "gcs") and "retry_limit_seconds" not in url:  # Arrow's is 15 minutes
        url += ("&" if "?" in url else "?") + f"retry_limit_seconds={_PATIENCE}"
    return _Place(scheme, url, shown)


def shown(path: str | Path) -> str:
    """The path, or the URL as people write it, without what it may hold besides."""
    place = _place(path)
    return str(place) if isinstance(place, Path) else place.shown


def opened(path: Path) -> Path | NativeFile:
    """What pyarrow reads a file from, in place. Raises: InputError if it is a URL that cannot be opened."""
    place = _place(path)
    if isinstance(place, Path):
        return place
    with place.read():
        store, file = place.opened()
        return store.open_input_file(file)


def files_in(url: Path) -> dict[Path, int]:
    """The files in a folder by URL, or the one file that it names, and their sizes; by name, hidden ones left out.

    Raises: InputError if there is none, or a folder among them, as of a partition or of a Delta table's log.
    """
    from pyarrow.fs import FileSelector, FileType

    place = _place(url)
    with place.read():
        store, root = place.opened()
        info = store.get_file_info(root)
        if info.type == FileType.File:
            return {url: info.size}
        found = store.get_file_info(FileSelector(root, allow_not_found=True))
    if folders := [file.base_name for file in found if file.type == FileType.Directory]:
        raise InputError(
            f"{place.shown} holds {min(folders)}, a folder, which would be left out; write the rows as files that "
            "stand in one folder, with all their columns."
        )
    files = sorted(
        (url / file.base_name, file.size)
        for file in found
        if file.type == FileType.File and not file.base_name.startswith((".", "_"))
    )
    if not files:
        raise InputError(f"There is nothing at {place.shown}; check the URL.")
    return dict(files)


def names_below(url: Path) -> set[str]:
    """The files of a folder by URL, at any depth, by their paths from there. Raises: OSError."""
    from pyarrow.fs import FileSelector, FileType

    store, root = _place(url).opened()
    found = store.get_file_info(FileSelector(root, recursive=True, allow_not_found=True))
    return {file.path[len(root.rstrip("/")) + 1 :] for file in found if file.type == FileType.File}


def read_bytes(url: Path) -> bytes:
    """What a file by URL holds. Raises: InputError if it cannot be read."""
    place = _place(url)
    with place.read():
        store, file = place.opened()
        with store.open_input_stream(file) as stream:
            return stream.read()


def fetch(url: Path, copy: Path, on_bytes: Callable[[int], None]) -> None:
    """Copies one file here. Raises: InputError if it cannot be read, or there is no room for it."""
    place = _place(url)
    with place.read():
        store, file = place.opened()
        _stream(store, file, copy, on_bytes)


def exists(url: Path) -> bool:
    """Whether there is anything at a URL. Raises: InputError if that cannot be told."""
    from pyarrow.fs import FileSelector, FileType

    place = _place(url)
    if isinstance(place, Path):
        return place.exists()
    with place.read():
        store, path = place.opened()
        if store.get_file_info(path).type != FileType.NotFound:
            return True
        return bool(store.get_file_info(FileSelector(path, allow_not_found=True)))


@contextmanager
def writing_file(path: Path) -> Iterator[IO[bytes] | NativeFile]:
    """A stream into a file that is whole once the block ends well, by path or URL; its folder is made.

    A link stays one: what it points to is written.
    Of a block that fails nothing is left; by URL perhaps a part, which is the caller's to remove.
    Raises: OSError if it cannot be written.
    """
    place = _place(path)
    if isinstance(place, Path):
        place = place.resolve()
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place) as temporary, temporary.open("wb") as stream:
            yield stream
        return
    store, file = place.opened()
    if place.scheme not in _WITHOUT_FOLDERS:
        store.create_dir(file.rsplit("/", 1)[0], recursive=True)
    with store.open_output_stream(file) as stream:
        yield stream


def delete_file(url: Path) -> None:
    """Removes one file, if it is there. Raises: OSError if it cannot be removed."""
    store, file = _place(url).opened()
    with suppress(FileNotFoundError):
        store.delete_file(file)


def remove(path: Path) -> None:
    """Removes a folder, by path or URL, if it is there."""
    place = _place(path)
    if isinstance(place, Path):
        shutil.rmtree(place, ignore_errors=True)
        return
    with suppress(OSError):
        store, folder = place.opened()
        store.delete_dir(folder)


def _copied(store: FileSystem, root: str, shown: str, scheme: str) -> Path:
    from pyarrow.fs import FileSelector, FileType

    info, place = store.get_file_info(root), cache_folder() / scheme
    if info.type == FileType.NotFound:
        raise InputError(f"There is nothing at {shown}; check the URL.")
    infos = [info] if info.type == FileType.File else store.get_file_info(FileSelector(root, recursive=True))
    files = {place / file.path.strip("/"): file for file in infos if file.type == FileType.File}
    whole = place / root.strip("/")
    if not files:
        raise InputError(f"There is nothing at {shown}; check the URL.")
    if any(whole not in (copy, *copy.parents) or ".." in copy.parts for copy in files):
        raise InputError(f"{shown} holds names that are no paths; rename them.")
    with writing(f"{place}, where files of {shown} are copied to", "make room there, or set XDG_CACHE_HOME"):
        if whole.is_dir() != (info.type != FileType.File):  # it was the other one
            _remove(whole)
        for stale in [copy for copy in whole.rglob("*") if copy.is_file() and copy not in files]:
            stale.unlink()
        changed = {copy: file for copy, file in files.items() if not _is_copy(copy, file)}
        if changed:
            with Progress(f"Copying {shown}", sum(file.size for file in changed.values()), "bytes") as progress:
                for copy, file in changed.items():
                    _copy(store, file, copy, progress)
    return whole


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_copy(copy: Path, file: FileInfo) -> bool:
    if not copy.is_file():
        return False
    found = copy.stat()
    return found.st_size == file.size and found.st_mtime_ns == (file.mtime_ns or 0)


def _copy(store: FileSystem, file: FileInfo, copy: Path, progress: Progress) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    with replacing(copy) as temporary:
        _stream(store, file.path, temporary, progress.advance)
        os.utime(temporary, ns=(file.mtime_ns or 0, file.mtime_ns or 0))


def _stream(store: FileSystem, file: str, copy: Path, on_bytes: Callable[[int], None]) -> None:
    with store.open_input_stream(file) as original, copy.open("wb") as stream:
        while data := original.read(_AT_ONCE):
            stream.write(data)
            on_bytes(len(data))
