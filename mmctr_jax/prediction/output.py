"""The file of scores: Parquet, CSV, or the challenge's submission."""

from __future__ import annotations

import csv
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from mmctr_jax.errors import InputError
from mmctr_jax.remote import exists, is_remote, shown, writing_file

TASKS = ("Task1", "Task2", "Task1&2")
_SUFFIXES = (".parquet", ".csv", ".zip")


def check_output(out: Path, task: str | None, inputs: list[Path]) -> None:
    """Checks, before hours of scoring, that scores can be written to `out`.

    Args:
      task: the score column of a submission, one of `TASKS`; given for a .zip file and for no other.
      inputs: files that are going to be read, or must stay for other reasons.
    Raises: InputError if the file's ending, its place or the task does not do, or it is one of the inputs.
    """
    if out.suffix not in _SUFFIXES:
        raise InputError(f"Output {out} must end in {', '.join(_SUFFIXES)}; the ending chooses the format.")
    if (out.suffix == ".zip") != (task is not None):
        raise InputError(
            f"--task ({', '.join(TASKS)}) names the score column of a .zip file; give it with --out NAME.zip only."
        )
    if is_remote(out):
        exists(out)  # raises where the store cannot be reached
        return
    folder = out.resolve().parent
    if not folder.is_dir():
        raise InputError(
            f"Folder {folder if out.is_symlink() else out.parent} for the output does not exist; make it first."
        )
    if out.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"Output {out} cannot be written; name another file.")
    if out.resolve() in [file.resolve() for file in inputs]:
        raise InputError(f"Output {out} would overwrite a file of the data; name another file.")


def write_scores(
    out: Path,
    ids: dict[str, pa.ChunkedArray],
    scores: np.ndarray,
    task: str | None,
    more: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> None:
    """Writes id columns and (rows,) scores, whole or not at all. Raises: InputError if that cannot be done.

    more: further columns of scores, by name; a submission has none.
    """
    try:
        with _whole(out) as stream:
            if out.suffix == ".zip":
                row_ids = ids.get("ID", pa.chunked_array([np.arange(len(scores))]))
                buffer = io.BytesIO()
                _write_csv(pa.table({"ID": row_ids, task: scores}), buffer)
                with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
                    archive.writestr(zipfile.ZipInfo("prediction.csv"), buffer.getvalue(), zipfile.ZIP_DEFLATED)
            else:
                table = pa.table({**ids, "score": scores, **more})
                if out.suffix == ".csv":
                    _write_csv(table, stream)
                else:
                    pq.write_table(table, stream)
    except OSError as error:
        reason = error.strerror or (str(error).splitlines() or [type(error).__name__])[0][:300].rstrip(".")
        raise InputError(f"Output {shown(out)} cannot be written: {reason}.") from None
    except pa.ArrowException as error:
        raise InputError(f"Output {shown(out)}: {str(error).splitlines()[0]}; choose .parquet.") from None


@contextmanager
def _whole(out: Path) -> Iterator[BinaryIO]:
    """A stream whose content becomes the file once the block ends well; a store would take the beginning for it."""
    if not is_remote(out):
        with writing_file(out) as stream:
            yield stream
        return
    with tempfile.TemporaryFile() as kept:
        yield kept
        kept.seek(0)
        with writing_file(out) as stream:
            shutil.copyfileobj(kept, stream)


def _write_csv(table: pa.Table, stream: BinaryIO) -> None:
    """CSV whose header is bare where it can be, as the challenge's is (pyarrow would put it in quotes)."""
    header = io.StringIO()
    csv.writer(header, lineterminator="\n").writerow(table.column_names)
    stream.write(header.getvalue().encode())
    pyarrow.csv.write_csv(table, stream, pyarrow.csv.WriteOptions(include_header=False))
