"""Which number means what: fingerprints of vocabularies, which travel with the files and are compared before use.

Today's log prepared anew gives other numbers than yesterday's, and a model would score other items without a word. So
`mmctr prepare` writes into each Parquet file how its ids were numbered: for each vocabulary a chain of count and
SHA-256, one for each time that it grew. Two files belong together if the end of one's chain is in the other's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mmctr_jax.console import log
from mmctr_jax.data.parquet import part_files
from mmctr_jax.errors import InputError

Numbering = dict[str, list[list]]
"""Vocabulary → its states, oldest first: [count, SHA-256 of the values in order]."""
_KEY = b"mmctr_numbering"


def grown(values: Iterable[object], before: list[list] | None = None) -> list[list]:
    """The chain of a vocabulary: of an older one, `before`, and of its values now, in the order of their numbers."""
    digest, count = hashlib.sha256(), 0
    for value in values:
        text = str(value).encode()
        digest.update(f"{len(text)}:".encode() + text)
        count += 1
    state = [count, digest.hexdigest()]
    chain = list(before or [])
    return chain if chain and chain[-1] == state else [*chain, state]


def with_numbering(schema: pa.Schema, numbering: Numbering) -> pa.Schema:
    """A schema that says how the ids were numbered."""
    return schema.with_metadata((schema.metadata or {}) | {_KEY: json.dumps(numbering).encode()})


def numbering_of(path: str | Path) -> Numbering | None:
    """What a Parquet file, or a folder's part files, say of it; None where they say nothing, or cannot be read.

    Raises: InputError if part files differ.
    """
    files, found = part_files(path), []
    for file in files:
        try:
            said = (pq.read_schema(file).metadata or {}).get(_KEY)
            found.append(None if said is None else json.loads(said))
        except (pa.ArrowException, OSError, ValueError):
            return None
    for file, other in zip(files, found, strict=True):
        if other != found[0]:
            raise InputError(f"{path}: {file.name} was numbered otherwise than its other files; use one preparation's.")
    return found[0]


def check_same_numbering(
    new: Numbering | None, new_name: str | Path, known: Numbering | None, known_name: str | Path
) -> None:
    """Checks that ids of `new` mean what they mean in `known`; warns in one line where only one of the two says.

    Raises: InputError if they do not.
    """
    if new is None and known is None:
        return
    if new is None or known is None:
        silent, other = (new_name, known_name) if new is None else (known_name, new_name)
        log.warning(f"{silent} does not say how its ids were numbered; they are taken to be those of {other}.")
        return
    for name in new.keys() & known.keys():
        if new[name][-1] not in known[name] and known[name][-1] not in new[name]:
            raise InputError(
                f"{new_name} was numbered otherwise than {known_name}: {name} {new[name][-1][0]:,} and "
                f"{known[name][-1][0]:,} values, neither a continuation of the other, so its ids mean other things; "
                "prepare the log again with `mmctr prepare … --like` the run or its prepared folder."
            )


def original(column: str, ids: pa.ChunkedArray, file: Path, numbering: Numbering | None) -> pa.ChunkedArray:
    """The log's own ids of a column of numbers: by vocabularies/COLUMN.parquet beside the file.

    Args:
      numbering: of the file that the ids are from.
    Raises: InputError if there is no such vocabulary, it is of another preparation, or lacks a number.
    """
    path = file.parent / "vocabularies" / f"{column}.parquet"
    if not pa.types.is_integer(ids.type):
        raise InputError(
            f"--original-ids: column {column} of {file} is of type {ids.type}, and prepared ids are whole numbers; "
            "score without it."
        )
    try:
        table = pq.read_table(path, page_checksum_verification=True).sort_by("id")
        values = table["value"].to_pylist()
        whole = table["id"].to_pylist() == list(range(1, len(values) + 1))
    except (OSError, KeyError, pa.ArrowException):
        raise InputError(
            f"--original-ids: {path}, the vocabulary of {column}, cannot be read; score without it."
        ) from None
    known = (numbering or {}).get(column)
    if not whole or (known is not None and grown(values)[-1] != known[-1]):
        raise InputError(
            f"--original-ids: {path} is not the vocabulary that {file} was numbered with; score without it."
        )
    numbers = ids.to_pylist()
    wrong = next((row for row, number in enumerate(numbers) if not 1 <= (number or 0) <= len(values)), None)
    if wrong is not None:
        raise InputError(f"--original-ids: {file}, row {wrong}: {column} {numbers[wrong]} is not in {path}.")
    return pa.chunked_array([pa.array([values[number - 1] for number in numbers], pa.string())])
