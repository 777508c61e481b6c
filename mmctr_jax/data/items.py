"""The item table: what is known of every item, held once, on the device, by item id. Batches carry ids only.

On the host it is memory-mapped, in the cache folder: a process has in memory what its devices need of it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmctr_jax.data.cache import digest_of_files
from mmctr_jax.data.fitted import fitted
from mmctr_jax.data.kept import Kept, built, built_for_now, filled_with_zeros, find, zeros_for_now
from mmctr_jax.data.parquet import count_rows, part_files, read_columns
from mmctr_jax.errors import InputError
from mmctr_jax.features import Feature, Features
from mmctr_jax.features.base import Fitted
from mmctr_jax.files import writing_cache

ItemTable = dict[str, np.ndarray]
"""Item feature name → (V, …) its values by item id, e.g. (V, L) int32 tags or (V, dim) float32 vectors. Long
lists add two arrays (`features.lists`), and `features.item_rows` one under the name of the item ids: (V,) int32, each
item's row of their table, or 0."""


@dataclass(frozen=True)
class Items:
    """What item_info gives."""

    features: Features  # with null `num_items` and item vocabularies filled in
    table: ItemTable
    fingerprint: str  # of what was read, by item; not of what was derived from it
    key: str  # what was read is kept under it in the cache folder
    codebooks: dict[str, Fitted]  # of each derived feature: what fitting gave besides the values, for new items


def load_items(
    path: str | Path,
    features: Features,
    cache_dir: str | Path,
    known: ItemTable | None = None,
    learned: tuple[ItemTable, dict[str, Fitted]] | None = None,
    key: str | None = None,
) -> Items:
    """Reads item_info: item ids in any order, each exactly once, without gaps; padding row 0 may be left out.

    Args:
      cache_dir: folder where the table and derived features are kept.
      known: a table whose derived features are taken as they are: a resumed run keeps those it began with.
      learned: table and codebooks of the run whose weights a training begins with. Ids that it has learned something
        for, such as codes, stay those of its items, and new items get theirs by its codebooks.
      key: `Items.key`, as another process found it: where the table is in the cache folder, the file is not read.
    Raises: InputError on duplicate, negative or missing ids, a row 0 that is not all zero, ids beyond a vocabulary,
      vectors of another width or not finite.
    """
    files, columns = part_files(path), features.item_columns
    if key is None or find(cache_dir, _name(key)) is None:
        key = _key(files, features.item, columns)
        _remove_if_damaged(cache_dir, _name(key))
    kept = built(cache_dir, _name(key), lambda folder: _build(folder, files, path, features.item, columns))
    columns, num_items = _columns(kept), kept.meta["num_items"]
    if features.num_items not in (None, num_items):
        raise InputError(
            f"{path} has {num_items:,} items, padding item 0 included, and features.num_items is "
            f"{features.num_items:,}; set it to null or to the file's number."
        )
    table, codebooks = {}, {}
    for f in features.item_features:
        values = columns[f.column.name]
        if not f.is_derived:
            table |= {name: columns[name] for part in f.parts if (name := f.name + part) in columns}
        elif known and f.name in known:
            table[f.name] = known[f.name]
        elif learned and f.table_size is not None and f.name in learned[0]:
            of_run, codebook = learned[0][f.name], learned[1].get(f.name, {})
            table |= _joined(f.joined(of_run, f.extended(values, of_run, codebook).values))
            codebooks[f.name] = codebook
        else:
            found = fitted(f, values, kept.meta["digests"][f.column.name], cache_dir)
            table[f.name] = found["values"]
            if rest := {name: array for name, array in found.items() if name != "values"}:
                codebooks[f.name] = rest
    return Items(features.resolved(columns, num_items), table, kept.meta["fingerprint"], key, codebooks)


def with_new_items(
    features: Features, known: ItemTable, codebooks: dict[str, Fitted], path: str | Path
) -> tuple[ItemTable, int, list[str]]:
    """The table of training, `known`, and after it the items of a newer item_info that training did not have.

    Known items stay as training saw them; each kind of feature says what it knows of new ones (`Feature.extended`).
    codebooks: what the run kept of its derived features, see `Items`.
    Returns the table, its number of items, and sentences on what the user should know.
    Raises: InputError as `load_items`, or if the file is of other items.
    """
    to_read = {name: f.without_limit() for name, f in features.item_columns.items()}
    files = part_files(path)
    with built_for_now(lambda folder: _build(folder, files, path, features.item, to_read)) as kept:
        columns, num_items = _columns(kept), kept.meta["num_items"]
    trained = features.num_items
    if num_items < trained:
        raise InputError(f"{path} has {num_items:,} items, and training had {trained:,}; ids must stay what they were.")
    table, remarks, changed = {}, [], np.zeros(trained, bool)
    for f in features.item_features:
        new = f.extended(f.column.of(columns), f.of(known), codebooks.get(f.name, {}))
        table |= _joined(f.joined(f.of(known), new.values))
        changed |= new.changed
        if new.unknown:
            remarks.append(f"{path}: {new.unknown:,} ids in {f.name} are new since training and count as unknown.")
    if features.item_rows:
        table[features.item] = np.pad(known[features.item], (0, num_items - trained))
    if 2 * np.count_nonzero(changed) > trained:
        raise InputError(
            f"{path}: {np.count_nonzero(changed):,} of the {trained:,} items of training have other features now, so "
            "their ids seem to mean other items; new items must come after the known ones."
        )
    if changed.any():
        remarks.append(
            f"{path}: {np.count_nonzero(changed):,} items have other features than in training, the first item "
            f"{np.flatnonzero(changed)[0]}; they are scored as they were."
        )
    return table, num_items, remarks


def _joined(parts: dict[str, list[np.ndarray]]) -> ItemTable:
    """Each array in one piece, as a map if it was in several. Raises: InputError where there is no room."""
    return {name: arrays[0] if len(arrays) == 1 else _one_behind_the_other(arrays) for name, arrays in parts.items()}


def _one_behind_the_other(arrays: list[np.ndarray]) -> np.ndarray:
    whole = zeros_for_now((sum(map(len, arrays)), *arrays[0].shape[1:]), arrays[0].dtype)
    return np.asarray(np.concatenate(arrays, out=whole))


_FORMAT = 2


def _key(files: list[Path], item: str, columns: dict[str, Feature]) -> str:
    schema = [_FORMAT, item, [f.model_dump(mode="json") for f in columns.values()]]
    return digest_of_files(files, hashlib.sha256(json.dumps(schema).encode())).hexdigest()


def _name(key: str) -> str:
    return f"items-{key[:24]}"


def _remove_if_damaged(cache_dir: str | Path, name: str) -> None:
    """Removes a table whose values are not those that were kept, so that it is built anew."""
    kept = find(cache_dir, name)
    if kept and fingerprint(_columns(kept)) != kept.meta["fingerprint"]:
        with writing_cache(cache_dir, "data.cache_dir"):
            shutil.rmtree(kept.folder)


def _columns(kept: Kept) -> ItemTable:
    """What was read of each column, by item id, mapped."""
    return {name: kept.array(f"column{i}") for i, name in enumerate(kept.meta["columns"])}


def _build(folder: Path, files: list[Path], path: str | Path, item: str, columns: dict[str, Feature]) -> dict[str, Any]:
    """Writes each column by item id, as `Kept`. In memory are the ids, and the values of those columns whose width is
    known only at their end. Raises InputError."""
    if not count_rows(files):
        raise InputError(f"{path} has no rows; it must have one row per item.")
    ids = np.concatenate([chunk[item].integers() for chunk in read_columns(files, [item])])
    num_items = _check_each_once(ids, path, item)
    table: ItemTable = {}

    def place(name: str, at: np.ndarray | slice, values: np.ndarray, rows: int) -> None:
        if name not in table:
            array = f"column{len(table)}"  # any name may be no file's name
            table[name] = filled_with_zeros(folder, array, values.dtype, (rows, *values.shape[1:]))
        table[name][at] = values

    unjoined: dict[str, list] = {}
    for chunk in read_columns(files, [item, *columns]):
        at = chunk[item].integers()
        for name, feature in columns.items():
            values = feature.read(chunk[name])
            if isinstance(values, np.ndarray):
                place(name, at, values, num_items)
            else:
                unjoined.setdefault(name, []).append(values)
    for name, chunks in unjoined.items():
        for array, values in columns[name].held(chunks, ids, num_items).items():
            place(array, slice(None), values, len(values))
    for values in table.values():
        values.flush()
    for name in columns:
        if np.nan_to_num(table[name][0]).any():
            raise InputError(f"{path}: item 0 is padding and its {name} is not zero; number items from 1.")
    arrays = {f"column{i}": [values.dtype.name, values.shape] for i, values in enumerate(table.values())}
    digests = {name: fingerprint({name: table[name]}) for name, feature in columns.items() if feature.is_vector}
    about = {"columns": list(table), "num_items": num_items, "fingerprint": fingerprint(table), "digests": digests}
    return about | {"arrays": arrays}


def fingerprint(table: ItemTable) -> str:
    """SHA-256 of the names and contents of arrays."""
    digest = hashlib.sha256()
    for name, values in sorted(table.items()):
        digest.update(f"{name}{values.dtype}{values.shape}".encode())
        digest.update(np.ascontiguousarray(values))
    return digest.hexdigest()


def _check_each_once(ids: np.ndarray, path: str | Path, column: str) -> int:
    """V, padding item 0 included, which the file may leave out. Raises InputError unless each id is there once."""
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    if ordered[0] < 0:
        raise InputError(f"{path}: column {column} holds the id {ordered[0]}; item ids must not be negative.")
    twice = np.flatnonzero(np.diff(ordered) == 0)
    if twice.size:
        first, second = order[twice[0]], order[twice[0] + 1]
        raise InputError(f"{path}: item {ordered[twice[0]]} stands in rows {first} and {second}; keep one of them.")
    first = min(ordered[0], 1)
    gap = np.flatnonzero(ordered != np.arange(first, first + len(ordered)))
    if gap.size:
        raise InputError(
            f"{path} has no row for item {first + gap[0]} (its largest id is {ordered[-1]}); "
            "add the missing items, with empty tags and a zero vector where nothing is known."
        )
    return int(ordered[-1]) + 1
