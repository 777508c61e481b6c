"""Sample rows as memory-mapped binary arrays, built once from Parquet and checked while being built.

A cache is named after its fingerprint: SHA-256 over the source files' bytes, the columns and vocabularies read from
them, and this format's version.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmctr_jax.console import Progress, log
from mmctr_jax.data.kept import Kept, built, built_for_now, find
from mmctr_jax.data.parquet import Column, count_rows, part_files, read_columns
from mmctr_jax.errors import InputError
from mmctr_jax.features import Feature, Features
from mmctr_jax.files import sha256

_FORMAT = 1  # of what is read: part of fingerprints, which runs keep
_LAYOUT = "-2"  # of the folder
_SOFT = "-soft"  # behind it where labels are float32


@dataclass(frozen=True)
class Split:
    """The rows of one file, in its order. Histories are ragged: row i's clicks are values[offsets[i]:offsets[i+1]]."""

    history_values: np.ndarray  # (clicks,) int32, no padding, oldest first within a row
    history_offsets: np.ndarray  # (rows + 1,) int64
    item: np.ndarray  # (rows,) int32
    side: dict[str, np.ndarray]  # by name: (rows, …) values of each side feature
    label: np.ndarray | None  # (rows,) uint8, or float32 of training rows; None where they were not asked for
    fingerprint: str
    weight: np.ndarray | None = None  # (rows,) float32; None: all count the same
    labels: dict[str, np.ndarray] = field(default_factory=dict)  # as `label`, of each label besides it
    clicks: dict[str, np.ndarray] = field(default_factory=dict)  # by name: (clicks,) values of each click feature

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.item)


def digest_of_files(files: list[Path], digest: hashlib._Hash | None = None) -> hashlib._Hash:
    """SHA-256 over the files' own, in order; `digest`, if given, is updated. Raises InputError."""
    digest = hashlib.sha256() if digest is None else digest
    for file in files:
        digest.update(sha256(file).digest())
    return digest


def _fingerprint(files: list[Path], features: Features, with_labels: bool, training: bool) -> str:
    schema = [_FORMAT, features.history, features.item, features.num_items, with_labels and features.label]
    schema += [f.schema() for f in features.side]
    schema += [features.weight] if training and features.weight else []
    schema += [["labels", features.other_labels]] if with_labels and features.other_labels else []
    schema += [["clicks", [f.schema() for f in features.clicks]]] if features.clicks else []
    return digest_of_files(files, hashlib.sha256(json.dumps(schema).encode())).hexdigest()


def load_split(
    path: str | Path,
    features: Features,
    cache_dir: str | Path | None,
    with_labels: bool,
    training: bool = False,
    fingerprint: str | None = None,
) -> Split:
    """The rows of a Parquet file or folder, from the cache if it is there, else read, checked and cached.

    Args:
      features: column names and vocabularies, resolved (`num_items` not null).
      cache_dir: folder of the caches; None: a temporary one, gone with the arrays.
      with_labels: labels are required (True) or not read at all (False).
      training: the rows are to be learned: they have weights, and their labels may lie between 0 and 1.
      fingerprint: of the rows, as another process found it: where it has cached them, the files are not read.
    Raises: InputError if a file, column or row is not as it must be.
    """
    files = part_files(path)

    def build(folder: Path) -> dict:
        return _build(folder, files, path, features, with_labels, training)

    if cache_dir is None:
        with built_for_now(build) as kept:
            return _split(kept, "")
    if fingerprint is None or find(cache_dir, _name(fingerprint, training)) is None:
        fingerprint = _fingerprint(files, features, with_labels, training)
    return _split(built(cache_dir, _name(fingerprint, training), build), fingerprint)


def _name(fingerprint: str, training: bool) -> str:
    return fingerprint[:24] + _LAYOUT + (_SOFT if training else "")


def read_labelled(path: str | Path, features: Features, cache_dir: str | Path, training: bool = False) -> Split:
    """`load_split` with labels, for those who look at a run: on another machine its cache folder may be of no use.

    Then the rows are read into a temporary one, which is gone with the arrays.
    """
    folder = Path(cache_dir).absolute()
    there = folder if folder.exists() else folder.parent  # no folders are made where there were none
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return load_split(path, features, cache_dir, True, training)
    with tempfile.TemporaryDirectory(prefix="mmctr_") as temporary:
        return load_split(path, features, temporary, True, training)


def _split(kept: Kept, fingerprint: str) -> Split:
    meta = kept.meta
    side = {name: kept.array(f"side{i}") for i, name in enumerate(meta["side"])}  # any name may be no file's name
    clicks = {name: kept.array(f"click{i}") for i, name in enumerate(meta.get("clicks", []))}
    labels = {name: kept.array(f"label{i}") for i, name in enumerate(meta.get("labels", []))}
    names = ("history_values", "history_offsets", "item", "label", "weight")
    arrays = {name: kept.array(name) for name in names}
    return Split(**arrays, side=side, clicks=clicks, labels=labels, fingerprint=fingerprint)


def _build(
    folder: Path, files: list[Path], path: str | Path, features: Features, with_labels: bool, training: bool
) -> dict:
    """Writes the arrays, chunk by chunk, so that memory stays small whatever the number of rows."""
    rows = count_rows(files)
    columns = [features.history, features.item, *(f.name for f in (*features.side, *features.clicks))]
    weight = features.weight if training else None
    other_labels = features.other_labels if with_labels else ()
    columns += ([features.label, *other_labels] if with_labels else []) + ([weight] if weight else [])
    chunks = read_columns(files, columns)
    none = {"history_values": np.zeros(0, np.int32), "history_offsets": np.zeros(0, np.int64)}
    none |= {"item": np.zeros(0, np.int32)} | {f"side{i}": f.padding(0) for i, f in enumerate(features.side)}
    none |= {f"click{i}": f.padding(0) for i, f in enumerate(features.clicks)}
    if with_labels:
        empty = np.zeros(0, np.float32 if training else np.uint8)
        none |= dict.fromkeys(["label", *(f"label{i}" for i in range(len(other_labels)))], empty)
    if weight:
        none["weight"] = np.zeros(0, np.float32)
    streams = {name: open(folder / f"{name}.bin", "wb") for name in none}
    counts = dict.fromkeys(none, 0)

    def write(name: str, values: np.ndarray) -> None:
        streams[name].write(np.ascontiguousarray(values, none[name].dtype))
        counts[name] += len(values)

    try:
        write("history_offsets", np.zeros(1))
        with Progress(f"Reading {path}", rows, "rows") as progress:
            for chunk in chunks:
                history, offsets = chunk[features.history].integer_lists()
                item = chunk[features.item].integers()
                in_rows = np.searchsorted(offsets, np.arange(len(history)), side="right") - 1 if len(history) else None
                _check_ids(chunk[features.history], history, features.num_items, "item_info has", in_rows)
                _check_ids(chunk[features.item], item, features.num_items, "item_info has")
                padding = np.flatnonzero(item == 0)
                if padding.size:
                    raise chunk[features.item].refuse(padding[0], "item 0 is padding and cannot be a target.")
                side = [f.read_rows(chunk[f.name]) for f in features.side]
                clicks = [_read_clicks(f, chunk[f.name], chunk[features.history]) for f in features.clicks]
                write("history_offsets", offsets[1:] + counts["history_values"])
                write("history_values", history)
                write("item", item)
                for i, values in enumerate(side):
                    write(f"side{i}", values)
                for i, values in enumerate(clicks):
                    write(f"click{i}", values)
                if with_labels:
                    write("label", chunk[features.label].labels(soft=training))
                for i, name in enumerate(other_labels):
                    write(f"label{i}", chunk[name].labels(soft=training))
                if weight:
                    write("weight", chunk[weight].weights())
                progress.advance(len(item))
    finally:
        for stream in streams.values():
            stream.close()
    if not rows:
        raise InputError(f"{path} has no rows.")
    log.info(f"Read {path}: {rows:,} rows, {counts['history_values'] / rows:.1f} clicks a history.")
    shapes = {name: [n, *none[name].shape[1:]] for name, n in counts.items()}
    arrays = {name: [none[name].dtype.name, shapes[name]] for name in none}
    names = {"side": [f.name for f in features.side], "clicks": [f.name for f in features.clicks]}
    names |= {"labels": list(other_labels)}
    return {"arrays": arrays} | names


def _read_clicks(feature: Feature, column: Column, history: Column) -> np.ndarray:
    """(clicks,) values of a feature of the clicks, without those of padding. Raises: InputError."""
    ids, expected = history.padded_integer_lists()
    values, offsets = column.elements()
    wrong = np.flatnonzero(np.diff(offsets) != np.diff(expected))
    if wrong.size:
        row = wrong[0]
        lengths = np.diff(offsets)[row], np.diff(expected)[row]
        raise column.refuse(row, f"{lengths[0]} values; {history.name} has {lengths[1]} clicks there.")
    return feature.read(values)[ids != 0]


def _check_ids(column: Column, ids: np.ndarray, size: int, owner: str, in_rows: np.ndarray | None = None) -> None:
    wrong = np.flatnonzero((ids < 0) | (ids >= size))
    if wrong.size:
        row = wrong[0] if in_rows is None else in_rows[wrong[0]]
        raise column.refuse(row, f"id {ids[wrong[0]]}; {owner} ids 0 … {size - 1}.")
