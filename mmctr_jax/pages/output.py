"""The page's place on disk: tried before minutes of work, written whole or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mmctr_jax.files import write_atomically, writing


def check_writable(folder: Path, advice: str, named: Path | None = None) -> None:
    """Raises InputError, which names `named` or the folder, if no file can be made in `folder`, or in what there is of
    its parents."""
    with writing(named or folder, advice):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        tempfile.TemporaryFile(dir=there).close()


def write_files(folder: Path, advice: str, contents: dict[str, str]) -> None:
    """Writes each of `contents`, file name → text, into `folder`, which is made. Raises InputError."""
    with writing(folder, advice):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            write_atomically(folder / name, text)
